package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/api"
)

func TestAJobsLife(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *running) {
		w := r.newWorker("P1")
		id := r.submit("tests/./buy.spec.js")

		q, err := r.Queue(t.Context())
		if err != nil || len(q.Entries) != 1 || q.Entries[0].Queued != 1 || q.Entries[0].AppVersionID != "v1" || q.Entries[0].Priority != 1 || q.Entries[0].Target != "any" {
			t.Errorf("queue = %+v, %v", q, err)
		}

		a := w.take("P1")
		if a.Job.ID != id || a.Job.TestPath != "tests/buy.spec.js" || a.DeviceID != "P1" || a.Number != 1 || a.Reason == "" || !strings.HasPrefix(a.Token, "1.") {
			t.Errorf("assignment %+v", a)
		}
		if beat, err := w.Heartbeat(t.Context(), w.id, api.HeartbeatRequest{Devices: phones("P1"), Leases: []api.Lease{a.Lease}}); err != nil || len(beat.Lost)+len(beat.Cancel) > 0 {
			t.Errorf("heartbeat = %+v, %v", beat, err)
		}
		if q, err := r.Queue(t.Context()); err != nil || q.Running != 1 || len(q.Entries) != 0 {
			t.Errorf("queue = %+v, %v", q, err)
		}
		if answer := w.report(a.Lease, passed); answer.Code != "" || answer.Trigger != qgjob.Pass || answer.State != qgjob.Passed {
			t.Errorf("result answered with %+v", answer)
		}

		var triggers []qgjob.Trigger
		if err := r.WatchJob(t.Context(), id, 0, func(e qgjob.Event) error { triggers = append(triggers, e.Trigger); return nil }); err != nil {
			t.Fatal(err)
		}
		if want := []qgjob.Trigger{qgjob.Submit, qgjob.Assign, qgjob.Pass}; !slices.Equal(triggers, want) {
			t.Errorf("events %v, want %v", triggers, want)
		}
		job, err := r.Job(t.Context(), id)
		if err != nil || job.State != qgjob.Passed || len(job.AttemptList) != 1 || len(job.Events) != 3 || job.AttemptList[0].Report.InstallMS != 1200 {
			t.Errorf("job = %+v, %v", job, err)
		}
		run, err := r.Run(t.Context(), job.RunID)
		if err != nil || run.State != qgjob.Passed || len(run.Jobs) != 1 {
			t.Errorf("run = %+v, %v", run, err)
		}
		devices, err := r.Devices(t.Context())
		if err != nil || len(devices.Devices) != 1 || devices.Devices[0].ID != "P1" || devices.Devices[0].Installs != 1 {
			t.Errorf("devices = %+v, %v", devices, err)
		}
		if err := w.Leave(t.Context(), w.id, api.LeaveRequest{Reason: "idle"}); err != nil {
			t.Error(err)
		}
		if h, err := r.Health(t.Context()); err != nil || h.Status != "ok" || h.Store.Kind != r.store.Kind() || h.Workers.Alive != 0 || h.Workers.LastSeenMS == 0 {
			t.Errorf("health = %+v, %v", h, err)
		}
	})
}

func TestAnIdempotencyKeyNamesOneRun(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *running) {
		const body = `{"org_id":"acme","app_version_id":"v1","jobs":[{"test_path":%q}],"idempotency_key":"k"}`
		first := r.post("/v1/runs", fmt.Sprintf(body, "a.spec.js"))
		again := r.post("/v1/runs", fmt.Sprintf(body, "./a.spec.js")) // the same by another spelling
		if first.status != http.StatusCreated || again.status != http.StatusOK || first.body != again.body {
			t.Errorf("answers %d %s and %d %s", first.status, first.body, again.status, again.body)
		}
		other := r.post("/v1/runs", fmt.Sprintf(body, "b.spec.js"))
		if p := other.problem(t); other.status != http.StatusConflict || p.Code != qgjob.CodeConflict {
			t.Errorf("another body under the key: %d %+v", other.status, p)
		}
	})
}

