package report_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"qgjob"
	"qgjob/internal/report"
)

var submitted = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// aJob is a job with attempts; the tests of each are given as title=status.
func aJob(id, path string, state qgjob.JobState, cause qgjob.Cause, attempts ...[]string) (qgjob.Job, []qgjob.Attempt) {
	ended := submitted.Add(90 * time.Second)
	j := qgjob.Job{
		ID: id, RunID: "run", OrgID: "acme", AppVersionID: "v1", TestPath: path, Target: qgjob.TargetAny,
		State: state, Cause: cause, Attempts: len(attempts), SubmittedAt: submitted, StartedAt: &submitted, EndedAt: &ended,
	}
	var list []qgjob.Attempt
	for i, tests := range attempts {
		a := qgjob.Attempt{ID: id + "-" + string(rune('1'+i)), JobID: id, Number: i + 1, DeviceID: "PIXEL", Outcome: qgjob.OutcomePassed, AssignedAt: submitted}
		for _, test := range tests {
			at := strings.LastIndex(test, "=")
			title, status := test[:at], test[at+1:]
			r := qgjob.TestResult{Title: title, Status: qgjob.TestStatus(status), DurationMS: 1500, File: path, Line: 3, Column: 5}
			if status != "passed" && status != "skipped" {
				r.Error, a.Outcome, a.Cause = "Error: no <button> & \x1b[31mred\x00\nat line 3", qgjob.OutcomeFailed, qgjob.CauseTestFailed
			}
			a.Report.Tests = append(a.Report.Tests, r)
		}
		list = append(list, a)
	}
	return j, list
}

type made struct {
	run      qgjob.Run
	attempts []qgjob.Attempt
}

func (m *made) add(j qgjob.Job, attempts []qgjob.Attempt) {
	m.run.Jobs = append(m.run.Jobs, j)
	m.attempts = append(m.attempts, attempts...)
}

func everything() made {
	m := made{run: qgjob.Run{ID: "run", OrgID: "acme", AppVersionID: "v1", SubmittedAt: submitted, CI: &qgjob.CI{Repository: "acme/app", Commit: "abc"}}}
	m.add(aJob("j1", "tests/a.spec.ts", qgjob.Passed, "", []string{"one=passed", "two=failed", "later=skipped"}, []string{"one=passed", "two=passed", "later=skipped"}))
	m.add(aJob("j2", "tests/b.spec.ts", qgjob.Failed, qgjob.CauseTestFailed, []string{"x=failed", "y=passed"}, []string{"x=timed_out", "y=passed"}, []string{"x=failed", "y=passed"}))
	m.add(aJob("j3", "tests/c.spec.ts", qgjob.Errored, qgjob.CauseDeviceOffline, []string{"m=passed", "n=interrupted"}))
	m.add(aJob("j4", "tests/d.spec.ts", qgjob.Queued, ""))
	m.add(aJob("j5", "tests/e.spec.ts", qgjob.Passed, "", []string{"same=passed", "same=failed"}, []string{"same=passed", "same=passed"}))
	m.run.State = qgjob.Errored
	return m
}

// TestTotals: each test once, by how it ended; what is not the test's fault is an error.
func TestTotals(t *testing.T) {
	m := everything()
	got := report.New(m.run, m.attempts).Totals
	// one, y, m and the first "same" passed; two and the second "same" are flaky; x failed; n is the error of c, d has no verdict.
	if got.Tests != 8 || got.Passed != 4 || got.Flaky != 2 || got.Failed != 1 || got.Skipped != 1 || got.Errors != 2 {
		t.Errorf("totals %+v", got)
	}
}

