package store

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"qgjob"
)

func TestLeaseExpiry(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		j := q.submit("v1", "tests/a.spec.js")[0]
		q.worker("w1", "p1")
		a := q.one("w1", "p1")
		for range 3 {
			q.advance(30 * time.Second)
			if hb := heartbeat(t, q, "w1", []string{"p1"}, []Lease{a.Lease}); len(hb.Lost) != 0 {
				t.Fatalf("heartbeat says %+v", hb)
			}
			if n := first(q.Reap(t.Context())); n != 0 {
				t.Fatalf("reaped %d of a worker that is alive", n)
			}
		}
		q.worker("w2", "p2")
		q.advance(DefaultLease)
		if n := first(q.Reap(t.Context())); n != 1 {
			t.Fatalf("reaped %d, want 1", n)
		}
		if n := first(q.Reap(t.Context())); n != 0 {
			t.Fatalf("reaped %d again", n)
		}
		d := q.job(j.ID)
		if got := d.Attempts[0]; got.Outcome != qgjob.OutcomeLost || got.Cause != qgjob.CauseLeaseExpired || d.Job.InfraErrors != 1 {
			t.Fatalf("attempt %+v of %+v", got, d.Job)
		}
		// The worker wakes up late.
		_, err := q.Heartbeat(t.Context(), "w1", phones([]string{"p1"}), []Lease{a.Lease})
		wantCode(t, err, qgjob.CodeNotFound)
		_, err = q.Poll(t.Context(), Poll{WorkerID: "w1", Seq: 99, Results: []AttemptResult{{a.Lease, passed}}})
		wantCode(t, err, qgjob.CodeNotFound)
		q.worker("w1", "p1")
		if hb := heartbeat(t, q, "w1", []string{"p1"}, []Lease{a.Lease}); len(hb.Lost) != 1 || hb.Lost[0] != a.AttemptID {
			t.Fatalf("heartbeat says %+v, want the lease lost", hb)
		}
		if answer := q.report("w1", a.Lease, passed); answer.Code != qgjob.CodeLeaseLost {
			t.Fatalf("a late result: %+v", answer)
		}
		q.worker("w3", "p3")
		if got := q.one("w3", "p3"); got.Job.ID != j.ID || got.Number != 2 || !strings.HasPrefix(got.Token, "2.") {
			t.Fatalf("got %+v", got)
		}
		checkCounters(t, q)
	})
}

// A database that stood still lets the reaping run before the heartbeats that wait behind it.
func TestReapThatComesTooLateEndsNothing(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.submit("v1", "tests/a.spec.js")
		q.worker("w1", "p1")
		q.one("w1", "p1")
		release := q.hold()
		entered, leave := make(chan struct{}), make(chan struct{})
		var stall sync.Once
		ended := make(chan error, 2)
		go func() {
			ended <- q.write(t.Context(), func(context.Context, *tx) error {
				stall.Do(func() { close(entered) })
				<-leave
				return nil
			})
		}()
		q.queued(1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { ended <- second(q.Reap(ctx)) }()
		q.queued(2)
		q.advance(2 * DefaultLease)
		release()
		<-entered
		cancel()
		close(leave)
		for range 2 {
			if err := <-ended; err != nil {
				wantCode(t, err, qgjob.CodeUnavailable)
			}
		}
		if st := first(q.Stats(t.Context())); st.Jobs[qgjob.Running] != 1 {
			t.Fatalf("jobs %v, want the one that runs left alone", st.Jobs)
		}
	})
}

func TestLostAnswers(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		j := q.submit("v1", "tests/a.spec.js")[0]
		q.worker("w1", "p1")
		a := q.one("w1", "p1")
		again := q.poll(Poll{WorkerID: "w1", Free: []string{"p1"}})
		if len(again.Assignments) != 1 || again.Assignments[0].Lease != a.Lease {
			t.Fatalf("the next poll got %+v, want the same attempt", again)
		}
		if known := q.poll(Poll{WorkerID: "w1", Leases: []Lease{a.Lease}}); len(known.Assignments) != 0 {
			t.Fatalf("a known lease was handed out again: %+v", known)
		}
		q.submit("v1", "tests/b.spec.js")
		first(q.Dispatch(t.Context()))
		if d := q.job(j.ID); len(d.Attempts) != 1 || first(q.Stats(t.Context())).Jobs[qgjob.Queued] != 1 {
			t.Fatalf("a busy device got more than %+v", d.Attempts)
		}
	})
}

