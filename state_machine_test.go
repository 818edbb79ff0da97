package qgjob_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"qgjob"
)

var arrow = regexp.MustCompile(`^\s*(\[\*\]|\w+) --> (\[\*\]|\w+)(?:: (\w+))?$`)

// The diagram that people read is the table that the code runs.
func TestDiagramIsTheTransitionTable(t *testing.T) {
	page, err := os.ReadFile("docs/state-machine.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(page), "```mermaid\nstateDiagram-v2\n")
	diagram, _, closed := strings.Cut(after, "```")
	if !found || !closed {
		t.Fatal("docs/state-machine.md has no mermaid stateDiagram-v2")
	}
	var got []qgjob.Transition
	var final []qgjob.JobState
	for line := range strings.Lines(diagram) {
		m := arrow.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			t.Fatalf("line %q is no arrow", line)
		}
		if m[2] == "[*]" {
			final = append(final, qgjob.JobState(m[1]))
			continue
		}
		got = append(got, qgjob.Transition{From: qgjob.JobState(strings.Trim(m[1], "[*]")), On: qgjob.Trigger(m[3]), To: qgjob.JobState(m[2])})
	}
	if want := qgjob.Transitions(); !slices.Equal(got, want) {
		t.Errorf("diagram\n%v\ntable\n%v", got, want)
	}
	verdicts := slices.DeleteFunc(slices.Clone(qgjob.JobStates), func(s qgjob.JobState) bool { return !s.IsVerdict() })
	if !slices.Equal(final, verdicts) {
		t.Errorf("the diagram ends in %v, the verdicts are %v", final, verdicts)
	}
}
