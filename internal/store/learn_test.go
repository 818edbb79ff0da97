package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/sched"
)

// took is a result of a spec that ran for so long.
func took(d time.Duration) qgjob.Result {
	r := passed
	r.Report.RunMS = d.Milliseconds()
	return r
}

// Of one submission the specs start first that are known to take longest; what fails is learned from as well.
func TestTheLongestSpecOfARunComesFirst(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.worker("w1", "p1")
		for spec, d := range map[string]time.Duration{"tests/short.spec.js": 5 * time.Second, "tests/long.spec.js": 5 * time.Minute} {
			for range 3 {
				q.submit("v1", spec)
				q.report("w1", q.one("w1", "p1").Lease, took(d))
			}
		}
		q.submit("v1", "tests/short.spec.js", "tests/unknown.spec.js", "tests/long.spec.js")
		var order []string
		for range 3 {
			a := q.one("w1", "p1")
			order = append(order, a.Job.TestPath)
			q.report("w1", a.Lease, took(time.Second))
		}
		if got := strings.Join(order, " "); !strings.HasPrefix(got, "tests/long.spec.js ") || !strings.HasSuffix(got, " tests/short.spec.js") {
			t.Fatalf("they ran as %s", got)
		}
		checkCounters(t, q)
	})
}

func TestQuotaHoldsDevicesBack(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		must(t, 0, q.SetOrganization(t.Context(), Organization{ID: "acme", WeightPermille: 1000, MaxDevices: 1}))
		q.worker("w1", "p1", "p2", "p3")
		for i := range 3 {
			q.submit(fmt.Sprintf("v%d", i), "tests/a.spec.js")
		}
		first := q.wait("w1", "p1", "p2", "p3")
		if len(first) != 1 {
			t.Fatalf("%d devices run jobs of an organization that may have one", len(first))
		}
		e := must1e(t)(q.Explain(t.Context(), "acme", q.queuedJob("acme").ID))
		if !slices.ContainsFunc(e.Waiting.Constraints, func(c sched.Constraint) bool {
			return c.Kind == sched.ConstraintQuota && c.Holds && strings.Contains(c.Text, "1 of at most 1 device")
		}) {
			t.Fatalf("nothing is said of the quota: %+v", e.Waiting)
		}
		q.report("w1", first[0].Lease, passed)
		if next := q.wait("w1", "p1", "p2", "p3"); len(next) != 1 {
			t.Fatalf("%d devices next", len(next))
		}
		checkCounters(t, q)
	})
}

func must1e(t *testing.T) func(Explanation, error) Explanation {
	return func(e Explanation, err error) Explanation { return must(t, e, err) }
}

// queuedJob is any queued job of an organization.
func (q *queue) queuedJob(org string) qgjob.Job {
	jobs, _, err := q.Jobs(q.t.Context(), JobFilter{OrgID: org, State: qgjob.Queued})
	if must(q.t, 0, err); len(jobs) == 0 {
		q.t.Fatal("no job is queued")
	}
	return jobs[0]
}

// A group that broke three devices stops, says so, and starts again after a rest.
func TestAGroupThatBreaksDevicesStops(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.worker("w1", "p1", "p2", "p3", "p4")
		j := q.submit("v1", "tests/a.spec.js")[0]
		for _, device := range []string{"p1", "p2", "p3"} {
			q.report("w1", q.one("w1", device).Lease, errored)
		}
		if got := q.wait("w1", "p1", "p2", "p3", "p4"); len(got) != 0 {
			t.Fatalf("it goes on breaking: %+v", got)
		}
		e := must1e(t)(q.Explain(t.Context(), "", j.ID))
		if len(e.Waiting.Constraints) == 0 || e.Waiting.Constraints[0].Kind != sched.ConstraintBreaker || !e.Waiting.Constraints[0].Holds || len(e.Attempts) != sched.BreakAfter {
			t.Fatalf("explained as %+v", e)
		}
		checkCounters(t, q)
		q.advance(sched.BreakRest)
		q.worker("w1", "p1", "p2", "p3", "p4")
		got := q.wait("w1", "p1", "p2", "p3", "p4")
		if len(got) != 1 {
			t.Fatalf("after the rest: %+v", got)
		}
		q.report("w1", got[0].Lease, passed)
		if len(q.writer.board.streaks) != 0 {
			t.Fatal("what ended well did not end the streak")
		}
		checkCounters(t, q)
	})
}

func TestRequirementsChooseDevices(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		old, lab := phone("p1"), phone("p2")
		old.OSVersion, lab.Tags = "11", []string{"lab", "fast"}
		if refused, err := q.Register(t.Context(), "w1", "h", "test", []DeviceReport{old, lab}); err != nil || len(refused) > 0 {
			t.Fatal(refused, err)
		}
		sub := submission("acme", "v1", "tests/a.spec.js")
		sub.Jobs[0].Requires = "os>=12, tag=lab"
		must(t, 0, third(q.Submit(t.Context(), sub)))
		if got := q.wait("w1", "p1", "p2"); len(got) != 1 || got[0].DeviceID != "p2" || got[0].Job.Requires != "os>=12, tag=lab" {
			t.Fatalf("got %+v, want p2", got)
		}
		if devices := first(q.Devices(t.Context(), "")); !slices.Equal(devices[1].Tags, []string{"lab", "fast"}) {
			t.Fatalf("devices %+v", devices)
		}
		sub = submission("acme", "v1", "tests/b.spec.js")
		sub.Jobs[0].Requires = "tag=unheard-of"
		err := third(q.Submit(t.Context(), sub))
		wantCode(t, err, qgjob.CodeUnmatched)
		if !strings.Contains(err.Error(), "p1 has no tag unheard-of") {
			t.Fatalf("error %q does not say why", err)
		}
		sub.AllowUnmatched = true
		must(t, 0, third(q.Submit(t.Context(), sub)))
		must(t, 0, q.Leave(t.Context(), "w1"))
		sub = submission("acme", "v1", "tests/c.spec.js")
		sub.Jobs[0].Requires = "device=p1"
		must(t, 0, third(q.Submit(t.Context(), sub))) // it was there, and may come back
		checkCounters(t, q)
	})
}
