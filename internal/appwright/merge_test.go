package appwright

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const mergeSpec = `import { test, expect } from "@playwright/test";
test("adds in NAME", async () => { expect(1 + 1).toBe(SUM); });
`

// blobOf lets the project's own Playwright run a spec that needs no device, and returns its blob report.
func blobOf(t *testing.T, name, sum string) string {
	t.Helper()
	dir := nodeProject(t, name)
	spec := strings.NewReplacer("NAME", name, "SUM", sum).Replace(mergeSpec)
	if err := os.Mkdir(filepath.Join(dir, "own"), 0o755); err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string]string{
		"own/sum.spec.ts":      spec,
		"playwright.config.ts": `export default { testDir: "own" };`,
	} {
		if err := write(file, content)(dir); err != nil {
			t.Fatal(err)
		}
	}
	out, err := Project{Dir: dir}.playwright(t.Context(), t.TempDir(), nil, "test", "--config", "playwright.config.ts", "--reporter", "blob")
	if passes := sum == "2"; (err == nil) != passes {
		t.Fatalf("%v: %s", err, out)
	}
	found, err := filepath.Glob(filepath.Join(dir, "blob-report", "*.zip"))
	if err != nil || len(found) != 1 {
		t.Fatalf("blob reports: %v, %v", found, err)
	}
	return found[0]
}

// page is what Playwright's HTML report shows: the titles of its tests with their outcomes.
func page(t *testing.T, dir string) (tests []string) {
	t.Helper()
	html, err := os.ReadFile(filepath.Join(dir, "index.html"))
	if err != nil {
		t.Fatal(err)
	}
	data := regexp.MustCompile(`data:application/zip;base64,([A-Za-z0-9+/=]+)`).FindSubmatch(html)
	if data == nil {
		t.Fatal("the page holds no report")
	}
	packed, err := base64.StdEncoding.DecodeString(string(data[1]))
	if err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(packed), int64(len(packed)))
	if err != nil {
		t.Fatal(err)
	}
	f, err := z.Open("report.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var shown struct {
		Files []struct {
			Tests []struct{ Title, Outcome string }
		}
	}
	if err := json.NewDecoder(f).Decode(&shown); err != nil {
		t.Fatal(err)
	}
	for _, file := range shown.Files {
		for _, test := range file.Tests {
			tests = append(tests, test.Title+": "+test.Outcome)
		}
	}
	slices.Sort(tests)
	return tests
}

// TestMerge merges the reports of workers that kept the test project in different places.
func TestMerge(t *testing.T) {
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "report")
	var blobs []string
	for name, sum := range map[string]string{"one": "2", "two": "3"} {
		blob := filepath.Join(dir, name+".zip")
		if err := os.Rename(blobOf(t, name, sum), blob); err != nil {
			t.Fatal(err)
		}
		if err := CheckBlob(blob); err != nil {
			t.Error(err)
		}
		blobs = append(blobs, blob)
	}
	if err := Merge(t.Context(), nodeProject(t, "mine"), blobs, out); err != nil {
		t.Fatal(err)
	}
	if got, want := page(t, out), []string{"adds in one: expected", "adds in two: unexpected"}; !slices.Equal(got, want) {
		t.Errorf("the page shows %q, want %q", got, want)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestMergeNeedsPlaywright(t *testing.T) {
	if err := CanMerge(t.TempDir()); err == nil || !strings.Contains(err.Error(), "run npm ci in the test project, or leave the report out") {
		t.Errorf("without npm packages: %v", err)
	}
}

func TestCheckBlob(t *testing.T) {
	for want, names := range map[string][]string{
		"":                                   {"resources/a.png", "report.jsonl"},
		"it holds no events":                 {"resources/a.png"},
		`it holds a file named "../a.jsonl"`: {"../a.jsonl"},
		"zip: not a valid zip file":          nil,
	} {
		var b bytes.Buffer
		if names != nil {
			z := zip.NewWriter(&b)
			for _, name := range names {
				if _, err := z.Create(name); err != nil {
					t.Fatal(err)
				}
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(t.TempDir(), "blob.zip")
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := CheckBlob(path); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%v: %q, want %q", names, got, want)
		}
	}
}
