package store

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/sched"
)

// withCloud registers a worker with a phone and one with a device of BrowserStack that costs 0.60 a minute.
func (q *queue) withCloud() {
	q.worker("w1", "p1")
	cloud := phone("bs1")
	cloud.Kind, cloud.MinutePrice = qgjob.TargetBrowserStack, 0.6
	must(q.t, 0, second(q.Register(q.t.Context(), "w2", "host", "test", []DeviceReport{cloud})))
}

// late submits jobs that one phone needs longer for than they have.
func (q *queue) late(maxCost float64) qgjob.Run {
	q.t.Helper()
	sub := submission("acme", "v1", "tests/a.spec.js", "tests/b.spec.js", "tests/c.spec.js", "tests/d.spec.js")
	sub.Deadline, sub.MaxCost = time.Minute, maxCost
	run, _, err := q.Submit(q.t.Context(), sub)
	return must(q.t, run, err)
}

func cost(r qgjob.Result, units float64) qgjob.Result {
	r.Report.CloudSessions = []qgjob.CloudSession{{ID: "s1", Seconds: 60, Cost: units}}
	return r
}

func TestALateRunOverflows(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.withCloud()
		run := q.late(2)
		if run.Deadline == nil || run.Deadline.Sub(run.SubmittedAt) != time.Minute {
			t.Fatalf("the deadline of %v is %v", run.SubmittedAt, run.Deadline)
		}
		q.one("w1", "p1")
		first := q.one("w2", "bs1")
		if !strings.Contains(first.Reason, "its own devices would miss the deadline by") {
			t.Fatalf("reason %q", first.Reason)
		}
		checkCounters(t, q)
		q.writer.board = nil // as after a start: the deadline, its price and what it cost are in the database
		q.report("w2", first.Lease, cost(passed, 1.2))
		if found := q.run(run.ID); found.OverflowCost != 1.2 || found.MaxCost != 2 {
			t.Fatalf("run %+v", found)
		}
		q.report("w2", q.one("w2", "bs1").Lease, cost(passed, 0.7))
		if got := q.wait("w2", "bs1"); len(got) != 0 {
			t.Fatalf("0.10 of 2.00 are left, and %+v went on", got)
		}
		e := must1e(t)(q.Explain(t.Context(), "acme", q.queuedJob("acme").ID))
		if !slices.ContainsFunc(e.Waiting.Constraints, func(c sched.Constraint) bool {
			return c.Kind == sched.ConstraintBudget && c.Holds && strings.Contains(c.Text, "0.10 of the budget is left")
		}) {
			t.Fatalf("nothing is said of the budget: %+v", e.Waiting.Constraints)
		}
		checkCounters(t, q)
	})
}

func TestADeadlineNeedsABudget(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		ctx := t.Context()
		q.withCloud()
		sub := submission("acme", "v1", "tests/a.spec.js", "tests/b.spec.js", "tests/c.spec.js")
		sub.Deadline = time.Minute
		_, _, err := q.Submit(ctx, sub)
		if wantCode(t, err, qgjob.CodeInvalid); !strings.Contains(err.Error(), "--max-cost") {
			t.Fatalf("it does not say what to do: %v", err)
		}
		must(t, 0, q.SetOrganization(ctx, Organization{ID: "acme", WeightPermille: 1000, MaxCost: 1}))
		must(t, 0, third(q.Submit(ctx, sub)))
		q.one("w1", "p1")
		q.report("w2", q.one("w2", "bs1").Lease, cost(passed, 0.9))
		if got := q.wait("w2", "bs1"); len(got) != 0 {
			t.Fatalf("beyond the organization's budget: %+v", got)
		}
		o, err := q.Organization(ctx, "acme")
		if err != nil || o.Cost != 0.9 || o.MaxCost != 1 {
			t.Fatalf("%+v, %v", o, err)
		}
		q.shift.Add((32 * 24 * time.Hour).Milliseconds()) // another month, another budget
		if o, err = q.Organization(ctx, "acme"); err != nil || o.Cost != 0 {
			t.Fatalf("next month %+v, %v", o, err)
		}
	})
}

// What BrowserStack cannot run is no verdict: the job goes on with its own devices, and no other one tries there.
func TestWhatTheCloudCannotRunStaysAtHome(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.withCloud()
		run := q.late(100)
		q.one("w1", "p1")
		a := q.one("w2", "bs1")
		invalid := qgjob.Result{Outcome: qgjob.OutcomeErrored, Cause: qgjob.CauseProjectInvalid, Message: "no Playwright project has provider browserstack"}
		if answer := q.report("w2", a.Lease, invalid); answer.State != qgjob.Queued || answer.Trigger != qgjob.HandBack {
			t.Fatalf("answer %+v", answer)
		}
		if got := q.wait("w2", "bs1"); len(got) != 0 {
			t.Fatalf("%+v went there all the same", got)
		}
		if found := q.run(run.ID); !strings.Contains(found.OverflowClosed, "no Playwright project") {
			t.Fatalf("run %+v", found)
		}
		e := must1e(t)(q.Explain(t.Context(), "acme", a.Job.ID))
		if last := e.Waiting.Constraints[len(e.Waiting.Constraints)-1]; !strings.Contains(last.Text, "overflows to BrowserStack no more") {
			t.Fatalf("%+v", e.Waiting.Constraints)
		}
		checkCounters(t, q)
	})
}

// A worker that is lost has cost its time, which counts against the budget.
func TestALostAttemptHasCostItsTime(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.withCloud()
		run := q.late(100)
		q.one("w1", "p1")
		q.one("w2", "bs1")
		q.shift.Add((2 * time.Minute).Milliseconds())
		must(t, 0, second(q.Reap(t.Context())))
		if found := q.run(run.ID); found.OverflowCost < 1.2 || found.OverflowCost > 1.5 {
			t.Fatalf("two minutes of 0.60 cost %v", found.OverflowCost)
		}
		checkCounters(t, q)
	})
}

// What is predicted of waits is compared with what they were, and later predictions are better for it.
func TestPredictionsAreCalibrated(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		ctx := t.Context()
		q.worker("w1", "p1")
		for range 40 {
			q.submit("v1", "tests/a.spec.js") // nobody waits for work: it waits longer than anybody would expect
			must(t, 0, q.Calibrate(ctx))
			q.shift.Add((3 * time.Hour).Milliseconds())
			must(t, 0, q.Calibrate(ctx))
		}
		st := first(q.Stats(ctx))
		if p := st.Predictions; p.Judged < 20 || p.ByP90 > p.Judged/4 {
			t.Fatalf("judged %+v", p)
		}
		var learned sched.Calibration
		must(t, 0, q.write(ctx, func(_ context.Context, t *tx) error { learned = t.b.calibration; return nil }))
		if learned.P90 <= 0 || learned.Count != st.Predictions.Judged {
			t.Fatalf("learned %+v of %+v", learned, st.Predictions)
		}
		checkCounters(t, q)
	})
}