// soon bounds what must happen by a wake-up: well below the second after which a timer would do it.
const soon = 400 * time.Millisecond

func TestAPollIsWokenByASubmit(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *running) {
		w := r.newWorker("P1")
		best := time.Hour
		for range 5 {
			type polled struct {
				answer api.PollResponse
				err    error
				at     time.Time
			}
			got := make(chan polled)
			seq := w.seq + 1
			go func() {
				answer, err := w.ask(20*time.Second, "P1")
				got <- polled{answer, err, time.Now()}
			}()
			r.untilWaiting(w.id, seq, "P1")
			submitted := time.Now()
			r.submit("a.spec.js")
			p := <-got
			if p.err != nil || len(p.answer.Assignments) != 1 {
				t.Fatalf("poll = %+v, %v", p.answer, p.err)
			}
			best = min(best, p.at.Sub(submitted))
			w.report(p.answer.Assignments[0].Lease, passed)
		}
		t.Logf("from the submit to the assignment: %v", best)
		if best > 100*time.Millisecond {
			t.Errorf("the fastest of five wake-ups took %v", best)
		}
	})
}

// untilWaiting returns when the store knows that the worker's poll waits.
func (r *running) untilWaiting(workerID string, seq int64, free ...string) {
	r.t.Helper()
	for {
		a, err := r.store.Assignments(r.t.Context(), workerID, seq-1, free)
		if err != nil {
			r.t.Fatal(err)
		}
		if a.Superseded { // by the poll that is awaited
			return
		}
	}
}

func TestANewerPollSupersedes(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *running) {
		w := r.newWorker("P1")
		older := make(chan api.PollResponse)
		go func() {
			answer, err := r.Poll(t.Context(), w.id, api.PollRequest{Seq: 1, WaitMS: 30_000, Devices: []string{"P1"}})
			if err != nil {
				t.Error(err)
			}
			older <- answer
		}()
		r.untilWaiting(w.id, 1)
		newer := make(chan api.PollResponse)
		go func() {
			answer, err := r.Poll(t.Context(), w.id, api.PollRequest{Seq: 2, WaitMS: 30_000, Devices: []string{"P1"}})
			if err != nil {
				t.Error(err)
			}
			newer <- answer
		}()
		start := time.Now()
		if a := <-older; !a.Superseded || len(a.Assignments) > 0 {
			t.Errorf("older poll answered with %+v", a)
		}
		if took := time.Since(start); took > soon {
			t.Errorf("the older poll was answered after %v", took)
		}
		r.submit("a.spec.js")
		if a := <-newer; a.Superseded || len(a.Assignments) != 1 {
			t.Errorf("newer poll answered with %+v", a)
		}
	})
}

func TestAPollWhoseClientLeftGetsNoJob(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *running) {
		w := r.newWorker("P1")
		ctx, leave := context.WithCancel(t.Context())
		gone := make(chan error)
		go func() {
			_, err := r.Poll(ctx, w.id, api.PollRequest{Seq: 1, WaitMS: 30_000, Devices: []string{"P1"}})
			gone <- err
		}()
		r.untilWaiting(w.id, 1)
		leave()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Fatalf("poll = %v", err)
		}
		w.seq = 1
		// The server notices the leaving in its own time; the job is given out once at any rate.
		id := r.submit("a.spec.js")
		a := w.take("P1")
		if a.Job.ID != id {
			t.Errorf("assignment %+v", a)
		}
		if job, err := r.Job(t.Context(), id); err != nil || job.Attempts != 1 {
			t.Errorf("job = %+v, %v; want one attempt", job, err)
		}
	})
}

