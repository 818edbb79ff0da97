package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"qgjob"
)

// project writes files below a new directory. A name that ends in "*" is executable, content that starts with
// "-> " makes a link.
func project(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		mode := os.FileMode(0o644)
		if executable, ok := strings.CutSuffix(name, "*"); ok {
			name, mode = executable, 0o755
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(content), mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	command := exec.Command("git", args...)
	command.Dir = dir
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

func pack(t *testing.T, dir string) (bundle []byte, sha string, files []string) {
	t.Helper()
	var out bytes.Buffer
	sha, files, err := Pack(context.Background(), dir, &out)
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), sha, files
}

var sample = map[string]string{
	".gitignore":                  "*.log\n/dist\n!keep.log\n",
	"appwright.config.ts":         "export default {}",
	"tests/a.spec.ts":             "a",
	"tests/we ird (1)/ü+.spec.ts": "b",
	"tests/.gitignore":            "generated/\n",
	"tests/generated/x.ts":        "ignored",
	"run.sh*":                     "#!/bin/sh\n",
	"link.ts":                     "-> tests/a.spec.ts",
	"debug.log":                   "ignored",
	"keep.log":                    "kept",
	"dist/out.js":                 "ignored",
	"node_modules/x/index.js":     "never",
	"sub/node_modules/y/i.js":     "never",
}

var sampleFiles = []string{
	".gitignore", "appwright.config.ts", "keep.log", "link.ts", "run.sh",
	"tests/.gitignore", "tests/a.spec.ts", "tests/we ird (1)/ü+.spec.ts",
}

func TestAProjectComesBackAsItWas(t *testing.T) {
	dir := project(t, sample)
	bundle, sha, files := pack(t, dir)
	if diff := cmp.Diff(sampleFiles, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if sum := sha256.Sum256(bundle); sha != hex.EncodeToString(sum[:]) {
		t.Errorf("the address %s is not the SHA-256 of the bytes", sha)
	}
	to := filepath.Join(t.TempDir(), "new", "project")
	if err := Unpack(bytes.NewReader(bundle), to, sha); err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		want, _ := os.ReadFile(filepath.Join(dir, name))
		got, err := os.ReadFile(filepath.Join(to, name))
		if err != nil || !bytes.Equal(want, got) {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	if info, err := os.Stat(filepath.Join(to, "run.sh")); err != nil || info.Mode()&0o100 == 0 {
		t.Errorf("run.sh is not executable: %v %v", info.Mode(), err)
	}
	if target, _ := os.Readlink(filepath.Join(to, "link.ts")); target != "tests/a.spec.ts" {
		t.Errorf("link.ts leads to %q", target)
	}
	if _, _, again := pack(t, to); !cmp.Equal(files, again) {
		t.Errorf("packed again: %v", again)
	}
	if _, again, _ := pack(t, to); again != sha {
		t.Error("the unpacked project has another address")
	}
}

func TestTheAddressDependsOnContentOnly(t *testing.T) {
	one, two := project(t, sample), project(t, sample)
	if err := os.Chtimes(filepath.Join(two, "run.sh"), time.Time{}, time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(two, "run.sh"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(two, "new.log"), []byte("ignored"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, a, _ := pack(t, one)
	_, b, _ := pack(t, two)
	if a != b {
		t.Error("times, permissions or ignored files changed the address")
	}
	if err := os.WriteFile(filepath.Join(two, "tests/a.spec.ts"), []byte("c"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, c, _ := pack(t, two); c == a {
		t.Error("another content has the same address")
	}
}

func TestGitDecidesWhatBelongsToTheProject(t *testing.T) {
	dir := project(t, sample)
	_, without, _ := pack(t, dir)
	git(t, dir, "init", "-q")
	_, before, files := pack(t, dir)
	if !cmp.Equal(files, sampleFiles) || before != without {
		t.Errorf("an untracked project: %v", files)
	}
	git(t, dir, "add", ".")
	git(t, dir, "add", "-f", "dist/out.js", "node_modules")
	if err := os.Remove(filepath.Join(dir, "link.ts")); err != nil {
		t.Fatal(err)
	}
	git(t, dir, "init", "-q", "inner")
	if err := os.WriteFile(filepath.Join(dir, "inner", "page.ts"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, _, files = pack(t, dir)
	want := []string{
		".gitignore", "appwright.config.ts", "dist/out.js", "inner/page.ts", "keep.log", "run.sh",
		"tests/.gitignore", "tests/a.spec.ts", "tests/we ird (1)/ü+.spec.ts",
	}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("what is tracked, less what is deleted and installed, and another repository's (-want +got):\n%s", diff)
	}
	_, _, files = pack(t, filepath.Join(dir, "tests"))
	if want := []string{".gitignore", "a.spec.ts", "we ird (1)/ü+.spec.ts"}; !cmp.Equal(files, want) {
		t.Errorf("a project below the repository's top: %v", files)
	}
}

func TestPackRefuses(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"nothing":                      {"node_modules/a": ""},
		"a link to an absolute path":   {"a": "-> /etc/passwd"},
		"a link out of the project":    {"tests/a": "-> ../../secret"},
		"a link that goes down and up": {"tests/a": "-> b/../c"},
		"a name with a backslash":      {`a\b`: ""},
	} {
		var out bytes.Buffer
		if _, _, err := Pack(context.Background(), project(t, files), &out); qgjob.ErrorCode(err) != qgjob.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := Pack(canceled, project(t, sample), &bytes.Buffer{}); err == nil {
		t.Error("a canceled Pack went on")
	}
}

// forge makes a bundle that Pack would not. Of each file only the first MiB is there: a size is a promise.
func forge(t testing.TB, headers ...tar.Header) (bundle []byte, sha string) {
	t.Helper()
	var out bytes.Buffer
	compressor, _ := zstd.NewWriter(&out)
	archive := tar.NewWriter(compressor)
	for _, h := range headers {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := archive.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write(make([]byte, min(h.Size, 1<<20))); err != nil {
			t.Fatal(err)
		}
	}
	archive.Close()
	compressor.Close()
	sum := sha256.Sum256(out.Bytes())
	return out.Bytes(), hex.EncodeToString(sum[:])
}

func link(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}
}

func TestUnpackRefuses(t *testing.T) {
	for name, headers := range map[string][]tar.Header{
		"a path above":               {{Name: "../evil"}},
		"a path above in between":    {{Name: "a/../../evil"}},
		"an absolute path":           {{Name: "/tmp/evil"}},
		"a path that is not clean":   {{Name: "a//b"}},
		"a backslash":                {{Name: `..\evil`}},
		"a link that leaves":         {link("l", "../evil")},
		"an absolute link":           {link("l", "/etc")},
		"a link without a target":    {link("l", "")},
		"a file below a link":        {link("l", "d"), {Name: "l/evil"}},
		"a link through a link":      {link("x/y/l", "../.."), link("m", "x/y/l/../evil")},
		"a file twice":               {{Name: "a"}, {Name: "a"}},
		"a file where a link is":     {link("a", "b"), {Name: "a"}},
		"a file that is a directory": {{Name: "a"}, {Name: "a/b"}},
		"a hard link":                {{Typeflag: tar.TypeLink, Name: "h", Linkname: "../evil"}},
		"a device":                   {{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}},
		"a pipe":                     {{Typeflag: tar.TypeFifo, Name: "pipe"}},
	} {
		bundle, sha := forge(t, headers...)
		parent := t.TempDir()
		if err := Unpack(bytes.NewReader(bundle), filepath.Join(parent, "p"), sha); qgjob.ErrorCode(err) != qgjob.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
		if left, _ := os.ReadDir(parent); len(left) != 0 {
			t.Errorf("%s: %v is left", name, left)
		}
	}
}

func TestUnpackRefusesBombs(t *testing.T) {
	small, rest := tar.Header{Name: "a", Size: 1 << 20}, tar.Header{Name: "b", Size: MaxBytes - 1<<20 + 1}
	many := make([]tar.Header, MaxFiles+1)
	for i := range many {
		many[i].Name = "d/" + hex.EncodeToString([]byte{byte(i >> 16), byte(i >> 8), byte(i)})
	}
	for name, headers := range map[string][]tar.Header{"bytes": {small, rest}, "files": many} {
		bundle, sha := forge(t, headers...)
		if err := Unpack(bytes.NewReader(bundle), filepath.Join(t.TempDir(), "p"), sha); qgjob.ErrorCode(err) != qgjob.CodeTooLarge {
			t.Errorf("too many %s in %d bytes: %v", name, len(bundle), err)
		}
	}
}

func TestUnpackTellsDamage(t *testing.T) {
	bundle, sha, _ := pack(t, project(t, sample))
	for name, damaged := range map[string][]byte{
		"cut short": bundle[:len(bundle)-9], "longer": append(bytes.Clone(bundle), 0), "changed": append([]byte{1}, bundle[1:]...), "empty": nil,
	} {
		err := Unpack(bytes.NewReader(damaged), filepath.Join(t.TempDir(), "p"), sha)
		if qgjob.ErrorCode(err) != qgjob.CodeInvalid || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: %v", name, err)
		}
	}
	exists := t.TempDir()
	if err := Unpack(bytes.NewReader(bundle), exists, sha); err == nil {
		t.Error("an existing directory was unpacked into")
	}
}

func FuzzUnpack(f *testing.F) {
	good, _ := forge(f, tar.Header{Name: "a/b", Size: 3}, link("l", "a/b"))
	f.Add(good)
	f.Add([]byte("(\xb5/\xfd"))
	f.Fuzz(func(t *testing.T, bundle []byte) {
		parent := t.TempDir()
		sum := sha256.Sum256(bundle)
		dir := filepath.Join(parent, "p")
		if err := Unpack(bytes.NewReader(bundle), dir, hex.EncodeToString(sum[:])); err != nil {
			dir = ""
		}
		left, _ := os.ReadDir(parent)
		if dir == "" && len(left) != 0 || dir != "" && len(left) != 1 {
			t.Fatalf("beside the project there is %v", left)
		}
	})
}
