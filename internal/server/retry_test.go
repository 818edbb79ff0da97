package server_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"qgjob"
	"qgjob/internal/api"
)

// A run that is run again is submitted as it was.
func TestARetryAsksForTheSame(t *testing.T) {
	r := start(t)
	priority := 7
	first, err := r.Submit(t.Context(), api.SubmitRequest{
		OrgID: "acme", AppVersionID: "v1", AllowUnmatched: true, Project: "phone", ConfigPath: "appwright.config.ts",
		Jobs:        []api.JobSpec{{TestPath: "tests/a.spec.js", Shard: "1/2", Priority: &priority, Target: "device", Requires: "os>=12"}, {TestPath: "tests/b.spec.js"}},
		Env:         map[string]string{"STAGE": "beta"},
		CI:          &qgjob.CI{System: "github", Repository: "acme/shop", Branch: "main"},
		MaxFailures: 3, Video: "retain-on-failure", QueueTimeoutSeconds: 90, DeadlineSeconds: 1200, MaxCost: 5,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.CancelRun(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	again, err := r.RetryRun(t.Context(), first.ID, api.RetryRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if again.PreviousID != first.ID || again.QueueTimeoutSeconds != 90 {
		t.Errorf("again: previous %s, queue timeout of %d s", again.PreviousID, again.QueueTimeoutSeconds)
	}
	if again, err = r.Run(t.Context(), again.ID); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, again,
		cmpopts.IgnoreFields(qgjob.Run{}, "ID", "PreviousID", "SubmittedAt", "Deadline"),
		cmpopts.IgnoreFields(qgjob.Job{}, "ID", "RunID", "SubmittedAt"),
	); diff != "" {
		t.Errorf("(-first +again)\n%s", diff)
	}
	if from := first.Deadline.Sub(first.SubmittedAt); again.Deadline.Sub(again.SubmittedAt).Round(1e9) != from.Round(1e9) {
		t.Errorf("a deadline of %s became %s", from, again.Deadline.Sub(again.SubmittedAt))
	}
}

// What passed in a run needs no deadline again, and what asks for BrowserStack has none.
func TestARetryOfWhatAsksForBrowserStack(t *testing.T) {
	r := start(t)
	first, err := r.Submit(t.Context(), api.SubmitRequest{
		OrgID: "acme", AppVersionID: "v1", AllowUnmatched: true, DeadlineSeconds: 60, MaxCost: 5,
		Jobs: []api.JobSpec{{TestPath: "tests/a.spec.js"}, {TestPath: "tests/a.spec.js", Target: "browserstack"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w := r.newWorker("P1")
	w.report(w.take("P1").Lease, passed)
	if _, err := r.CancelRun(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	again, err := r.RetryRun(t.Context(), first.ID, api.RetryRequest{Failed: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(again.Jobs) != 1 || again.Jobs[0].Target != qgjob.TargetBrowserStack || again.Deadline != nil {
		t.Errorf("again: %d jobs, deadline %v", len(again.Jobs), again.Deadline)
	}
}
