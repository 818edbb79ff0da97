package qgjob

import (
	"slices"
	"time"
)

// Quarantine is a test that runs and is reported, and does not count: its failure fails no job.
type Quarantine struct {
	OrgID    string    `json:"org_id"`
	TestPath string    `json:"test_path" doc:"its spec file"`
	Title    string    `json:"title" doc:"describe blocks and title, joined with ' > '"`
	ByRule   bool      `json:"by_rule" doc:"the rule for flaky tests did it"`
	Reason   string    `json:"reason,omitempty"`
	Since    time.Time `json:"since"`
}

// TestKind is what a test's history says of it.
type TestKind string

// The kinds of tests.
const (
	Stable    TestKind = "stable" // it did not fail by chance
	FlakyTest TestKind = "flaky"  // it passed and failed on one code state
	Broken    TestKind = "broken" // on the newest code state it failed at every execution, twice or more
)

// TestHistory is a test with what its executions say. A code state is a test project and a build.
type TestHistory struct {
	TestPath    string     `json:"test_path"`
	Title       string     `json:"title"`
	Kind        TestKind   `json:"kind" enum:"stable,flaky,broken"`
	Executions  int        `json:"executions" doc:"on all code states"`
	Failures    int        `json:"failures"`
	CodeStates  int        `json:"code_states" doc:"test project and build together"`
	Mixed       int        `json:"mixed_code_states" doc:"on which it both passed and failed"`
	Probability float64    `json:"probability" doc:"that an execution fails by chance"`
	Low         float64    `json:"low" doc:"lower end of the 95 % interval"`
	High        float64    `json:"high" doc:"upper end of the 95 % interval"`
	Streak      int        `json:"streak" doc:"executions that passed since the last failure"`
	LastFailure *time.Time `json:"last_failure,omitempty"`
}

// Excuse marks the failed tests of a result that are quarantined. When they are all that failed, excused is
// their number, and counted the number of the tests that passed and count; otherwise both are 0.
func (r Result) Excuse(quarantined func(title string) bool) (marked Result, excused, counted int) {
	marked = r
	marked.Report.Tests = slices.Clone(r.Report.Tests)
	failed := 0
	for i := range marked.Report.Tests {
		t := &marked.Report.Tests[i]
		t.Quarantined = false
		switch t.Status {
		case TestPassed:
			if !quarantined(t.Title) {
				counted++
			}
		case TestSkipped:
		default:
			failed++
			if t.Quarantined = quarantined(t.Title); t.Quarantined {
				excused++
			}
		}
	}
	if failed == 0 || excused < failed {
		return marked, 0, 0
	}
	return marked, excused, counted
}
