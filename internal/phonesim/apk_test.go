package phonesim

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/xml"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/shogo82148/androidbinary"
	"github.com/shogo82148/androidbinary/apk"
)

var fixedTime = time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)

func TestBuildAPKIsReadByOthers(t *testing.T) {
	b := buildAPK(t, App{
		Package: "com.example.app", VersionCode: 42, VersionName: "4.2-β", Label: "Größe <&> 日本", Activity: ".ui.Main", MinSDK: 23, TargetSDK: 33, Debuggable: true,
	})
	parsed, err := apk.OpenZipReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	m := parsed.Manifest()
	label, _ := parsed.Label(nil)
	activity, _ := parsed.MainActivity()
	equal(t, "names", [...]string{parsed.PackageName(), m.VersionName.MustString(), label, activity},
		[...]string{"com.example.app", "4.2-β", "Größe <&> 日本", "com.example.app.ui.Main"})
	equal(t, "numbers", [...]int32{m.VersionCode.MustInt32(), m.SDK.Min.MustInt32(), m.SDK.Target.MustInt32()}, [...]int32{42, 23, 33})
	equal(t, "debuggable", m.App.Debuggable.MustBool(), true)
}

func TestBuildAPKIsDeterministic(t *testing.T) {
	a := parseApp(t, shopJSON)
	first := sha256.Sum256(buildAPK(t, a))
	for range 20 {
		equal(t, "SHA-256", sha256.Sum256(buildAPK(t, parseApp(t, shopJSON))), first)
	}
	a.VersionCode++
	if sha256.Sum256(buildAPK(t, a)) == first {
		t.Error("another version has the same SHA-256")
	}
}

func TestReadAPKRefusals(t *testing.T) {
	var refusal *installError
	for name, tt := range map[string]struct {
		files map[string]string
		want  string
	}{
		"no manifest":     {map[string]string{"resources.arsc": string(emptyTable("a.b"))}, "INSTALL_PARSE_FAILED_UNEXPECTED_EXCEPTION"},
		"broken manifest": {map[string]string{"resources.arsc": string(emptyTable("a.b")), "AndroidManifest.xml": "<manifest/>"}, "INSTALL_PARSE_FAILED_UNEXPECTED_EXCEPTION"},
		"wrong package": {map[string]string{"resources.arsc": string(emptyTable("a.b")), "AndroidManifest.xml": string(encodeAXML(axmlElement{
			name: "manifest", attributes: []axmlAttribute{{"package", "x"}},
		}))}, "INSTALL_PARSE_FAILED_BAD_PACKAGE_NAME"},
		"wrong model": {map[string]string{
			"resources.arsc": string(emptyTable("a.b")), "AndroidManifest.xml": string(encodeAXML(manifest(App{Package: "a.b"}.withDefaults()))),
			modelAsset: `{"start": "x", "screens": {}}`,
		}, "INSTALL_FAILED_INVALID_APK: assets/phonesim.json: app model: screens: there are none"},
	} {
		_, err := readAPK(zipOf(t, tt.files))
		if !errors.As(err, &refusal) || !strings.HasPrefix(refusal.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
	}
}

// FuzzAXML writes documents and reads them back with somebody else's reader.
func FuzzAXML(f *testing.F) {
	f.Add("manifest", "label", "a & \"b\"", int32(7), true)
	f.Add("x", "versionName", "\u65e5\U0001f600", int32(-1), false)
	f.Fuzz(func(t *testing.T, element, attribute, text string, number int32, flag bool) {
		for _, s := range []string{element, attribute} {
			if s == "" || strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
				return
			}
		}
		if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0xfffe || r == 0xffff || r == utf8.RuneError }) {
			return // no XML
		}
		f, err := androidbinary.NewXMLFile(bytes.NewReader(encodeAXML(axmlElement{name: element, children: []axmlElement{
			{name: "child", attributes: []axmlAttribute{{attribute, text}, {"number" + attribute, number}, {"flag" + attribute, flag}}},
			{name: element},
		}})))
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			XMLName xml.Name
			Child   struct {
				Attributes []xml.Attr `xml:",any,attr"`
			} `xml:"child"`
		}
		if err := xml.NewDecoder(f.Reader()).Decode(&got); err != nil {
			t.Fatal(err)
		}
		equal(t, "root", got.XMLName.Local, element)
		values := map[string]string{}
		for _, a := range got.Child.Attributes {
			values[a.Name.Local] = a.Value
		}
		equal(t, "text", values[attribute], text)
		equal(t, "flag", values["flag"+attribute], map[bool]string{true: "true", false: "false"}[flag])
	})
}

func zipOf(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, content := range files {
		w, err := z.Create(name)
		if err == nil {
			_, err = w.Write([]byte(content))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
