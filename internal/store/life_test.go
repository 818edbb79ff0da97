package store

import (
	"strings"
	"testing"

	"qgjob"
)

func TestLifeOfAPassingJob(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		j := q.submit("v1", "tests/a.spec.js")[0]
		q.worker("w1", "p1")
		a := q.one("w1", "p1")
		if a.Job.ID != j.ID || a.Job.State != qgjob.Running || a.Number != 1 || a.Reason == "" {
			t.Fatalf("assignment %+v is not the job's first attempt", a)
		}
		if number, random, _ := strings.Cut(a.Token, "."); number != "1" || len(random) != 32 {
			t.Fatalf("token %q is not <number>.<128 bits>", a.Token)
		}
		answer := q.report("w1", a.Lease, passed)
		if answer.Code != "" || answer.Trigger != qgjob.Pass || answer.State != qgjob.Passed {
			t.Fatalf("answer %+v", answer)
		}
		d := q.job(j.ID)
		wantStory(t, d, "submit>queued assign>running/1@p1 pass>passed/1@p1")
		if d.Job.State != qgjob.Passed || d.Job.Attempts != 1 || d.Job.StartedAt == nil || d.Job.EndedAt == nil || d.Job.Flaky {
			t.Fatalf("job %+v", d.Job)
		}
		got := d.Attempts[0]
		if got.Outcome != qgjob.OutcomePassed || got.WorkerID != "w1" || got.EndedAt == nil || len(got.Report.Tests) != 1 || got.Report.Tests[0].Title != "opens" {
			t.Fatalf("attempt %+v", got)
		}
		checkCounters(t, q)
	})
}

func TestTestBudgetStaysOnItsDevice(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		j := q.submit("v1", "tests/a.spec.js")[0]
		q.worker("w1", "p1", "p2")
		for n, r := range []qgjob.Result{failed, timedOut, failed} {
			got := q.wait("w1", "p1", "p2")
			if len(got) != 1 || (n > 0 && got[0].DeviceID != q.job(j.ID).Attempts[0].DeviceID) {
				t.Fatalf("attempt %d went to %+v, want the first attempt's device", n+1, got)
			}
			answer := q.report("w1", got[0].Lease, r)
			if n < 2 && (answer.Trigger != qgjob.Retry || answer.Retry != n+1 || answer.Retries != qgjob.TestRetries) {
				t.Fatalf("answer %+v, want retry %d of 2", answer, n+1)
			}
			if n == 2 && (answer.Trigger != qgjob.Fail || answer.State != qgjob.Failed) {
				t.Fatalf("answer %+v, want the verdict", answer)
			}
		}
		d := q.job(j.ID)
		if d.Job.State != qgjob.Failed || d.Job.Cause != qgjob.CauseTestFailed || d.Job.Message != "no button" || d.Job.TestFailures != 3 {
			t.Fatalf("job %+v", d.Job)
		}
		checkCounters(t, q)
	})
}

func TestFailedJobRunsElsewhereWhenItsDeviceIsBusy(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		j := q.submit("v1", "tests/a.spec.js")[0]
		q.worker("w1", "p1", "p2")
		q.report("w1", q.one("w1", "p1").Lease, failed)
		if got := q.one("w1", "p2"); got.Job.ID != j.ID {
			t.Fatalf("p2 got %+v", got)
		}
	})
}

func TestInfraBudgetTriesAnotherDeviceFirst(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		j := q.submit("v1", "tests/a.spec.js")[0]
		q.worker("w1", "p1", "p2")
		answer := q.report("w1", q.one("w1", "p1").Lease, errored)
		if answer.Trigger != qgjob.Retry || answer.Retry != 1 || answer.Retries != qgjob.InfraRetries {
			t.Fatalf("answer %+v, want retry 1 of 3", answer)
		}
		if got := q.wait("w1", "p1"); len(got) != 0 {
			t.Fatalf("p1 got %+v although p2 is alive", got)
		}
		q.report("w1", q.one("w1", "p2").Lease, errored)
		heartbeat(t, q, "w1", []string{"p2"}, nil) // p1 is gone: p2 is the only one left
		q.report("w1", q.one("w1", "p2").Lease, errored)
		answer = q.report("w1", q.one("w1", "p2").Lease, errored)
		if answer.Trigger != qgjob.Err || answer.State != qgjob.Errored {
			t.Fatalf("answer %+v, want the verdict", answer)
		}
		if got := q.job(j.ID).Job; got.InfraErrors != 4 || got.TestFailures != 0 || got.Cause != qgjob.CauseDeviceOffline {
			t.Fatalf("job %+v", got)
		}
		checkCounters(t, q)
	})
}

