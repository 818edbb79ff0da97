// Package build reads builds: what an APK says about itself in its manifest, what an iOS app says in its
// Info.plist, and the SHA-256 it is known by.
//
// A build comes from whoever submits it, so whatever a file holds, reading it ends in a description or in
// an error that says what is wrong with the file. The package runs no program and changes nothing.
package build

import (
	"archive/zip"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/shogo82148/androidbinary"
	"github.com/shogo82148/androidbinary/apk"

	"qgjob"
)

// Info is what a build says about itself.
type Info struct {
	SHA256      string // of the file, in lower-case hexadecimal
	Size        int64  // in bytes
	Platform    string // qgjob.PlatformAndroid or qgjob.PlatformIOS
	Package     string // Android package or iOS bundle id
	Activity    string // the activity that a launcher starts, with its package; "" where there is none
	VersionCode int64
	VersionName string // "" where it is missing or kept in the build's resources
	MinSDK      int    // API level; 1 where the build does not say; 0 of an iOS app
	TargetSDK   int    // API level; MinSDK where the build does not say
	MinOS       string // the oldest system that it runs on; "" where every device that is driven has it
	Simulator   bool   // an iOS app for simulators, and no other device
	Debuggable  bool
	ABIs        []string // instruction sets that its native code is for, sorted; empty: it has none, and runs on any
}

// Kind is the only kind of own device that takes the build, "" for both.
func (i Info) Kind() qgjob.Target {
	switch {
	case i.Platform != qgjob.PlatformIOS:
		return ""
	case i.Simulator:
		return qgjob.TargetEmulator
	}
	return qgjob.TargetDevice
}

// Parse reads the APK, IPA or zipped iOS app in a file. Every error has qgjob.CodeInvalid.
func Parse(path string) (Info, error) {
	info, err := parse(path)
	if err != nil {
		return Info{}, qgjob.Errorf(qgjob.CodeInvalid, "build %s %w", path, err)
	}
	return info, nil
}

func parse(path string) (Info, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return Info{}, errors.New("is a directory: give an APK or an IPA, or zip a simulator's app (ditto -c -k --keepParent My.app My.zip)")
	}
	file, err := os.Open(path)
	if err != nil {
		return Info{}, fmt.Errorf("cannot be read: %w", err)
	}
	defer file.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, file)
	if err != nil {
		return Info{}, fmt.Errorf("cannot be read: %w", err)
	}
	info, err := read(file, size)
	if err != nil {
		return Info{}, err
	}
	info.SHA256, info.Size = hex.EncodeToString(sum.Sum(nil)), size
	return info, nil
}

// manifestName is where an APK describes itself.
const manifestName = "AndroidManifest.xml"

// maxManifest is far beyond what apps have; more is damage.
const maxManifest = 8 << 20