// A worker that gave an attempt up, because its result was refused, does not get the same attempt again and
// again: the attempt ends with its lease and spends the job's budget.
func TestAnAttemptThatWasGivenUpEndsWithItsLease(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		j := q.submit("v1", "tests/a.spec.js")[0]
		q.worker("w1", "p1")
		a := q.one("w1", "p1")
		heartbeat(t, q, "w1", []string{"p1"}, []Lease{a.Lease})
		if answer := q.report("w1", a.Lease, qgjob.Result{Outcome: qgjob.OutcomePassed}); answer.Code != qgjob.CodeInvalid {
			t.Fatalf("passed without a test: %+v", answer)
		}
		if got := q.wait("w1", "p1"); len(got) != 0 {
			t.Fatalf("the attempt was handed out again: %+v", got)
		}
		q.advance(DefaultLease)
		heartbeat(t, q, "w1", []string{"p1"}, nil)
		first(q.Reap(t.Context()))
		if d := q.job(j.ID); d.Job.State != qgjob.Queued || d.Job.InfraErrors != 1 {
			t.Fatalf("job %+v, want it queued at the cost of one infrastructure error", d.Job)
		}
	})
}

// A worker that was forgotten and registers again asks again: nothing waits by the poll that it had out.
func TestAPollOfAForgottenWorkerEnds(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.worker("w1", "p1")
		q.poll(Poll{WorkerID: "w1", Free: []string{"p1"}})
		q.advance(DefaultLease)
		first(q.Reap(t.Context()))
		q.worker("w1", "p1")
		answer, err := q.Assignments(t.Context(), "w1", q.polls["w1"], []string{"p1"})
		if must(t, answer, err); !answer.Superseded {
			t.Fatalf("the poll goes on waiting: %+v", answer)
		}
	})
}

func TestNeverDeliveredCostsNothing(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		j := q.submit("v1", "tests/a.spec.js")[0]
		q.worker("w1", "p1")
		q.one("w1", "p1")
		for range 3 {
			q.advance(20 * time.Second)
			heartbeat(t, q, "w1", []string{"p1"}, nil) // alive, but does not know the lease
		}
		if n := first(q.Reap(t.Context())); n != 1 {
			t.Fatalf("reaped %d, want 1", n)
		}
		d := q.job(j.ID)
		if d.Attempts[0].Cause != qgjob.CauseNotDelivered || d.Job.InfraErrors != 0 || d.Job.State != qgjob.Queued {
			t.Fatalf("attempt %+v of %+v", d.Attempts[0], d.Job)
		}
		if got := q.one("w1", "p1"); got.Number != 2 {
			t.Fatalf("got %+v", got)
		}
	})
}

func TestAPhoneBelongsToOneLiveWorker(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		ctx := t.Context()
		q.worker("w1", "p1")
		refused, err := q.Register(ctx, "w2", "h2", "test", phones([]string{"p1", "p2"}))
		if must(t, refused, err); len(refused) != 1 || refused[0].DeviceID != "p1" || !strings.Contains(refused[0].Message, "w1") {
			t.Fatalf("refused %+v, want p1", refused)
		}
		q.submit("v1", "tests/a.spec.js", "tests/b.spec.js")
		if got := q.wait("w2", "p1"); len(got) != 0 {
			t.Fatalf("w2 got work for w1's phone: %+v", got)
		}
		q.report("w1", q.one("w1", "p1").Lease, passed)
		q.advance(DefaultLease - time.Second)
		if hb := heartbeat(t, q, "w2", []string{"p1", "p2"}, nil); len(hb.Refused) != 1 {
			t.Fatalf("heartbeat says %+v", hb)
		}
		q.advance(time.Second)
		if hb := heartbeat(t, q, "w2", []string{"p1", "p2"}, nil); len(hb.Refused) != 0 {
			t.Fatalf("w1's lease ran out, but w2 hears %+v", hb)
		}
		if got := q.one("w2", "p1"); got.Number != 1 {
			t.Fatalf("got %+v", got)
		}
		devices := first(q.Devices(ctx, ""))
		if len(devices) != 2 || devices[0].WorkerID != "w2" || devices[0].Installs != 1 || devices[0].State != qgjob.DeviceBusy {
			t.Fatalf("devices %+v", devices)
		}
	})
}

