package policy

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	r, err := Measure(Plan{Seeds: 1, Hours: 0.05}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(path, []byte("before\n"+begin+"old\n"+end+"after\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.WritePage(path); err != nil {
			t.Fatal(err)
		}
	}
	page, err := os.ReadFile(path)
	if want := "before\n" + begin + "\n" + r.Report() + "\n" + end + "after\n"; err != nil || string(page) != want {
		t.Errorf("the page is %s", page)
	}
	if err := os.WriteFile(path, []byte("nothing"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.WritePage(path); err == nil {
		t.Error("a page without markers was written")
	}
}

// An aim that is missed says where and by how much.
func TestAims(t *testing.T) {
	r := &Results{Rows: []Row{{Cell: Cell{1, 8, 1.3, 8}, Of: map[string]Numbers{
		"priority": {UrgentMean: 10, InstallsOfJob: 1, Completion: 100}, "fifo": {InstallsOfJob: 1},
		"ours": {UrgentMean: 5, InstallsOfJob: 0.6, Completion: 50},
	}}}}
	for i, a := range r.aims() {
		if missed := len(a.miss) > 0; missed != (i == 2) { // installs
			t.Errorf("%s: %v", a.text, a.miss)
		}
	}
	if got := r.aims()[2].miss[0]; !strings.Contains(got, "1-8 jobs a push, 130 % load, 8 devices: 1.20 times the limit") {
		t.Error(got)
	}
}
