package server

import (
	"log/slog"
	"path/filepath"
	"testing"

	"qgjob"
	"qgjob/internal/store"
)

// TestReview: the rule quarantines a test that was flaky on two code states, not one that always fails, and
// lets a quarantined one return after twenty passes.
func TestReview(t *testing.T) {
	st, err := store.Open(t.Context(), store.Options{Path: filepath.Join(t.TempDir(), "q.db"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	s := &Server{store: st, log: slog.New(slog.DiscardHandler), byRule: true}
	if _, err := st.Register(t.Context(), "w", "host", "test", []store.DeviceReport{{ID: "p", Serial: "p", Kind: qgjob.TargetDevice, Platform: "android", State: qgjob.DeviceIdle}}); err != nil {
		t.Fatal(err)
	}
	seq := int64(0)
	poll := func(p store.Poll) store.PollAnswer {
		t.Helper()
		seq++
		p.WorkerID, p.Seq, p.Wait = "w", seq, 1e9
		answer, err := st.Poll(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	// run runs a spec on a code state; each letter is an attempt, which passes (p) or fails (f).
	run := func(spec, bundle, attempts string) {
		t.Helper()
		sub := store.Submission{OrgID: "acme", AppVersionID: "v", BundleSHA256: bundle, Jobs: []store.JobSpec{{TestPath: spec, Priority: 1, Target: qgjob.TargetAny}}}
		up, err := st.BeginUpload(t.Context(), "acme", store.BundleUpload, bundle)
		if err == nil {
			err = st.AddBundle(t.Context(), up)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := st.Submit(t.Context(), sub); err != nil {
			t.Fatal(err)
		}
		for _, letter := range attempts {
			got := poll(store.Poll{Free: []string{"p"}})
			if len(got.Assignments) != 1 {
				t.Fatalf("%+v", got)
			}
			r := qgjob.Result{Outcome: qgjob.OutcomePassed, Report: qgjob.Report{Tests: []qgjob.TestResult{{Title: "t", Status: qgjob.TestPassed}}}}
			if letter == 'f' {
				r.Outcome, r.Cause = qgjob.OutcomeFailed, qgjob.CauseTestFailed
				r.Report.Tests[0].Status = qgjob.TestFailed
			}
			poll(store.Poll{Results: []store.AttemptResult{{Lease: got.Assignments[0].Lease, Result: r}}})
		}
	}
	quarantined := func() []string {
		t.Helper()
		if err := s.review(t.Context()); err != nil {
			t.Fatal(err)
		}
		list, err := st.Quarantined(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		var specs []string
		for _, q := range list {
			specs = append(specs, q.TestPath)
		}
		return specs
	}
	run("shaky.spec.ts", "one", "fp")
	run("broken.spec.ts", "one", "fff")
	if got := quarantined(); len(got) != 0 {
		t.Errorf("after one code state %v are quarantined", got)
	}
	run("shaky.spec.ts", "two", "fp")
	run("broken.spec.ts", "two", "fff")
	if got := quarantined(); len(got) != 1 || got[0] != "shaky.spec.ts" {
		t.Errorf("after two code states %v are quarantined", got)
	}
	for range 19 {
		run("shaky.spec.ts", "three", "p")
	}
	if got := quarantined(); len(got) != 1 {
		t.Errorf("after nineteen passes %v are quarantined", got)
	}
	run("shaky.spec.ts", "three", "p")
	if got := quarantined(); len(got) != 0 {
		t.Errorf("after twenty passes %v are quarantined", got)
	}
}