type junit struct {
	Tests    int `xml:"tests,attr"`
	Failures int `xml:"failures,attr"`
	Errors   int `xml:"errors,attr"`
	Suites   []struct {
		Tests int `xml:"tests,attr"`
		Cases []struct {
			Name    string    `xml:"name,attr"`
			Failure *struct{} `xml:"failure"`
			Error   *struct {
				Type string `xml:"type,attr"`
			} `xml:"error"`
			Skipped *struct{}  `xml:"skipped"`
			Reruns  []struct{} `xml:"rerunFailure"`
			Flaky   []struct{} `xml:"flakyFailure"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

// TestJUnit holds the file against the published schema, and against what is known of the run.
func TestJUnit(t *testing.T) {
	m := everything()
	r := report.New(m.run, m.attempts)
	r.Server = "http://127.0.0.1:8000"
	var b bytes.Buffer
	if err := r.JUnit(&b); err != nil {
		t.Fatal(err)
	}
	validate(t, b.Bytes())
	var got junit
	if err := xml.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Tests != 10 || got.Failures != 1 || got.Errors != 2 {
		t.Errorf("tests %d, failures %d, errors %d; want 10, 1, 2", got.Tests, got.Failures, got.Errors)
	}
	if two := got.Suites[0].Cases[1]; two.Name != "two" || two.Failure != nil || len(two.Flaky) != 1 {
		t.Errorf("the flaky test: %+v", two)
	}
	if x := got.Suites[1].Cases[0]; x.Failure == nil || len(x.Reruns) != 2 || x.Error != nil {
		t.Errorf("the failed test: %+v", x)
	}
	if c := got.Suites[2].Cases; len(c) != 2 || c[1].Error == nil || c[1].Error.Type != "device_offline" || c[1].Failure != nil {
		t.Errorf("what the device did: %+v", c)
	}
	for _, want := range []string{`name="qgjob.attempt.2.device" value="PIXEL"`, `name="qgjob.link.log" value="http://127.0.0.1:8000/v1/jobs/j1/log"`, `name="ci.commit" value="abc"`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s is missing", want)
		}
	}
}

// validate checks a file against a grammar of JUnit's format.
func validate(t interface {
	Helper()
	Fatalf(string, ...any)
}, document []byte,
) {
	t.Helper()
	lint := exec.Command("xmllint", "--noout", "--nonet", "--relaxng", filepath.Join("testdata", "junit.rng"), "-")
	lint.Stdin = bytes.NewReader(document)
	if out, err := lint.CombinedOutput(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			t.Fatalf("xmllint is not installed: apt install libxml2-utils")
		}
		t.Fatalf("%v: %s\n%s", err, out, document)
	}
}

// TestAnyRun: whatever a run holds, the JUnit file counts what it lists, is red when the run is, and no
// green run has a failure or an error in it.
func TestAnyRun(t *testing.T) {
	var last []byte
	rapid.Check(t, func(rt *rapid.T) {
		var m made
		var states []qgjob.JobState
		for i := range rapid.IntRange(1, 4).Draw(rt, "jobs") {
			state := rapid.SampledFrom(qgjob.JobStates).Draw(rt, "state")
			states = append(states, state)
			var attempts [][]string
			for range rapid.IntRange(1, 3).Draw(rt, "attempts") {
				status := rapid.SampledFrom([]string{"passed", "failed", "timed_out", "skipped", "interrupted"})
				attempts = append(attempts, []string{"t=" + status.Draw(rt, "status"), rapid.StringN(0, 8, -1).Draw(rt, "title") + "=" + status.Draw(rt, "status")})
			}
			if state == qgjob.Passed { // as Result.Check demands of its last attempt
				attempts = append(attempts, []string{"t=passed"})
			}
			m.add(aJob(string(rune('a'+i)), "tests/x.spec.ts", state, qgjob.CauseTestFailed, attempts...))
		}
		m.run.State = qgjob.RunState(states)
		var b bytes.Buffer
		r := report.New(m.run, m.attempts)
		if err := r.JUnit(&b); err != nil {
			rt.Fatal(err)
		}
		last = b.Bytes()
		var got junit
		if err := xml.Unmarshal(last, &got); err != nil {
			rt.Fatal(err)
		}
		cases, failures, errs := 0, 0, 0
		for _, s := range got.Suites {
			cases += len(s.Cases)
			for _, c := range s.Cases {
				if c.Failure != nil {
					failures++
				}
				if c.Error != nil {
					errs++
				}
			}
		}
		if got.Tests != cases || got.Failures != failures || got.Errors != errs {
			rt.Fatalf("it says %d, %d, %d and lists %d, %d, %d", got.Tests, got.Failures, got.Errors, cases, failures, errs)
		}
		if green := failures+errs == 0; green != (m.run.State == qgjob.Passed) {
			rt.Fatalf("the run is %s; the file has %d failures and %d errors", m.run.State, failures, errs)
		}
		if r.Totals.Failed != failures || r.Totals.Errors != errs {
			rt.Fatalf("totals %+v, the file has %d failures and %d errors", r.Totals, failures, errs)
		}
	})
	validate(t, last)
}

// TestMarkdown: nothing that a test wrote can leave its place, call people or link elsewhere.
func TestMarkdown(t *testing.T) {
	m := made{run: qgjob.Run{ID: "run", AppVersionID: "v`1", State: qgjob.Failed, SubmittedAt: submitted}}
	j, attempts := aJob("j", "tests/a|b.spec.ts", qgjob.Failed, qgjob.CauseTestFailed, []string{"<img src=x> @octocat=failed"})
	attempts[0].Report.Tests[0].Error = "```\n</details><script>alert(1)</script>"
	m.add(j, attempts)
	var b bytes.Buffer
	if err := report.New(m.run, m.attempts).Markdown(&b); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"<img", "@octocat", "\n```\n```\n"} {
		if strings.Contains(b.String(), bad) {
			t.Errorf("it holds %q:\n%s", bad, b.String())
		}
	}
	for _, want := range []string{"### ❌ Run failed: 0 passed, 1 failed", "(tests/a|b.spec.ts:3)", `| tests/a\|b.spec.ts |`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("it lacks %q:\n%s", want, b.String())
		}
	}
}
