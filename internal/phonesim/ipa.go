package phonesim

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"howett.net/plist"
)

// modelFile is where an iOS app carries its description.
const modelFile = "phonesim.json"

// infoPlist is the part of an iOS app's Info.plist that is read and written here.
type infoPlist struct {
	Identifier   string   `plist:"CFBundleIdentifier"`
	Name         string   `plist:"CFBundleName"`
	Executable   string   `plist:"CFBundleExecutable"`
	ShortVersion string   `plist:"CFBundleShortVersionString"`
	Version      string   `plist:"CFBundleVersion"`
	MinimumOS    string   `plist:"MinimumOSVersion"`
	Platforms    []string `plist:"CFBundleSupportedPlatforms"`
	PackageType  string   `plist:"CFBundlePackageType"`
}

const (
	platformPhone     = "iPhoneOS"
	platformSimulator = "iPhoneSimulator"
)

// BuildIPA writes an iOS app: for phones an IPA, for simulators a zip of the app's directory. Its Info.plist is binary, as
// Xcode writes it. The app is neither signed nor code. The same app gives the same bytes.
func BuildIPA(a App, simulator bool) ([]byte, error) {
	if err := a.Validate(); err != nil {
		return nil, err
	}
	a = a.withDefaults()
	info := infoPlist{
		Identifier: a.Package, Name: a.Label, Executable: "App", ShortVersion: a.VersionName, Version: strconv.Itoa(int(a.VersionCode)),
		MinimumOS: a.MinOS, Platforms: []string{platformPhone}, PackageType: "APPL",
	}
	dir := "Payload/App.app/"
	if simulator {
		info.Platforms, dir = []string{platformSimulator}, "App.app/"
	}
	described, err := plist.Marshal(info, plist.BinaryFormat)
	if err != nil {
		return nil, fmt.Errorf("the app's Info.plist: %w", err)
	}
	model := defaultModel(a.Label)
	if a.Model != nil {
		model = *a.Model
	}
	content, err := json.Marshal(model)
	if err != nil {
		return nil, fmt.Errorf("app model: %w", err)
	}
	return writeZip([]zipFile{{dir + "App", 0o755, []byte("simulated\n")}, {dir + "Info.plist", 0o644, described}, {dir + modelFile, 0o644, content}})
}

// AppSHA256 is by what a simulated iPhone's ledger knows an app: the hash over the files of its directory.
func AppSHA256(dir string) (string, error) {
	sum := sha256.New()
	err := filepath.WalkDir(dir, func(at string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(at)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, at)
		fmt.Fprintf(sum, "%s %x\n", filepath.ToSlash(rel), sha256.Sum256(content))
		return err
	})
	return hex.EncodeToString(sum.Sum(nil)), err
}

// readApp reads the directory of an iOS app.
func readApp(dir string) (apkInfo, infoPlist, error) {
	var described infoPlist
	content, err := os.ReadFile(filepath.Join(dir, "Info.plist"))
	if err != nil {
		return apkInfo{}, described, &installError{"PackageInspectionFailed", "Failed to load Info.plist from bundle at path " + dir}
	}
	if _, err := plist.Unmarshal(content, &described); err != nil {
		return apkInfo{}, described, &installError{"PackageInspectionFailed", err.Error()}
	}
	if described.Identifier == "" {
		return apkInfo{}, described, &installError{"MissingBundleIdentifier", "Bundle at path " + dir + " has no CFBundleIdentifier"}
	}
	info := apkInfo{pkg: described.Identifier, versionName: described.ShortVersion, label: described.Name, model: defaultModel(described.Name), activity: described.Identifier}
	info.versionCode, _ = strconv.ParseInt(described.Version, 10, 64) // a version with dots counts as 0
	if info.sha256, err = AppSHA256(dir); err != nil {
		return apkInfo{}, described, err
	}
	content, err = os.ReadFile(filepath.Join(dir, modelFile))
	if errors.Is(err, fs.ErrNotExist) {
		return info, described, nil
	}
	if err == nil {
		info.model, err = ParseModel(content)
	}
	if err != nil {
		return apkInfo{}, described, &installError{"PackageInspectionFailed", modelFile + ": " + err.Error()}
	}
	return info, described, nil
}

// unpackIPA unpacks the app of an IPA into a directory and returns the app's own.
func unpackIPA(file, dir string) (string, error) {
	z, err := zip.OpenReader(file)
	if err != nil {
		return "", &installError{"PackageExtractionFailed", err.Error()}
	}
	defer z.Close()
	for _, f := range z.File {
		if !filepath.IsLocal(f.Name) || strings.HasSuffix(f.Name, "/") {
			continue
		}
		if err := unpackFile(f, filepath.Join(dir, filepath.FromSlash(f.Name))); err != nil {
			return "", &installError{"PackageExtractionFailed", err.Error()}
		}
	}
	found, _ := filepath.Glob(filepath.Join(dir, "Payload", "*.app")) // the pattern is right
	if len(found) != 1 {
		return "", &installError{"PackageExtractionFailed", path.Base(file) + " has no app in Payload"}
	}
	return found[0], nil
}

func unpackFile(f *zip.File, to string) error {
	from, err := f.Open()
	if err != nil {
		return err
	}
	defer from.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(from); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, b.Bytes(), 0o755)
}