func TestDevicesOfADeadWorkerLeave(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.submit("v1", "tests/a.spec.js")
		q.worker("w1", "p1")
		q.report("w1", q.one("w1", "p1").Lease, passed)
		q.advance(DefaultLease + time.Minute)
		first(q.Reap(t.Context()))
		if got := first(q.Devices(t.Context(), "")); len(got) != 0 {
			t.Fatalf("devices %+v", got)
		}
		st := first(q.Stats(t.Context()))
		if st.WorkersAlive != 0 || !st.WorkerSeen || st.LastSeen.Round(time.Second) != DefaultLease+time.Minute || st.Installs != 1 {
			t.Fatalf("stats %+v", st)
		}
		q.worker("w2", "p1")
		if got := first(q.Devices(t.Context(), "")); got[0].Installs != 1 {
			t.Fatalf("its counters went: %+v", got)
		}
	})
}

func TestResultFromADeviceThatHasLeft(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		j := q.submit("v1", "tests/a.spec.js")[0]
		q.worker("w1", "p1", "p2")
		a := q.one("w1", "p1")
		q.worker("w1", "p2") // unplugged
		if answer := q.report("w1", a.Lease, passed); answer.State != qgjob.Passed {
			t.Fatalf("answer %+v", answer)
		}
		if got := q.job(j.ID).Job.State; got != qgjob.Passed {
			t.Fatalf("the job is %s", got)
		}
		q.worker("w1", "p1", "p2")
		if got := first(q.Devices(t.Context(), "")); len(got) != 2 || got[0].Installs != 1 {
			t.Fatalf("devices %+v", got)
		}
		checkCounters(t, q)
	})
}

func TestResultFromADeviceThatIsAnothersNow(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.submit("v1", "tests/a.spec.js")
		q.worker("w1", "p1", "p3")
		a := q.one("w1", "p1")
		q.advance(DefaultLease - time.Second)
		heartbeat(t, q, "w1", []string{"p3"}, []Lease{a.Lease})
		q.worker("w2", "p1")
		q.report("w1", a.Lease, passed)
		if got := first(q.Devices(t.Context(), "")); len(got) != 2 || got[0].Installs != 1 || got[0].Installed != nil {
			t.Fatalf("devices %+v: what is on p1 is for w2 to say", got)
		}
		checkCounters(t, q)
	})
}

func TestPollsSupersede(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		ctx := t.Context()
		q.worker("w1", "p1", "p2")
		wake := q.Subscribe(TopicWorker("w1"))
		defer wake.Close()
		q.poll(Poll{WorkerID: "w1", Free: []string{"p1", "p2"}})
		old := q.polls["w1"]
		q.poll(Poll{WorkerID: "w1", Free: []string{"p2"}})
		<-wake.C
		if a := first(q.Assignments(ctx, "w1", old, []string{"p1", "p2"})); !a.Superseded {
			t.Fatalf("the older poll goes on: %+v", a)
		}
		if err := q.Unwait(ctx, "w1", old); err != nil {
			t.Fatal(err)
		}
		q.submit("v1", "tests/a.spec.js", "tests/b.spec.js")
		if n := first(q.Dispatch(ctx)); n != 1 {
			t.Fatalf("%d attempts, want one: p1 waits no longer, p2 does", n)
		}
		if got := q.assignments("w1", "p2"); len(got) != 1 {
			t.Fatalf("got %+v", got)
		}
		late, err := q.Poll(ctx, Poll{WorkerID: "w1", Seq: old, Free: []string{"p1"}, Wait: time.Minute})
		if must(t, late, err); !late.Superseded {
			t.Fatalf("a late poll: %+v", late)
		}
		if n := first(q.Dispatch(ctx)); n != 0 {
			t.Fatalf("%d attempts for a superseded poll", n)
		}
	})
}

func TestUnwait(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.worker("w1", "p1")
		q.poll(Poll{WorkerID: "w1", Free: []string{"p1"}})
		if err := q.Unwait(t.Context(), "w1", q.polls["w1"]); err != nil {
			t.Fatal(err)
		}
		j := q.submit("v1", "tests/a.spec.js")[0]
		if n := first(q.Dispatch(t.Context())); n != 0 {
			t.Fatal("a device whose client has gone got work")
		}
		if _, err := q.Cancel(t.Context(), "acme", j.ID); err != nil {
			t.Fatal(err)
		}
		q.poll(Poll{WorkerID: "w1", Free: []string{"p1"}, Wait: time.Second})
		q.advance(time.Second)
		q.submit("v1", "tests/b.spec.js")
		if n := first(q.Dispatch(t.Context())); n != 0 {
			t.Fatal("a device whose poll is over got work")
		}
		q.one("w1", "p1")
	})
}
