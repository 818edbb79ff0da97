// Package flaky tells flaky tests from broken ones, by how their executions ended on given code states.
//
// A code state is a test project and a build. A test that passed and failed on one code state is flaky
// there: nothing but chance changed. One that failed at every execution on a code state is broken there,
// which says nothing about chance; those executions are left out. What is left gives the probability that an
// execution fails by chance, with Wilson's score interval (E. B. Wilson, 1927) at 95 %.
//
// The package is pure: it reads no clock and no store.
package flaky

import (
	"cmp"
	"math"
	"slices"
	"time"

	"qgjob"
)

// Execution is one execution of one test.
type Execution struct {
	Spec, Title string
	CodeState   string
	Passed      bool
	At          time.Time
}

// The rule by which a flaky test is quarantined, and by which a quarantined one returns.
const (
	// QuarantineStates is on how many code states a test must have been flaky: one may be an accident.
	QuarantineStates = 2
	// QuarantineLow is the lower end of the interval from which on it is worth it.
	QuarantineLow = 0.02
	// StableStreak is how many executions in a row must pass before a test returns.
	StableStreak = 20
)

// ShouldQuarantine says whether the rule quarantines a test. One that is broken never is: it says something.
func ShouldQuarantine(t qgjob.TestHistory) bool {
	return t.Kind == qgjob.FlakyTest && t.Mixed >= QuarantineStates && t.Low >= QuarantineLow
}

type name struct{ spec, title string }

// StableAgain says whether a test that is quarantined since a moment has passed often enough to return. Only
// its executions after that moment count, and they must all have passed since its last failure.
func StableAgain(executions []Execution, q qgjob.Quarantine) bool {
	var after []Execution
	for _, e := range executions {
		if e.Spec == q.TestPath && e.Title == q.Title && e.At.After(q.Since) {
			after = append(after, e)
		}
	}
	return len(after) > 0 && judge(name{q.TestPath, q.Title}, after).Streak >= StableStreak
}

// Judge tells what executions say of their tests, the most probably failing first. Their order does not matter.
func Judge(executions []Execution) []qgjob.TestHistory {
	of := map[name][]Execution{}
	for _, e := range executions {
		n := name{e.Spec, e.Title}
		of[n] = append(of[n], e)
	}
	tests := make([]qgjob.TestHistory, 0, len(of))
	for n, list := range of {
		tests = append(tests, judge(n, list))
	}
	slices.SortFunc(tests, func(a, b qgjob.TestHistory) int {
		return cmp.Or(cmp.Compare(b.Probability, a.Probability), cmp.Compare(b.Failures, a.Failures), cmp.Compare(a.TestPath, b.TestPath), cmp.Compare(a.Title, b.Title))
	})
	return tests
}

func judge(n name, list []Execution) qgjob.TestHistory {
	slices.SortStableFunc(list, func(a, b Execution) int { return a.At.Compare(b.At) })
	t := qgjob.TestHistory{TestPath: n.spec, Title: n.title, Kind: qgjob.Stable, Executions: len(list)}
	type count struct{ passed, failed int }
	states := map[string]*count{}
	for _, e := range list {
		c := states[e.CodeState]
		if c == nil {
			c = &count{}
			states[e.CodeState] = c
		}
		if e.Passed {
			c.passed++
			t.Streak++
			continue
		}
		c.failed++
		t.Failures++
		t.Streak, t.LastFailure = 0, &e.At
	}
	t.CodeStates = len(states)
	failed, counted := 0, 0
	for _, c := range states {
		if c.passed == 0 {
			continue // broken there
		}
		failed += c.failed
		counted += c.passed + c.failed
		if c.failed > 0 {
			t.Mixed++
		}
	}
	t.Probability, t.Low, t.High = wilson(failed, counted)
	newest := states[list[len(list)-1].CodeState]
	switch {
	case newest.passed == 0 && newest.failed >= 2:
		t.Kind = qgjob.Broken
	case t.Mixed > 0:
		t.Kind = qgjob.FlakyTest
	}
	return t
}

// wilson is the share of failures among n executions with its 95 % interval; without executions nothing is known.
func wilson(failures, n int) (p, low, high float64) {
	if n == 0 {
		return 0, 0, 1
	}
	const z = 1.959964
	total := float64(n)
	p = float64(failures) / total
	center := (p + z*z/(2*total)) / (1 + z*z/total)
	half := z / (1 + z*z/total) * math.Sqrt(p*(1-p)/total+z*z/(4*total*total))
	return p, max(0, center-half), min(1, center+half)
}
