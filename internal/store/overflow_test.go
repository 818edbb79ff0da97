package store

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/sched"
)

// withCloud registers a worker with a phone and one with a device of BrowserStack that costs 0.60 a minute.
func (q *queue) withCloud() {
	q.t.Helper()
	q.worker("w1", "p1")
	q.clouds("bs1")
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
			q.worker("w1", "p1")
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

// clouds registers another worker with devices of BrowserStack that cost 0.60 a minute.
func (q *queue) clouds(ids ...string) {
	q.t.Helper()
	var devices []DeviceReport
	for _, id := range ids {
		c := phone(id)
		c.Kind, c.MinutePrice = qgjob.TargetBrowserStack, 0.6
		devices = append(devices, c)
	}
	must(q.t, 0, second(q.Register(q.t.Context(), "w2", "host", "test", devices)))
}

// specs are paths of which some are known to take long, and the others ten seconds.
func (q *queue) specs(n, long int, takes time.Duration) (paths []string) {
	q.t.Helper()
	must(q.t, 0, q.write(q.t.Context(), func(_ context.Context, t *tx) error {
		for i := range n {
			paths = append(paths, fmt.Sprintf("tests/%d.spec.js", i))
			took := 10 * time.Second
			if i < long {
				took = takes
			}
			for range 5 {
				t.observe(estimateKey{estimateRun, "acme", paths[i]}, took, took)
			}
		}
		return nil
	}))
	return paths
}

// committedNow is what the attempts that run now are expected to cost.
func (q *queue) committedNow() (units float64) {
	q.t.Helper()
	must(q.t, 0, q.write(q.t.Context(), func(_ context.Context, t *tx) error {
		units = t.committed(func(*attempt) bool { return true }).units()
		return nil
	}))
	return units
}

// A few long jobs among many short ones, as most suites have: the longest go first, each at its own price.
func TestTheLongestJobsKeepTheBudget(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.worker("w1", "p1")
		clouds := []string{"bs1", "bs2", "bs3", "bs4"}
		q.clouds(clouds...)
		sub := submission("acme", "v1", q.specs(100, 4, 3*time.Minute)...)
		sub.Deadline, sub.MaxCost = 5*time.Minute, 5
		must(t, 0, third(q.Submit(t.Context(), sub)))
		q.one("w1", "p1")
		q.writer.board = nil // as after a start: what each job is expected to take is read again
		given := q.wait("w2", clouds...)
		if committed := q.committedNow(); len(given) == 0 || committed > 5 {
			t.Fatalf("%d jobs are expected to cost %.2f of a budget of 5", len(given), committed)
		}
		checkCounters(t, q)
	})
}

// Jobs that ask for BrowserStack count against their organization's budget in the plan that gives them, too.
func TestWhatAsksForTheCloudCountsInTheSamePlan(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.worker("w1", "p1")
		q.clouds("bs1", "bs2", "bs3")
		must(t, 0, q.SetOrganization(t.Context(), Organization{ID: "acme", WeightPermille: 1000, MaxCost: 1}))
		sub := submission("acme", "v1", "tests/x.spec.js")
		sub.Jobs[0].Target = qgjob.TargetBrowserStack
		must(t, 0, third(q.Submit(t.Context(), sub)))
		q.late(0)
		q.one("w1", "p1")
		given := q.wait("w2", "bs1", "bs2", "bs3")
		if committed := q.committedNow(); len(given) != 1 || committed > 1 {
			t.Fatalf("%d jobs, expected to cost %.2f of a budget of 1", len(given), committed)
		}
	})
}

// A cloud that breaks jobs gives no verdict that own devices can give.
func TestABrokenCloudIsNoVerdict(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.worker("w1", "p1")
		clouds := []string{"bs1", "bs2", "bs3", "bs4"}
		q.clouds(clouds...)
		run := q.late(100)
		q.one("w1", "p1")
		down := qgjob.Result{Outcome: qgjob.OutcomeErrored, Cause: qgjob.CauseCloudUnreachable, Message: "502"}
		broke := 0
		for got := q.wait("w2", clouds...); len(got) > 0 && broke < 50; got = q.wait("w2", clouds...) {
			for _, a := range got {
				q.report("w2", a.Lease, down)
				broke++
			}
			q.clouds(clouds...)
		}
		found := q.run(run.ID)
		for _, j := range found.Jobs {
			if j.State != qgjob.Queued && j.State != qgjob.Running {
				t.Errorf("%s is %s: %s", j.TestPath, j.State, j.Cause)
			}
		}
		if broke == 50 || !strings.Contains(found.OverflowClosed, string(qgjob.CauseCloudUnreachable)) {
			t.Fatalf("after %d tries, overflow closed: %q", broke, found.OverflowClosed)
		}
		checkCounters(t, q)
	})
}

// What the cloud says is the verdict where there is nothing else that could give one.
func TestWithoutOwnDevicesTheCloudDecides(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.clouds("bs1")
		sub := submission("acme", "v1", "tests/a.spec.js")
		sub.Deadline, sub.MaxCost = 5*time.Minute, 100
		must(t, 0, third(q.Submit(t.Context(), sub)))
		invalid := qgjob.Result{Outcome: qgjob.OutcomeErrored, Cause: qgjob.CauseProjectInvalid, Message: "no Playwright project has provider browserstack"}
		if answer := q.report("w2", q.one("w2", "bs1").Lease, invalid); answer.State != qgjob.Errored {
			t.Fatalf("answer %+v", answer)
		}
	})
}

