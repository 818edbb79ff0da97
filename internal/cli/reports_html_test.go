package cli

import (
	"os"
	"path/filepath"
	"testing"
)

// TestReportDirectory puts a report in the place of an earlier one, and never in that of somebody's own files.
func TestReportDirectory(t *testing.T) {
	dir := t.TempDir()
	put := func(name string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := htmlReport{dir: filepath.Join(dir, "page")}
	if err := h.checkDir(); err != nil {
		t.Errorf("a new directory: %v", err)
	}
	for _, name := range []string{"page/index.html", "page/data/old.png", "page/trace/index.html", "made/index.html", "made/data/new.png"} {
		put(name)
	}
	if err := h.checkDir(); err != nil {
		t.Errorf("an earlier report: %v", err)
	}
	if err := h.replace(filepath.Join(dir, "made")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"index.html": "made/index.html", "data/new.png": "made/data/new.png", "data/old.png": "", "trace/index.html": ""} {
		if got, _ := os.ReadFile(filepath.Join(h.dir, name)); string(got) != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	put("page/notes.txt")
	if err := h.checkDir(); err == nil {
		t.Error("a directory with a file of somebody's own is taken")
	}
	h.dir = filepath.Join(h.dir, "notes.txt")
	if err := h.checkDir(); err == nil {
		t.Error("a file is taken for a directory")
	}
}
