package store

import (
	"math"
	"slices"
	"testing"
	"time"

	"qgjob"
)

// TestHistory: the past has each job that an attempt brought to its verdict, with the run time of that attempt.
func TestHistory(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		timed := passed
		timed.Report.RunMS, timed.Report.InstallMS, timed.Report.ResetMS = 41_000, 9000, 700
		untimed := failed
		untimed.Report.InstallMS, untimed.Report.ResetMS = 9000, 1000

		old := q.submit("v1", "old.spec.ts")[0]
		q.worker("w", "p1")
		q.report("w", q.one("w", "p1").Lease, timed)
		q.advance(time.Hour)
		retried := q.submit("v1", "retried.spec.ts")[0]
		for range 2 {
			q.report("w", q.one("w", "p1").Lease, failed)
		}
		last := q.one("w", "p1").Lease
		q.advance(25 * time.Second)
		q.report("w", last, untimed)
		other := q.submitRun(submission("zeta", "v2", "z.spec.ts")).Jobs[0]
		q.report("w", q.one("w", "p1").Lease, timed)
		canceled := q.submit("v1", "canceled.spec.ts")[0]
		if _, err := q.Cancel(t.Context(), "", canceled.ID); err != nil {
			t.Fatal(err)
		}
		again := q.submit("v1", "again.spec.ts")[0]
		q.report("w", q.one("w", "p1").Lease, failed) // and waits for its retry

		since := retried.SubmittedAt.Add(-time.Minute)
		get := func(f HistoryFilter) (ids []string, ran []time.Duration, leftOut int) {
			for {
				h, err := q.History(t.Context(), f)
				if err != nil {
					t.Fatal(err)
				}
				leftOut += h.LeftOut
				for _, j := range h.Jobs {
					ids, ran = append(ids, j.ID), append(ran, j.Ran)
				}
				if f.Cursor = h.Next; f.Cursor == "" {
					return ids, ran, leftOut
				}
			}
		}
		for _, limit := range []int{0, 1, 2, 3} { // pages change nothing
			ids, ran, leftOut := get(HistoryFilter{Since: since, Limit: limit})
			if !slices.Equal(ids, []string{retried.ID, other.ID}) || leftOut != 2 {
				t.Fatalf("pages of %d: %v and %d left out, want %s and %s, without %s and %s", limit, ids, leftOut, retried.ID, other.ID, canceled.ID, again.ID)
			}
			// The clock goes on while the test does; what was reported is exact.
			if ran[0] < 15*time.Second || ran[0] > time.Minute || ran[1] != 41*time.Second {
				t.Fatalf("they ran %v", ran)
			}
			if ids, _, leftOut := get(HistoryFilter{OrgID: "zeta", Since: since, Limit: limit}); !slices.Equal(ids, []string{other.ID}) || leftOut != 0 {
				t.Fatalf("of zeta: %v and %d left out", ids, leftOut)
			}
			if ids, _, leftOut := get(HistoryFilter{OrgID: "acme", Since: time.UnixMilli(0), Limit: limit}); !slices.Equal(ids, []string{old.ID, retried.ID}) || leftOut != 2 {
				t.Fatalf("of acme: %v and %d left out", ids, leftOut)
			}
			if ids, _, _ := get(HistoryFilter{Since: time.UnixMilli(0), Limit: limit}); !slices.Equal(ids, []string{old.ID, retried.ID, other.ID}) {
				t.Fatalf("since ever: %v", ids)
			}
			if ids, _, leftOut := get(HistoryFilter{Since: again.SubmittedAt.Add(time.Minute), Limit: limit}); len(ids) != 0 || leftOut != 0 {
				t.Fatalf("of the future: %v and %d left out", ids, leftOut)
			}
		}
		wantCode(t, second(q.History(t.Context(), HistoryFilter{OrgID: "zeta", Cursor: retried.ID})), qgjob.CodeInvalid)
	})
}

// TestFleetHasLearnedTimes: what devices took is in the fleet, and how far it was from what was expected in the errors.
func TestFleetHasLearnedTimes(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		off, err := q.EstimateErrors(t.Context())
		if err != nil || len(off) != 0 {
			t.Fatalf("errors of nothing: %v, %v", off, err)
		}
		if err := q.SetOrganization(t.Context(), Organization{ID: "acme", WeightPermille: 2500, MaxDevices: 3}); err != nil {
			t.Fatal(err)
		}
		q.submit("v1", "a.spec.ts", "b.spec.ts", "c.spec.ts")
		q.worker("w", "p1")
		timed := passed
		timed.Report.RunMS, timed.Report.InstallMS, timed.Report.ResetMS = 60_000, 60_000, 4000
		for range 3 {
			q.report("w", q.one("w", "p1").Lease, timed)
		}
		devices, shares, err := q.Fleet(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		if want := []FleetTimes{{"p1", qgjob.TargetDevice, time.Minute, 4 * time.Second, 0}}; !slices.Equal(devices, want) {
			t.Errorf("devices %v, want %v", devices, want)
		}
		if want := []Share{{"acme", 2.5, 3, 0}}; !slices.Equal(shares, want) {
			t.Errorf("shares %v, want %v", shares, want)
		}
		if _, shares, err = q.Fleet(t.Context(), "zeta"); err != nil || len(shares) != 0 {
			t.Errorf("zeta sees %v, %v", shares, err)
		}
		if off, err = q.EstimateErrors(t.Context()); err != nil {
			t.Fatal(err)
		}
		// 30 s and 2 s were expected at first, then the middle of that and of what was seen, then what was seen.
		want := (0.5 + 0.25 + 0) / 3
		for _, kind := range []string{"install", "reset"} {
			if math.Abs(off[kind]-want) > 0.1 {
				t.Errorf("%s times were off by %v, want about %v", kind, off[kind], want)
			}
		}
		if off["run"] <= 0 || off["run"] >= 1 {
			t.Errorf("run times were off by %v", off["run"])
		}
		heartbeat(t, q, "w", nil, nil)
		if devices, _, err = q.Fleet(t.Context(), ""); err != nil || len(devices) != 0 {
			t.Errorf("without devices: %v, %v", devices, err)
		}
	})
}