func TestFinalCausesEndAtOnce(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		j := q.submit("v1", "tests/a.spec.js")[0]
		q.worker("w1", "p1")
		r := qgjob.Result{Outcome: qgjob.OutcomeErrored, Cause: qgjob.CauseNoTestsMatched, Message: "no such file"}
		q.report("w1", q.one("w1", "p1").Lease, r)
		if got := q.job(j.ID).Job; got.State != qgjob.Errored || got.Cause != qgjob.CauseNoTestsMatched || got.InfraErrors != 0 {
			t.Fatalf("job %+v", got)
		}
	})
}

func TestFlakyIsPassedAtARetry(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		j := q.submit("v1", "tests/a.spec.js")[0]
		q.worker("w1", "p1")
		q.report("w1", q.one("w1", "p1").Lease, failed)
		q.report("w1", q.one("w1", "p1").Lease, passed)
		if got := q.job(j.ID).Job; got.State != qgjob.Passed || !got.Flaky || got.Cause != "" {
			t.Fatalf("job %+v", got)
		}
		devices, err := q.Devices(t.Context(), "")
		if d := must(t, devices, err)[0]; d.Installs != 1 || d.InstallsSaved != 1 || d.Installed == nil || d.Installed.BuildSHA256 != "b1" {
			t.Fatalf("device %+v, want 1 install and 1 saved", d)
		}
	})
}

func TestHandBackCostsNothingAndKeepsItsPlace(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		first := q.submit("v1", "tests/a.spec.js")[0]
		q.submit("v1", "tests/b.spec.js")
		q.worker("w1", "p1")
		if answer := q.report("w1", q.one("w1", "p1").Lease, handBack); answer.Trigger != qgjob.HandBack {
			t.Fatalf("answer %+v", answer)
		}
		if got := q.one("w1", "p1"); got.Job.ID != first.ID || got.Number != 2 || got.Job.TestFailures+got.Job.InfraErrors != 0 {
			t.Fatalf("got %+v, want the first job again", got)
		}
		if err := q.Leave(t.Context(), "w1"); err != nil {
			t.Fatal(err)
		}
		if err := q.Leave(t.Context(), "w1"); err != nil {
			t.Fatal("leaving twice:", err)
		}
		wantStory(t, q.job(first.ID), "submit>queued assign>running/1@p1 hand_back>queued/1@p1 assign>running/2@p1 hand_back>queued/2@p1")
		devices, err := q.Devices(t.Context(), "")
		if len(must(t, devices, err)) != 0 {
			t.Fatalf("devices %+v stayed", devices)
		}
		checkCounters(t, q)
	})
}

func TestCancelInEachState(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		ctx := t.Context()
		jobs := q.submit("v1", "tests/a.spec.js", "tests/b.spec.js", "tests/c.spec.js")
		q.worker("w1", "p1", "p2")
		got := must(t, first(q.Cancel(ctx, "acme", jobs[2].ID)), nil)
		if got.State != qgjob.Canceled || got.Cause != qgjob.CauseCanceled || got.EndedAt == nil {
			t.Fatalf("queued job became %+v", got)
		}
		a := q.one("w1", "p1")
		wake := q.Subscribe(TopicWorker("w1"))
		defer wake.Close()
		for range 2 { // the second changes nothing
			if got, err := q.Cancel(ctx, "acme", a.Job.ID); err != nil || got.State != qgjob.Canceling {
				t.Fatalf("running job became %+v, %v", got, err)
			}
		}
		<-wake.C
		answer, err := q.Assignments(ctx, "w1", q.polls["w1"], nil)
		if must(t, answer, err); len(answer.Cancel) != 1 || answer.Cancel[0] != a.AttemptID {
			t.Fatalf("the waiting poll hears %+v, want the cancel", answer)
		}
		if again := q.poll(Poll{WorkerID: "w1", Leases: []Lease{a.Lease}}); len(again.Cancel) != 0 {
			t.Fatalf("the next poll is answered at once by %+v", again)
		}
		if hb := heartbeat(t, q, "w1", []string{"p1", "p2"}, []Lease{a.Lease}); len(hb.Cancel) != 1 {
			t.Fatalf("the heartbeat hears %+v, want the cancel again", hb)
		}
		if answer := q.report("w1", a.Lease, passed); answer.Trigger != qgjob.Stop || answer.State != qgjob.Canceled {
			t.Fatalf("answer %+v", answer)
		}
		wantStory(t, q.job(a.Job.ID), "submit>queued assign>running/1@p1 cancel>canceling/1@p1 stop>canceled/1@p1")

		b := q.one("w1", "p1")
		q.report("w1", b.Lease, passed)
		if got, err := q.Cancel(ctx, "acme", b.Job.ID); err != nil || got.State != qgjob.Passed {
			t.Fatalf("a verdict became %+v, %v", got, err)
		}
		checkCounters(t, q)
	})
}

func first[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestCanceledJobOfADeadWorkerIsCanceled(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.submit("v1", "tests/a.spec.js")
		q.worker("w1", "p1")
		a := q.one("w1", "p1")
		first(q.Cancel(t.Context(), "acme", a.Job.ID))
		q.advance(DefaultLease)
		if n := first(q.Reap(t.Context())); n != 1 {
			t.Fatalf("reaped %d attempts, want 1", n)
		}
		wantStory(t, q.job(a.Job.ID), "submit>queued assign>running/1@p1 cancel>canceling/1@p1 stop>canceled/1@p1")
	})
}

