package store

import (
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/flaky"
)

// result is that of an attempt with the given tests, by title and status.
func resultOf(tests ...qgjob.TestResult) qgjob.Result {
	r := qgjob.Result{Outcome: qgjob.OutcomePassed, Report: qgjob.Report{Tests: tests, Installed: true, BuildSHA256: "b1"}}
	for _, t := range tests {
		if t.Status != qgjob.TestPassed {
			r.Outcome, r.Cause = qgjob.OutcomeFailed, qgjob.CauseTestFailed
		}
	}
	return r
}

// TestQuarantine: a quarantined test's failure passes the job while nothing else failed, and is kept as what
// it was; it never excuses another test, another spec or another organization.
func TestQuarantine(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		shaky, good, bad := qgjob.TestResult{Title: "shaky", Status: qgjob.TestFailed}, qgjob.TestResult{Title: "good", Status: qgjob.TestPassed}, qgjob.TestResult{Title: "bad", Status: qgjob.TestFailed}
		if err := q.Quarantine(t.Context(), qgjob.Quarantine{OrgID: "acme", TestPath: "a.spec.ts", Title: "shaky"}); err != nil {
			t.Fatal(err)
		}
		q.worker("w", "p1")
		run := func(org, path string, r qgjob.Result) (JobDetail, ResultAnswer) {
			sub := submission(org, "v1", path)
			sub.BundleSHA256 = "b1" // one code state
			q.bundle(org, "b1")
			made := q.submitRun(sub)
			a := q.one("w", "p1")
			answer := q.report("w", a.Lease, r)
			if again := q.report("w", a.Lease, r); again.State != answer.State || again.Code != "" {
				t.Errorf("the same result again: %+v after %+v", again, answer)
			}
			d := q.job(made.Jobs[0].ID)
			if d.Job.State == qgjob.Queued {
				must(t, qgjob.Job{}, second(q.Cancel(t.Context(), "", d.Job.ID)))
			}
			return d, answer
		}
		d, answer := run("acme", "a.spec.ts", resultOf(shaky, good))
		if d.Job.State != qgjob.Passed || d.Job.Quarantined != 1 || d.Job.Cause != "" || answer.State != qgjob.Passed {
			t.Errorf("only the quarantined test failed: %+v, %+v", d.Job, answer)
		}
		if a := d.Attempts[0]; a.Outcome != qgjob.OutcomeFailed || !a.Report.Tests[0].Quarantined || a.Report.Tests[1].Quarantined {
			t.Errorf("its attempt: %+v", a)
		}
		if d, _ := run("acme", "a.spec.ts", resultOf(shaky)); d.Job.State != qgjob.Passed || d.Job.Cause != qgjob.CauseAllTestsQuarantined {
			t.Errorf("nothing counts: %+v", d.Job)
		}
		for _, c := range []struct {
			org, path string
			result    qgjob.Result
		}{{"acme", "a.spec.ts", resultOf(shaky, bad)}, {"acme", "b.spec.ts", resultOf(shaky, good)}, {"rival", "a.spec.ts", resultOf(shaky, good)}} {
			if d, _ := run(c.org, c.path, c.result); d.Job.State != qgjob.Queued || d.Job.TestFailures != 1 || d.Job.Quarantined != 0 {
				t.Errorf("%s %s: %+v", c.org, c.path, d.Job)
			}
		}
		checkCounters(t, q)

		history := must1History(t, q, "acme")
		if got := history["a.spec.ts shaky"]; got.Executions != 3 || got.Failures != 3 || got.Kind != qgjob.Broken {
			t.Errorf("its history: %+v", got)
		}
		if err := q.Release(t.Context(), "acme", "a.spec.ts", "shaky"); err != nil {
			t.Fatal(err)
		}
		wantCode(t, q.Release(t.Context(), "acme", "a.spec.ts", "shaky"), qgjob.CodeNotFound)
		if d, _ := run("acme", "a.spec.ts", resultOf(shaky, good)); d.Job.State != qgjob.Queued {
			t.Errorf("released: %+v", d.Job)
		}
		orgs, err := q.Organizations(t.Context())
		if err != nil || len(orgs) != 2 {
			t.Errorf("organizations %v, %v", orgs, err)
		}
	})
}

func must1History(t *testing.T, q *queue, org string) map[string]qgjob.TestHistory {
	t.Helper()
	list, err := q.Executions(t.Context(), org)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]qgjob.TestHistory{}
	for _, h := range flaky.Judge(list) {
		tests[h.TestPath+" "+h.Title] = h
	}
	return tests
}

// TestQuarantineKeepsItsBeginning: a test that is quarantined again keeps the moment from which its passes count.
func TestQuarantineKeepsItsBeginning(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		entry := qgjob.Quarantine{OrgID: "acme", TestPath: "a.spec.ts", Title: "t", ByRule: true, Reason: "one"}
		for _, reason := range []string{"one", "two"} {
			entry.Reason = reason
			if err := q.Quarantine(t.Context(), entry); err != nil {
				t.Fatal(err)
			}
			q.advance(time.Hour)
		}
		list, err := q.Quarantined(t.Context(), "acme")
		if err != nil || len(list) != 1 || list[0].Reason != "two" || !list[0].ByRule || time.Since(list[0].Since) > 30*time.Minute {
			t.Errorf("%+v, %v", list, err)
		}
		if other, err := q.Quarantined(t.Context(), "rival"); err != nil || len(other) != 0 {
			t.Errorf("%+v, %v", other, err)
		}
	})
}

// TestExecutionsAreOfTheNewestJobs: what was executed long ago says nothing of a test any more.
func TestExecutionsAreOfTheNewestJobs(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.worker("w", "p1")
		q.submit("v1", "old.spec.ts")
		q.report("w", q.one("w", "p1").Lease, passed)
		sub := submission("acme", "v1")
		for range executionsOf - 1 {
			sub.Jobs = append(sub.Jobs, JobSpec{TestPath: "new.spec.ts", Priority: qgjob.DefaultPriority, Target: qgjob.TargetAny})
		}
		q.submitRun(sub)
		list, err := q.Executions(t.Context(), "acme")
		if must(t, list, err); len(list) != 1 {
			t.Fatalf("of the newest %d jobs: %+v", executionsOf, list)
		}
		q.submit("v1", "new.spec.ts")
		list, err = q.Executions(t.Context(), "acme")
		if must(t, list, err); len(list) != 0 {
			t.Fatalf("of %d newer jobs: %+v", executionsOf, list)
		}
	})
}
