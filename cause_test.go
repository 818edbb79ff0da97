package qgjob

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestCausesAreDocumented compares docs/causes.md with the table in cause.go.
func TestCausesAreDocumented(t *testing.T) {
	var rows []string
	for _, c := range slices.Sorted(maps.Keys(causes)) {
		follows := "tried again on another device first, within the infrastructure's budget"
		switch {
		case c == CauseAllTestsQuarantined:
			follows = "`passed`, and nothing counts: exit code 3"
		case c.Test():
			follows = "tried again, within the test's budget"
		case c.Final():
			follows = "`errored` at once: no other device mends it"
		case c.Free():
			follows = "runs again, at no cost"
		case c.Cancels():
			follows = "`canceled`"
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s |", c, follows, c.Advice()))
	}
	page, err := os.ReadFile("docs/causes.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Join(rows, "\n"); !strings.Contains(string(page), "\n"+want+"\n") {
		t.Errorf("docs/causes.md does not hold these rows:\n%s", want)
	}
}
