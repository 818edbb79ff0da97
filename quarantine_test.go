package qgjob_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"qgjob"
)

// TestExcuse: a result is excused only when every test of it that did not pass is quarantined, and never
// when none failed; what the worker said of it is left as it was.
func TestExcuse(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var r qgjob.Result
		quarantined := map[string]bool{}
		failed, uncovered, counted := 0, 0, 0
		for _, title := range []string{"a", "b", "c", "d"}[:rapid.IntRange(0, 4).Draw(rt, "tests")] {
			status := rapid.SampledFrom([]qgjob.TestStatus{qgjob.TestPassed, qgjob.TestFailed, qgjob.TestTimedOut, qgjob.TestSkipped, qgjob.TestInterrupted, "new"}).Draw(rt, "status")
			quarantined[title] = rapid.Bool().Draw(rt, "quarantined")
			r.Report.Tests = append(r.Report.Tests, qgjob.TestResult{Title: title, Status: status, Quarantined: rapid.Bool().Draw(rt, "claimed")})
			switch {
			case status == qgjob.TestSkipped:
			case status == qgjob.TestPassed:
				if !quarantined[title] {
					counted++
				}
			default:
				failed++
				if !quarantined[title] {
					uncovered++
				}
			}
		}
		before := slices.Clone(r.Report.Tests)
		marked, excused, counts := r.Excuse(func(title string) bool { return quarantined[title] })
		if want := failed > 0 && uncovered == 0; (excused > 0) != want || want && (excused != failed || counts != counted) {
			rt.Fatalf("%d excused, %d count: of %d that failed %d are not quarantined, %d passed", excused, counts, failed, uncovered, counted)
		}
		if !slices.Equal(before, r.Report.Tests) {
			rt.Fatal("the result itself was changed")
		}
		for _, test := range marked.Report.Tests {
			passed := test.Status == qgjob.TestPassed || test.Status == qgjob.TestSkipped
			if test.Quarantined != (!passed && quarantined[test.Title]) {
				rt.Fatalf("%+v is marked wrongly", test)
			}
		}
	})
}
