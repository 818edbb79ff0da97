package appwright

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A test that fails with twenty megabytes of text has failed; the text is no reason to know nothing of it.
func TestEventsOfAnyLengthAreRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	content := `{"kind":"test_begin","id":"a","title":"first"}` + "\n" +
		`{"kind":"test_end","id":"a","error":"` + strings.Repeat("z", 3*maxEventLine) + `"}` + "\n" +
		strings.Repeat(" ", 2*maxEventLine) + `{"kind":"test_begin","id":"x","title":"the end of a line too long"}` + "\n" +
		`{"kind":"test_begin","id":"b","title":"second"}` + "\n" +
		`{"kind":"test_begin","id":"c","title":"cut sh`
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	seen, err := readEvents(path)
	if err != nil {
		t.Fatal(err)
	}
	var titles []string
	for _, test := range seen.Tests {
		titles = append(titles, test.Title)
	}
	if got := strings.Join(titles, " "); got != "first second" {
		t.Errorf("the tests %q were read, want first and second", got)
	}
}