// A worker that leaves has told no cost: the time counts.
func TestAnAttemptWithoutAResultHasCostItsTime(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.withCloud()
		run := q.late(100)
		q.one("w1", "p1")
		a := q.one("w2", "bs1")
		q.poll(Poll{WorkerID: "w2", Leases: []Lease{a.Lease}})
		q.advance(20 * time.Minute)
		must(t, 0, q.Leave(t.Context(), "w2"))
		if cost := q.run(run.ID).OverflowCost; cost < 12 || cost > 12.5 {
			t.Fatalf("twenty minutes of 0.60 cost %v", cost)
		}
		checkCounters(t, q)
	})
}

// A device that is held is no capacity: what waits for it alone counts as having none, and a job that avoids the
// other device runs there all the same.
func TestAHeldDeviceIsNoCapacity(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.worker("w1", "p1", "p2")
		must(t, 0, q.HoldDevice(t.Context(), "p2", qgjob.HoldDrain, "repair", 0))
		q.writer.board = nil // as after a start
		j := q.submit("v1", "tests/a.spec.js")[0]
		q.report("w1", q.one("w1", "p1").Lease, errored)
		q.advance(time.Minute)
		q.worker("w1", "p1", "p2")
		if got := q.wait("w1", "p1"); len(got) != 1 {
			t.Fatalf("it waits for a device that is drained: %s", story(q.job(j.ID)))
		}
		e := must1e(t)(q.Explain(t.Context(), "acme", q.submit("v2", "tests/b.spec.js")[0].ID))
		if !slices.ContainsFunc(e.Waiting.Constraints, func(c sched.Constraint) bool { return strings.Contains(c.Text, "p2 is held (drain)") }) {
			t.Errorf("explained by %+v", e.Waiting.Constraints)
		}
		if released, err := q.ReleaseDevice(t.Context(), "p2"); err != nil || !released {
			t.Fatal(released, err)
		}
		if got := q.wait("w1", "p2"); len(got) != 1 {
			t.Fatalf("p2 is released and got %+v", got)
		}
	})
}

// One slow upload does not make a cloud look slow for good: it was once for all of its devices.
func TestAnUploadIsPaidOnce(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.withCloud()
		run := q.late(6)
		q.one("w1", "p1")
		uploaded := cost(passed, 0.4)
		uploaded.Report.InstallMS, uploaded.Report.RunMS = (4 * time.Minute).Milliseconds(), 40_000
		saved := uploaded
		saved.Report.Installed, saved.Report.InstallSaved, saved.Report.InstallMS = false, true, 0
		q.report("w2", q.one("w2", "bs1").Lease, uploaded)
		q.clouds("bs1")
		q.report("w2", q.one("w2", "bs1").Lease, saved)
		q.clouds("bs1")
		if got := q.wait("w2", "bs1"); len(got) != 1 {
			t.Fatalf("%.2f of 6.00 are spent, and nothing goes there any more", q.run(run.ID).OverflowCost)
		}
	})
}

// A budget that is no amount, or less than one, would stand for none.
func TestABudgetIsAnAmount(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		for _, budget := range []float64{1e-9, -1, math.NaN(), math.Inf(1)} {
			sub := submission("acme", "v1", "tests/a.spec.js")
			sub.Deadline, sub.MaxCost = time.Minute, budget
			_, _, err := q.Submit(t.Context(), sub)
			wantCode(t, err, qgjob.CodeInvalid)
			wantCode(t, q.SetOrganization(t.Context(), Organization{ID: "acme", WeightPermille: 1000, MaxCost: budget}), qgjob.CodeInvalid)
		}
	})
}

// What is bought takes nothing of others: an organization that pays keeps its share at home.
func TestWhatIsBoughtIsNoShare(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.withCloud()
		q.late(100)
		own := q.one("w1", "p1")
		bought := q.one("w2", "bs1")
		used := func() (ms int64) {
			must(t, 0, q.write(t.Context(), func(_ context.Context, t *tx) error { ms = t.b.org("acme").used(t.now); return nil }))
			return ms
		}
		q.advance(20 * time.Second)
		q.report("w2", bought.Lease, cost(passed, 0.2))
		if ms := used(); ms != 0 {
			t.Fatalf("%d ms of the cloud count as used", ms)
		}
		q.report("w1", own.Lease, passed)
		if ms := used(); ms < 19_000 {
			t.Fatalf("%d ms of its own device count as used", ms)
		}
	})
}

// A machine that was off for a night has cost no night: nobody drove what ran in the cloud.
func TestALostAttemptCostsNoNight(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.withCloud()
		run := q.late(100)
		q.one("w1", "p1")
		q.one("w2", "bs1")
		q.advance(8 * time.Hour)
		must(t, 0, second(q.Reap(t.Context())))
		if cost := q.run(run.ID).OverflowCost; cost < 1 || cost > 4 {
			t.Fatalf("eight hours without anybody cost %v", cost)
		}
		checkCounters(t, q)
	})
}

// Own devices take of a lane before the cloud does, and what the cloud takes then has its own price all the same.
func TestJobsBehindThoseOfOwnDevicesHaveTheirPrice(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.worker("w1", "p1", "p2", "p3", "p4")
		q.clouds("bs1", "bs2")
		sub := submission("acme", "v1", q.specs(300, 12, 10*time.Minute)...)
		sub.Deadline, sub.MaxCost = time.Minute, 5
		must(t, 0, third(q.Submit(t.Context(), sub)))
		q.writer.board = nil
		q.poll(Poll{WorkerID: "w1", Free: []string{"p1", "p2", "p3", "p4"}})
		q.wait("w2", "bs1", "bs2")
		if committed := q.committedNow(); committed > 5 {
			t.Fatalf("%.2f committed of a budget of 5", committed)
		}
	})
}
