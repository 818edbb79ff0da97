package phonesim

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/shogo82148/androidbinary/apk"
)

// modelAsset is where an APK carries the description of its app.
const modelAsset = "assets/phonesim.json"

// App is an app to be built into an APK.
type App struct {
	Package string `json:"package"`
	// VersionCode orders the app's versions. Default 1.
	VersionCode int32 `json:"version_code,omitempty"`
	// VersionName is what people call the version. Default "1.0".
	VersionName string `json:"version_name,omitempty"`
	// Label is the app's name on the launcher. Default: Package.
	Label string `json:"label,omitempty"`
	// Activity is the class that a launch starts, in full or beginning with a dot. Default ".MainActivity".
	Activity string `json:"activity,omitempty"`
	// MinSDK and TargetSDK are API levels. Defaults 21 and 34.
	MinSDK     int32 `json:"min_sdk,omitempty"`
	TargetSDK  int32 `json:"target_sdk,omitempty"`
	Debuggable bool  `json:"debuggable,omitempty"`
	// MinOS is the oldest iOS that an iOS app runs on. Default 15.0.
	MinOS string `json:"min_os,omitempty"`
	// ABIs are the instruction sets that it has native code for. Default: it has none, and runs on any.
	ABIs []string `json:"abis,omitempty"`
	// Model is what the app does. Without one it shows its label.
	Model *Model `json:"model,omitempty"`
}

// ParseApp reads an app's JSON description and checks it. Unknown fields are refused.
func ParseApp(b []byte) (App, error) {
	if len(b) > maxModelBytes {
		return App{}, fmt.Errorf("app description of %d bytes, more than %d", len(b), maxModelBytes)
	}
	var a App
	if err := decodeStrict(b, &a); err != nil {
		return App{}, fmt.Errorf("app description: %w", err)
	}
	return a, a.Validate()
}