// packageName is Android's rule for one.
var packageName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)+$`)

// maxDirectory is far beyond what builds list of their files; what is listed is kept in memory.
const maxDirectory = 32 << 20

// bounded is a file of which only so much may be read.
type bounded struct {
	r    io.ReaderAt
	left int64
}

func (b *bounded) ReadAt(p []byte, at int64) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, errDamaged
	}
	return b.r.ReadAt(p, at)
}

func read(r io.ReaderAt, size int64) (Info, error) {
	directory := &bounded{r: r, left: maxDirectory}
	archive, err := zip.NewReader(directory, size)
	directory.left = math.MaxInt64
	if err != nil {
		return Info{}, errors.New("is no APK and no IPA: it is not a zip archive, or was cut short: build or copy it again")
	}
	if plist, ok := findInfoPlist(archive); ok {
		return readIOS(plist)
	}
	data, err := readManifest(archive)
	if err != nil {
		return Info{}, err
	}
	m, err := decode(data)
	if err != nil {
		return Info{}, fmt.Errorf("is no APK that can be installed: its %s is damaged: %w", manifestName, err)
	}
	info, err := describe(m)
	info.Platform, info.MinOS = qgjob.PlatformAndroid, androidVersion(info.MinSDK)
	info.ABIs = nativeFor(archive)
	return info, err
}

// nativeFor lists the instruction sets that an APK has libraries for, which are below lib/<ABI>/.
func nativeFor(archive *zip.Reader) []string {
	var abis []string
	for _, f := range archive.File {
		if parts := strings.Split(f.Name, "/"); len(parts) == 3 && parts[0] == "lib" && strings.HasSuffix(parts[2], ".so") && qgjob.ABI.MatchString(parts[1]) && !slices.Contains(abis, parts[1]) {
			abis = append(abis, parts[1])
		}
	}
	slices.Sort(abis)
	return abis
}

func readManifest(archive *zip.Reader) ([]byte, error) {
	for _, f := range archive.File {
		if f.Name != manifestName {
			continue
		}
		if f.UncompressedSize64 > maxManifest {
			return nil, fmt.Errorf("is no APK that can be installed: its %s has %d bytes", manifestName, f.UncompressedSize64)
		}
		content, err := f.Open()
		if err != nil {
			return nil, fmt.Errorf("is damaged: its %s cannot be unpacked: %w", manifestName, err)
		}
		defer content.Close()
		data, err := io.ReadAll(content)
		if err != nil {
			return nil, fmt.Errorf("is damaged: its %s cannot be unpacked: %w", manifestName, err)
		}
		return data, nil
	}
	return nil, whatElse(archive)
}

// whatElse names the archives that people take for an APK.
func whatElse(archive *zip.Reader) error {
	for _, f := range archive.File {
		switch {
		case f.Name == "base/manifest/"+manifestName, f.Name == "BundleConfig.pb":
			return errors.New("is an Android App Bundle (AAB), which no device can install: build an APK (gradle assembleDebug, or bundletool build-apks --mode=universal)")
		case strings.HasSuffix(f.Name, ".apk"):
			return errors.New("is an archive of APKs (APKS, XAPK), not an APK: build a universal APK")
		}
	}
	return fmt.Errorf("is no APK and no IPA: it is a zip archive without %s and without an app's Info.plist", manifestName)
}

// decode reads a binary manifest. The library panics on some damage, which is the reason for the recover,
// and allocates what the file asks for, which is the reason for checkChunks.
func decode(data []byte) (m apk.Manifest, err error) {
	if err := checkChunks(data); err != nil {
		return m, err
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	file, err := androidbinary.NewXMLFile(bytes.NewReader(data))
	if err != nil {
		return m, err
	}
	return m, file.Decode(&m, nil, nil)
}

// describe takes what is stated; values that are references into the build's resources count as not stated.
func describe(m apk.Manifest) (Info, error) {
	text := func(s androidbinary.String) string {
		v, err := s.String()
		if err != nil || androidbinary.IsResID(v) {
			return ""
		}
		return v
	}
	number := func(n androidbinary.Int32) int32 {
		v, err := n.Int32()
		if err != nil {
			return 0
		}
		return v
	}
	info := Info{
		Package:     text(m.Package),
		VersionCode: int64(number(m.VersionCode)),
		VersionName: text(m.VersionName),
		MinSDK:      cmp.Or(int(number(m.SDK.Min)), 1),
	}
	info.TargetSDK = cmp.Or(int(number(m.SDK.Target)), info.MinSDK)
	if debuggable, err := m.App.Debuggable.Bool(); err == nil {
		info.Debuggable = debuggable
	}
	if !packageName.MatchString(info.Package) {
		return Info{}, fmt.Errorf("is no APK that can be installed: its %s names no valid package (%.100q)", manifestName, info.Package)
	}
	if name := launchable(m, text); name != "" {
		info.Activity = inPackage(info.Package, name)
	}
	return info, nil
}

// launchable is the first activity that a launcher shows; an alias counts as what it stands for.
func launchable(m apk.Manifest, text func(androidbinary.String) string) string {
	shown := func(filters []apk.ActivityIntentFilter) bool {
		for _, f := range filters {
			main, launcher := false, false
			for _, a := range f.Actions {
				main = main || text(a.Name) == "android.intent.action.MAIN"
			}
			for _, c := range f.Categories {
				launcher = launcher || text(c.Name) == "android.intent.category.LAUNCHER"
			}
			if main && launcher {
				return true
			}
		}
		return false
	}
	for _, a := range m.App.Activities {
		if shown(a.IntentFilters) {
			return text(a.Name)
		}
	}
	for _, a := range m.App.ActivityAliases {
		if shown(a.IntentFilters) {
			return text(a.TargetActivity)
		}
	}
	return ""
}

// oldestDriven is the oldest API level of the devices that are driven: Android 7.
const oldestDriven = 24

// androidVersion is the Android version of an API level, "" for those that every device has.
func androidVersion(level int) string {
	if level <= oldestDriven {
		return ""
	}
	return qgjob.AndroidVersion(level)
}

// inPackage completes a class name as Android does.
func inPackage(pkg, name string) string {
	switch {
	case strings.HasPrefix(name, "."):
		return pkg + name
	case !strings.Contains(name, "."):
		return pkg + "." + name
	}
	return name
}