func TestAPollWithoutWorkEndsInTime(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *running) {
		w := r.newWorker("P1")
		start := time.Now()
		answer, err := w.ask(150*time.Millisecond, "P1")
		if took := time.Since(start); err != nil || len(answer.Assignments) > 0 || took < 150*time.Millisecond || took > 150*time.Millisecond+soon {
			t.Errorf("poll = %+v, %v after %v", answer, err, took)
		}
		// The device does not wait any more: a job that comes now stays in the queue until the next poll.
		id := r.submit("a.spec.js")
		if _, err := r.store.Dispatch(t.Context()); err != nil {
			t.Fatal(err)
		}
		if job, err := r.Job(t.Context(), id); err != nil || job.State != qgjob.Queued {
			t.Errorf("job = %+v, %v; want queued", job, err)
		}
	})
}

func TestCancel(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *running) {
		w := r.newWorker("P1")
		running, queued := r.submit("a.spec.js"), r.submit("b.spec.js")
		a := w.take("P1")
		if a.Job.ID != running {
			t.Fatalf("first assignment is %+v", a.Job)
		}

		if job, err := r.Cancel(t.Context(), queued); err != nil || job.State != qgjob.Canceled {
			t.Errorf("cancel of the queued job = %+v, %v", job, err)
		}

		heard := make(chan api.PollResponse)
		go func() {
			w.seq++
			answer, err := r.Poll(t.Context(), w.id, api.PollRequest{Seq: w.seq, WaitMS: 20_000, Leases: []api.Lease{a.Lease}})
			if err != nil {
				t.Error(err)
			}
			heard <- answer
		}()
		r.untilWaiting(w.id, 2)
		if job, err := r.Cancel(t.Context(), running); err != nil || job.State != qgjob.Canceling {
			t.Errorf("cancel of the running job = %+v, %v", job, err)
		}
		if answer := <-heard; !slices.Equal(answer.Cancel, []string{a.AttemptID}) {
			t.Errorf("the waiting poll heard %+v", answer)
		}
		if beat, err := w.Heartbeat(t.Context(), w.id, api.HeartbeatRequest{Devices: phones("P1"), Leases: []api.Lease{a.Lease}}); err != nil || !slices.Equal(beat.Cancel, []string{a.AttemptID}) {
			t.Errorf("heartbeat = %+v, %v", beat, err)
		}
		if answer := w.report(a.Lease, qgjob.Result{Outcome: qgjob.OutcomeCanceled, Cause: qgjob.CauseCanceled}); answer.Code != "" || answer.State != qgjob.Canceled {
			t.Errorf("result answered with %+v", answer)
		}
		if job, err := r.Cancel(t.Context(), running); err != nil || job.State != qgjob.Canceled {
			t.Errorf("cancel of a canceled job = %+v, %v", job, err)
		}
	})
}

func TestAnAnsweredPollWaitsNoMore(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *running) {
		w := r.newWorker("P1", "P2")
		id := r.submit("a.spec.js")
		a := w.take("P1")
		heard := make(chan api.PollResponse)
		go func() {
			w.seq++
			answer, err := r.Poll(t.Context(), w.id, api.PollRequest{Seq: w.seq, WaitMS: 50_000, Devices: []string{"P2"}, Leases: []api.Lease{a.Lease}})
			if err != nil {
				t.Error(err)
			}
			heard <- answer
		}()
		r.untilWaiting(w.id, 2)
		if _, err := r.Cancel(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if answer := <-heard; !slices.Equal(answer.Cancel, []string{a.AttemptID}) || len(answer.Assignments) > 0 {
			t.Errorf("the waiting poll heard %+v", answer)
		}
		// P2 asked for 50 seconds, but its poll was answered: what is assigned now would reach nobody.
		run, err := r.Submit(t.Context(), api.SubmitRequest{OrgID: "acme", AppVersionID: "v2", Jobs: []api.JobSpec{{TestPath: "b.spec.js"}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.store.Dispatch(t.Context()); err != nil {
			t.Fatal(err)
		}
		if job, err := r.Job(t.Context(), run.Jobs[0].ID); err != nil || job.State != qgjob.Queued {
			t.Errorf("job = %+v, %v; want queued", job, err)
		}
	})
}

func TestResultsAreRefusedOneByOne(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *running) {
		w := r.newWorker("P1", "P2")
		r.submit("a.spec.js")
		a := w.take("P1", "P2")
		madeUp := a.Lease
		madeUp.Token = "1.made-up"
		w.seq++
		answer, err := r.Poll(t.Context(), w.id, api.PollRequest{Seq: w.seq, Results: []api.AttemptResult{
			{Lease: madeUp, Result: passed}, {Lease: a.Lease, Result: failed},
		}})
		if err != nil || len(answer.Results) != 2 {
			t.Fatalf("poll = %+v, %v", answer, err)
		}
		if got := answer.Results[0]; got.Code != qgjob.CodeLeaseLost || got.Message == "" {
			t.Errorf("made-up token: %+v", got)
		}
		if got := answer.Results[1]; got.Code != "" || got.Trigger != qgjob.Retry || got.Retry != 1 || got.Retries != qgjob.TestRetries {
			t.Errorf("first failure: %+v", got)
		}
		if got := w.report(a.Lease, failed); got.Code != "" {
			t.Errorf("the same result again: %+v, want accepted", got)
		}
		if got := w.report(a.Lease, passed); got.Code != qgjob.CodeConflict {
			t.Errorf("a result that contradicts the recorded one: %+v", got)
		}
	})
}