var (
	packagePattern  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)+$`)
	abiPattern      = regexp.MustCompile(`^[a-z0-9_-]+$`)
	activityPattern = regexp.MustCompile(`^\.?[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*$`)
)

// Validate says what is wrong with the description.
func (a App) Validate() error {
	var faults []error
	add := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("app description: "+format, args...))
	}
	if !packagePattern.MatchString(a.Package) || len(a.Package) > 255 {
		add("package: %q is not a name like com.example.app", a.Package)
	}
	if a.Activity != "" && !activityPattern.MatchString(a.Activity) {
		add("activity: %q is not a class name", a.Activity)
	}
	for name, text := range map[string]string{"label": a.Label, "version_name": a.VersionName} {
		if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) || len(text) > 1000 {
			add("%s: more than 1000 bytes or with control characters", name)
		}
	}
	for _, abi := range a.ABIs {
		if !abiPattern.MatchString(abi) {
			add("abis: %q is not a name like arm64-v8a", abi)
		}
	}
	if a.VersionCode < 0 || a.MinSDK < 0 || a.TargetSDK < 0 {
		add("version_code, min_sdk and target_sdk cannot be negative")
	}
	if a.Model != nil {
		if err := a.Model.Validate(); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

func (a App) withDefaults() App {
	fill := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	number := func(n *int32, value int32) {
		if *n == 0 {
			*n = value
		}
	}
	fill(&a.VersionName, "1.0")
	fill(&a.Label, a.Package)
	fill(&a.Activity, ".MainActivity")
	fill(&a.MinOS, "15.0")
	number(&a.VersionCode, 1)
	number(&a.MinSDK, 21)
	number(&a.TargetSDK, 34)
	if strings.HasPrefix(a.Activity, ".") {
		a.Activity = a.Package + a.Activity
	} else if !strings.Contains(a.Activity, ".") {
		a.Activity = a.Package + "." + a.Activity
	}
	return a
}

// BuildAPK writes an APK of the app: a zip with a binary manifest, an empty resource table and the model. It is not signed. The same
// app gives the same bytes.
func BuildAPK(a App) ([]byte, error) {
	if err := a.Validate(); err != nil {
		return nil, err
	}
	a = a.withDefaults()
	files := []zipFile{
		{"AndroidManifest.xml", 0o644, encodeAXML(manifest(a))},
		{"resources.arsc", 0o644, emptyTable(a.Package)},
	}
	if a.Model != nil {
		model, err := json.Marshal(a.Model)
		if err != nil {
			return nil, fmt.Errorf("app model: %w", err)
		}
		files = append(files, zipFile{modelAsset, 0o644, model})
	}
	for _, abi := range a.ABIs {
		files = append(files, zipFile{"lib/" + abi + "/libapp.so", 0o755, []byte("\x7fELF")})
	}
	return writeZip(files)
}

type zipFile struct {
	name    string
	mode    fs.FileMode
	content []byte
}

// writeZip makes the same bytes of the same files.
func writeZip(files []zipFile) ([]byte, error) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range files {
		header := &zip.FileHeader{Name: f.name, Method: zip.Store, Modified: time.Date(1981, 1, 1, 1, 1, 2, 0, time.UTC)}
		header.SetMode(f.mode)
		w, err := z.CreateHeader(header)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func manifest(a App) axmlElement {
	named := func(name, value string) axmlElement {
		return axmlElement{name: name, attributes: []axmlAttribute{{"name", value}}}
	}
	application := []axmlAttribute{{"label", a.Label}}
	if a.Debuggable {
		application = append(application, axmlAttribute{"debuggable", true})
	}
	return axmlElement{
		name:       "manifest",
		attributes: []axmlAttribute{{"versionCode", a.VersionCode}, {"versionName", a.VersionName}, {"package", a.Package}},
		children: []axmlElement{
			{name: "uses-sdk", attributes: []axmlAttribute{{"minSdkVersion", a.MinSDK}, {"targetSdkVersion", a.TargetSDK}}},
			named("uses-permission", "android.permission.INTERNET"),
			{name: "application", attributes: application, children: []axmlElement{{
				name:       "activity",
				attributes: []axmlAttribute{{"label", a.Label}, {"name", a.Activity}, {"exported", true}},
				children: []axmlElement{{name: "intent-filter", children: []axmlElement{
					named("action", "android.intent.action.MAIN"),
					named("category", "android.intent.category.LAUNCHER"),
				}}},
			}}},
		},
	}
}

// apkInfo is what installing needs to know of an APK.
type apkInfo struct {
	pkg, versionName, activity, label string
	versionCode                       int64
	minSDK, targetSDK                 int32
	debuggable, testOnly              bool
	instrumentation, target           string
	permissions, abis                 []string
	model                             Model
	sha256                            string
	size                              int64
}

// installError is a refusal to install, with the code that Android has for it.
type installError struct {
	code, detail string
}

func (e *installError) Error() string {
	if e.detail == "" {
		return e.code
	}
	return e.code + ": " + e.detail
}

// readAPK reads an APK, also a real one. Its error is an *installError.
func readAPK(content []byte) (info apkInfo, err error) {
	defer func() {
		// The parser is someone else's and panics on some broken manifests.
		if r := recover(); r != nil {
			err = &installError{"INSTALL_PARSE_FAILED_UNEXPECTED_EXCEPTION", fmt.Sprint(r)}
		}
	}()
	z, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		return apkInfo{}, &installError{"INSTALL_PARSE_FAILED_NOT_APK", "Failed to parse base.apk: " + err.Error()}
	}
	parsed, err := apk.OpenZipReader(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		return apkInfo{}, &installError{"INSTALL_PARSE_FAILED_UNEXPECTED_EXCEPTION", "Failed to parse base.apk: " + err.Error()}
	}
	m := parsed.Manifest()
	sum := sha256.Sum256(content)
	info = apkInfo{sha256: hex.EncodeToString(sum[:]), size: int64(len(content))}
	info.pkg, _ = m.Package.String()
	if !packagePattern.MatchString(info.pkg) {
		return apkInfo{}, &installError{"INSTALL_PARSE_FAILED_BAD_PACKAGE_NAME", fmt.Sprintf("the manifest's package is %q", info.pkg)}
	}
	// What a manifest leaves out is the zero value, as on Android.
	code, _ := m.VersionCode.Int32()
	info.versionCode = int64(code)
	info.versionName, _ = m.VersionName.String()
	info.minSDK, _ = m.SDK.Min.Int32()
	info.targetSDK, _ = m.SDK.Target.Int32()
	info.debuggable, _ = m.App.Debuggable.Bool()
	info.testOnly, _ = m.App.TestOnly.Bool()
	info.instrumentation, _ = m.Instrument.Name.String()
	info.target, _ = m.Instrument.Target.String()
	info.label, _ = parsed.Label(nil)
	info.activity, _ = parsed.MainActivity()
	if strings.HasPrefix(info.activity, ".") {
		info.activity = info.pkg + info.activity
	}
	for _, p := range m.UsesPermissions {
		if name, err := p.Name.String(); err == nil && name != "" {
			info.permissions = append(info.permissions, name)
		}
	}
	if info.label == "" {
		info.label = info.pkg
	}
	for _, f := range z.File {
		if parts := strings.Split(f.Name, "/"); len(parts) == 3 && parts[0] == "lib" && !slices.Contains(info.abis, parts[1]) {
			info.abis = append(info.abis, parts[1])
		}
	}
	info.model, err = readModel(z, info.label)
	return info, err
}

// readModel reads the app's description out of the APK. A description that is wrong makes the APK invalid.
func readModel(z *zip.Reader, label string) (Model, error) {
	for _, f := range z.File {
		if f.Name != modelAsset {
			continue
		}
		r, err := f.Open()
		if err != nil {
			return Model{}, &installError{"INSTALL_FAILED_INVALID_APK", modelAsset + ": " + err.Error()}
		}
		defer func() { _ = r.Close() }()
		b, err := io.ReadAll(io.LimitReader(r, maxModelBytes+1))
		if err != nil {
			return Model{}, &installError{"INSTALL_FAILED_INVALID_APK", modelAsset + ": " + err.Error()}
		}
		m, err := ParseModel(b)
		if err != nil {
			return Model{}, &installError{"INSTALL_FAILED_INVALID_APK", modelAsset + ": " + strings.ReplaceAll(err.Error(), "\n", "; ")}
		}
		return m, nil
	}
	return defaultModel(label), nil
}