func heartbeat(t testing.TB, q *queue, worker string, devices []string, leases []Lease) HeartbeatAnswer {
	t.Helper()
	a, err := q.Heartbeat(t.Context(), worker, phones(devices), leases)
	return must(t, a, err)
}

func TestResultsAreAcceptedOnce(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		j := q.submit("v1", "tests/a.spec.js")[0]
		q.worker("w1", "p1")
		q.worker("w2", "p2")
		a := q.one("w1", "p1")
		made := Lease{AttemptID: a.AttemptID, Token: "1.00000000000000000000000000000000"}
		if answer := q.report("w1", made, passed); answer.Code != qgjob.CodeLeaseLost {
			t.Fatalf("a made-up token: %+v", answer)
		}
		if answer := q.report("w2", a.Lease, passed); answer.Code != qgjob.CodeLeaseLost {
			t.Fatalf("another worker: %+v", answer)
		}
		if answer := q.report("w1", Lease{"nothing", "1.0"}, passed); answer.Code != qgjob.CodeLeaseLost {
			t.Fatalf("an attempt that does not exist: %+v", answer)
		}
		if answer := q.report("w1", a.Lease, qgjob.Result{Outcome: qgjob.OutcomePassed}); answer.Code != qgjob.CodeInvalid {
			t.Fatalf("passed without a test: %+v", answer)
		}
		if answer := q.report("w1", a.Lease, stopped); answer.Code != qgjob.CodeConflict {
			t.Fatalf("canceled though nobody asked: %+v", answer)
		}
		if got := q.job(j.ID).Job.State; got != qgjob.Running {
			t.Fatalf("the job is %s after refused results", got)
		}
		once := q.report("w1", a.Lease, failed)
		if twice := q.report("w1", a.Lease, failed); twice != once || twice.Trigger != qgjob.Retry {
			t.Fatalf("the same result again: %+v, before %+v", twice, once)
		}
		if other := q.report("w1", a.Lease, passed); other.Code != qgjob.CodeConflict {
			t.Fatalf("a contradicting result: %+v", other)
		}
		d := q.job(j.ID)
		wantStory(t, d, "submit>queued assign>running/1@p1 retry>queued/1@p1")
		if d.Job.TestFailures != 1 {
			t.Fatalf("the duplicate cost budget: %+v", d.Job)
		}
		both := q.poll(Poll{WorkerID: "w1", Results: []AttemptResult{{q.one("w1", "p1").Lease, passed}, {a.Lease, failed}}})
		if both.Results[0].State != qgjob.Passed || both.Results[1].Code != "" {
			t.Fatalf("answers %+v", both.Results)
		}
	})
}

func TestUrgentFirstThenFirstInFirstOut(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		var want []string
		q.submit("v1", "tests/late.spec.js")
		for i, priority := range []int{5, 0, 3, 0} {
			sub := submission([]string{"acme", "zeta"}[i%2], "v1", "tests/a.spec.js", "tests/b.spec.js")
			for n := range sub.Jobs {
				sub.Jobs[n].Priority = priority
			}
			run, _, err := q.Submit(t.Context(), sub)
			must(t, run, err)
			want = append(want, run.Jobs[0].ID, run.Jobs[1].ID)
		}
		want = []string{want[2], want[3], want[6], want[7]} // both runs of priority 0
		q.worker("w1", "p1")
		for i, id := range want {
			a := q.one("w1", "p1")
			if a.Job.ID != id {
				t.Fatalf("job %d is %+v, want %s", i, a.Job, id)
			}
			q.report("w1", a.Lease, passed)
		}
		if a := q.one("w1", "p1"); a.Job.TestPath != "tests/late.spec.js" {
			t.Fatalf("then came %+v, want the job of priority 1", a.Job)
		}
	})
}

func TestJobsHandedBackTogetherKeepTheirOrder(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		jobs := q.submit("v1", "tests/a.spec.js", "tests/b.spec.js", "tests/c.spec.js")
		q.worker("w1", "p1", "p2", "p3")
		got := q.wait("w1", "p1", "p2", "p3")
		leases := map[string]Lease{}
		for _, a := range got {
			leases[a.Job.ID] = a.Lease
		}
		q.poll(Poll{WorkerID: "w1", Results: []AttemptResult{{leases[jobs[1].ID], handBack}, {leases[jobs[0].ID], handBack}}})
		for _, want := range jobs[:2] {
			a := q.one("w1", "p1")
			if a.Job.ID != want.ID {
				t.Fatalf("got %s, want %s", a.Job.TestPath, want.TestPath)
			}
			q.report("w1", a.Lease, passed)
		}
		checkCounters(t, q)
	})
}