func TestAnUnknownWorkerIsToldToRegister(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *running) {
		id := newUUID()
		if _, err := r.Heartbeat(t.Context(), id, api.HeartbeatRequest{}); qgjob.ErrorCode(err) != qgjob.CodeNotFound {
			t.Errorf("heartbeat = %v", err)
		}
		if _, err := r.Poll(t.Context(), id, api.PollRequest{Seq: 1}); qgjob.ErrorCode(err) != qgjob.CodeNotFound {
			t.Errorf("poll = %v", err)
		}
	})
}

func TestALogIsFollowedWhileItGrows(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *running) {
		w := r.newWorker("P1")
		id := r.submit("a.spec.js")
		if chunk, err := r.Log(t.Context(), id, 0, 0, 0); err != nil || chunk.Attempt != 0 || chunk.Ended || len(chunk.Data) > 0 {
			t.Errorf("log of a queued job = %+v, %v", chunk, err)
		}
		var out bytes.Buffer
		followed := make(chan error)
		go func() {
			n, err := r.FollowLog(t.Context(), id, 0, &out)
			if n != 1 {
				t.Errorf("followed attempt %d", n)
			}
			followed <- err
		}()
		a := w.take("P1")
		for _, chunk := range []struct {
			offset int64
			data   string
			size   int64
		}{{0, "one\n", 4}, {0, "one\n", 4}, {4, "two\n", 8}, {2, "e\ntwo\nthree\n", 14}} {
			if got, err := r.AppendLog(t.Context(), a.Lease, chunk.offset, []byte(chunk.data)); err != nil || got.Size != chunk.size {
				t.Errorf("append at %d = %+v, %v", chunk.offset, got, err)
			}
		}
		start := time.Now()
		if chunk, err := r.Log(t.Context(), id, 1, 8, 10*time.Second); err != nil || string(chunk.Data) != "three\n" || chunk.Next != 14 || chunk.Ended {
			t.Errorf("log from 8 = %+v, %v", chunk, err)
		}
		w.report(a.Lease, passed)
		if err := <-followed; err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 2*soon {
			t.Errorf("the end of the log was seen after %v", took)
		}
		if out.String() != "one\ntwo\nthree\n" {
			t.Errorf("followed: %q", out.String())
		}
		madeUp := api.Lease{AttemptID: a.AttemptID, Token: "1.made-up"}
		if _, err := r.AppendLog(t.Context(), madeUp, 14, []byte("x")); qgjob.ErrorCode(err) != qgjob.CodeLeaseLost {
			t.Errorf("append with a made-up token = %v", err)
		}
		if _, err := r.AppendLog(t.Context(), a.Lease, 14, bytes.Repeat([]byte("x"), api.MaxLogChunk+1)); qgjob.ErrorCode(err) != qgjob.CodeTooLarge {
			t.Errorf("append of too much = %v", err)
		}
	})
}
