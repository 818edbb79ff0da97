package build

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"qgjob"
	"qgjob/internal/phonesim"
)

func makeAPK(t testing.TB, app phonesim.App) []byte {
	t.Helper()
	content, err := phonesim.BuildAPK(app)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func makeZip(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, content := range files {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func write(t testing.TB, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.apk")
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestParse(t *testing.T) {
	content := makeAPK(t, phonesim.App{Package: "com.example.shop", VersionCode: 42, VersionName: "1.2 – größer", MinSDK: 24, TargetSDK: 33, Activity: ".ui.Main"})
	got, err := Parse(write(t, content))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	want := Info{
		SHA256: hex.EncodeToString(sum[:]), Size: int64(len(content)), Platform: "android", Package: "com.example.shop", Activity: "com.example.shop.ui.Main",
		VersionCode: 42, VersionName: "1.2 – größer", MinSDK: 24, TargetSDK: 33, Debuggable: got.Debuggable,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func iosPlist(platform, minimum string) string {
	return `<plist version="1.0"><dict><key>CFBundleIdentifier</key><string>com.example.shop</string><key>CFBundleSupportedPlatforms</key><array><string>` + platform +
		`</string></array><key>MinimumOSVersion</key><string>` + minimum + `</string></dict></plist>`
}

func TestParseIOS(t *testing.T) {
	for _, simulator := range []bool{false, true} {
		content, err := phonesim.BuildIPA(phonesim.App{Package: "com.example.shop", VersionCode: 42, VersionName: "1.2", MinOS: "16.4"}, simulator)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse(write(t, content))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(content)
		want := Info{
			SHA256: hex.EncodeToString(sum[:]), Size: int64(len(content)), Platform: "ios", Package: "com.example.shop",
			VersionCode: 42, VersionName: "1.2", MinOS: "16.4", Simulator: simulator,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
}

// A build says which Android it needs, where not every device has it.
func TestOldestAndroid(t *testing.T) {
	for level, want := range map[int32]string{21: "", 24: "", 26: "8.0.0", 34: "14"} {
		got, err := Parse(write(t, makeAPK(t, phonesim.App{Package: "com.example.shop", MinSDK: level})))
		if err != nil || got.MinOS != want {
			t.Errorf("API level %d: %q %v, want %q", level, got.MinOS, err, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := makeAPK(t, phonesim.App{Package: "com.example.shop"})
	for name, c := range map[string]struct {
		content []byte
		says    string
	}{
		"empty":                    {nil, "not a zip archive"},
		"text":                     {[]byte("<html>404 Not Found</html>"), "not a zip archive"},
		"cut short":                {good[:len(good)/2], "cut short"},
		"other zip":                {makeZip(t, map[string]string{"readme.txt": "hello"}), "without AndroidManifest.xml"},
		"IPA":                      {makeZip(t, map[string]string{"Payload/Shop.app/Info.plist": "<plist"}), "is damaged"},
		"IPA of nothing":           {makeZip(t, map[string]string{"Payload/Shop.app/Info.plist": "<plist><dict/></plist>"}), "no valid bundle id"},
		"IPA of a simulator's app": {makeZip(t, map[string]string{"Payload/Shop.app/Info.plist": iosPlist("iPhoneSimulator", "15.0")}), "zip the .app itself"},
		"app for televisions":      {makeZip(t, map[string]string{"Payload/Shop.app/Info.plist": iosPlist("AppleTVOS", "15.0")}), "an app for AppleTVOS"},
		"app for a strange iOS":    {makeZip(t, map[string]string{"Payload/Shop.app/Info.plist": iosPlist("iPhoneOS", "15, beta")}), "MinimumOSVersion"},
		"AAB":                      {makeZip(t, map[string]string{"BundleConfig.pb": "", "base/manifest/AndroidManifest.xml": ""}), "App Bundle"},
		"APKS":                     {makeZip(t, map[string]string{"splits/base-master.apk": ""}), "universal APK"},
		"text manifest":            {makeZip(t, map[string]string{"AndroidManifest.xml": `<manifest package="com.example.shop"/>`}), "binary form"},
		"damaged manifest":         {makeZip(t, map[string]string{"AndroidManifest.xml": "\x03\x00\x08\x00\x18\x00\x00\x00\x01\x00\x1c\x00\xff\xff\xff\xff________"}), "do not fit together"},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, c.content)
			_, err := Parse(path)
			if qgjob.ErrorCode(err) != qgjob.CodeInvalid || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v: want one that says %q and names the file", err, c.says)
			}
		})
	}
	if _, err := Parse(filepath.Join(t.TempDir(), "missing.apk")); qgjob.ErrorCode(err) != qgjob.CodeInvalid {
		t.Errorf("missing file: %v", err)
	}
}

func TestActivityNames(t *testing.T) {
	for name, want := range map[string]string{
		".Main":              "com.example.shop.Main",
		"Main":               "com.example.shop.Main",
		"org.elsewhere.Main": "org.elsewhere.Main",
	} {
		if got := inPackage("com.example.shop", name); got != want {
			t.Errorf("activity %s is %s, want %s", name, got, want)
		}
	}
}

// FuzzManifest: whatever a manifest holds, there is a description or an error, soon.
func FuzzManifest(f *testing.F) {
	for _, app := range []phonesim.App{{Package: "com.example.shop"}, {Package: "a.b", VersionName: strings.Repeat("ä", 300), Label: "x"}} {
		content := makeAPK(f, app)
		archive, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
		if err != nil {
			f.Fatal(err)
		}
		data, err := readManifest(archive)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decode(data)
		if err != nil {
			return
		}
		if info, err := describe(m); err == nil && !packageName.MatchString(info.Package) {
			t.Errorf("package %q", info.Package)
		}
	})
}

// FuzzArchive does the same for whole files.
func FuzzArchive(f *testing.F) {
	f.Add(makeAPK(f, phonesim.App{Package: "com.example.shop"}))
	f.Add([]byte("PK\x05\x06"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if info, err := read(bytes.NewReader(data), int64(len(data))); err == nil && info.Package == "" {
			t.Error("a build without a package")
		}
	})
}

func TestNativeCode(t *testing.T) {
	content := makeZip(t, map[string]string{
		"lib/x86_64/liba.so": "", "lib/arm64-v8a/liba.so": "", "lib/arm64-v8a/libb.so": "", "lib/notes.txt": "", "assets/lib/mips/liba.so": "", "lib/armeabi/readme": "",
	})
	archive, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"arm64-v8a", "x86_64"}, nativeFor(archive)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A few kilobytes that the libraries would take all memory or all of a stack for are refused before they see them.
func TestParseRefusesWhatWouldEndTheServer(t *testing.T) {
	const depth = 400_000
	for name, plist := range map[string]string{
		"nested as XML":  `<?xml version="1.0"?><plist version="1.0">` + strings.Repeat("<array>", depth) + strings.Repeat("</array>", depth) + `</plist>`,
		"nested as text": strings.Repeat("(", depth) + strings.Repeat(")", depth),
	} {
		if _, err := Parse(write(t, makeZip(t, map[string]string{"Payload/a.app/Info.plist": plist}))); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}

	// 300 strings of two megabytes, which lie over each other.
	overlapping := append([]byte("bplist00"), 0x6f, 0x12, 0, 0x0f, 0x42, 0x40)
	overlapping = append(overlapping, make([]byte, 2_000_000)...)
	table := len(overlapping)
	overlapping = append(overlapping, bytes.Repeat([]byte{8}, 300)...)
	overlapping = append(overlapping, 0, 0, 0, 0, 0, 0, 1, 2)
	for _, word := range []int{300, 0, table} {
		overlapping = binary.BigEndian.AppendUint64(overlapping, uint64(word))
	}
	if err := checkPlist(overlapping); err == nil {
		t.Error("overlapping strings: accepted")
	}

	// One string that 400 elements name.
	le := binary.LittleEndian
	chunk := func(kind, head uint16, body []byte) []byte {
		c := le.AppendUint32(le.AppendUint16(le.AppendUint16(nil, kind), head), uint32(8+len(body)))
		return append(c, body...)
	}
	const letters = 1 << 20
	var pool []byte
	for _, word := range []uint32{1, 0, 0, poolHeaderSize + 4, 0, 0} {
		pool = le.AppendUint32(pool, word)
	}
	pool = le.AppendUint16(le.AppendUint16(pool, 0x8000|letters>>16), letters&0xffff)
	pool = append(append(pool, bytes.Repeat([]byte{'a', 0}, letters)...), 0, 0, 0, 0)
	var element []byte
	for _, word := range []uint32{1, noString, noString, 0, attributeSize<<16 | attributeSize, 0, 0} {
		element = le.AppendUint32(element, word)
	}
	manifest := func(elements int) []byte {
		return chunk(chunkXML, chunkHeaderSize, append(chunk(chunkStringPool, poolHeaderSize, pool), bytes.Repeat(chunk(chunkElement, 16, element), elements)...))
	}
	if err := checkChunks(manifest(3)); err != nil {
		t.Errorf("a string that is named three times: %v", err)
	}
	if err := checkChunks(manifest(400)); err == nil {
		t.Error("a string that is named 400 times: accepted")
	}

	// Attributes that lie over each other, so that a few bytes are 65535 of them: a small manifest took an hour.
	for step, accepted := range map[uint32]bool{0: false, attributeSize - 4: false, attributeSize: true} {
		count := uint32(0xffff)
		if accepted {
			count = 1
		}
		var element []byte
		for _, word := range []uint32{1, noString, noString, 0, step<<16 | attributeSize, count, 0, noString, 0, noString, 8, 0} {
			element = le.AppendUint32(element, word)
		}
		var pool []byte
		for _, word := range []uint32{1, 0, 0, poolHeaderSize + 4, 0, 0, 0} {
			pool = le.AppendUint32(pool, word)
		}
		data := chunk(chunkXML, chunkHeaderSize, append(chunk(chunkStringPool, poolHeaderSize, pool), chunk(chunkElement, 16, element)...))
		if err := checkChunks(data); (err == nil) != accepted {
			t.Errorf("%d attributes, %d bytes apart: %v", count, step, err)
		}
	}

	// A directory of a million files that are not there.
	huge := hugeDirectory(t)
	if _, err := read(bytes.NewReader(huge), int64(len(huge))); err == nil {
		t.Error("a huge directory: accepted")
	}
}

// hugeDirectory is an archive that lists more than any build does.
func hugeDirectory(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	name := strings.Repeat("n", 60_000)
	for i := range maxDirectory/60_000 + 1 {
		if _, err := z.CreateRaw(&zip.FileHeader{Name: name + strconv.Itoa(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
