package store

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"qgjob"
)

func TestAPollIsAnsweredWithWorkFromItsOwnTransaction(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		jobs := q.submit("v1", "tests/a.spec.js", "tests/b.spec.js")
		q.worker("w1", "p1", "p2", "p3")
		got := q.poll(Poll{WorkerID: "w1", Free: []string{"p1"}}).Assignments
		if len(got) != 1 || got[0].Job.ID != jobs[0].ID || got[0].Job.State != qgjob.Running {
			t.Fatalf("the poll got %+v, want the first job", got)
		}
		next := q.poll(Poll{
			WorkerID: "w1", Free: []string{"p1", "p2", "p3"}, Results: []AttemptResult{{got[0].Lease, passed}},
		})
		if len(next.Results) != 1 || next.Results[0].State != qgjob.Passed || len(next.Assignments) != 1 || next.Assignments[0].Job.ID != jobs[1].ID {
			t.Fatalf("the poll with the result got %+v, want it recorded and the second job", next)
		}
		// The poll was answered, so its other devices wait no more: what they got would reach nobody.
		late := q.submit("v2", "tests/c.spec.js")[0]
		first(q.Dispatch(t.Context()))
		if d := q.job(late.ID); d.Job.State != qgjob.Queued {
			t.Fatalf("a device whose poll was answered got %+v", d.Attempts)
		}
		checkCounters(t, q)
	})
}

func TestWhatIsQueuedGoesToWaitingDevicesAtOnce(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.worker("w1", "p1")
		q.worker("w2", "p2")
		q.poll(Poll{WorkerID: "w1", Free: []string{"p1"}})
		wake := q.Subscribe(TopicWorker("w1"))
		defer wake.Close()
		j := q.submit("v1", "tests/a.spec.js")[0]
		<-wake.C
		a := q.assignments("w1", "p1")
		if len(a) != 1 || a[0].Job.ID != j.ID {
			t.Fatalf("the waiting worker got %+v", a)
		}
		q.poll(Poll{WorkerID: "w2", Free: []string{"p2"}})
		if err := q.Leave(t.Context(), "w1"); err != nil {
			t.Fatal(err)
		}
		if b := q.assignments("w2", "p2"); len(b) != 1 || b[0].Job.ID != j.ID || b[0].Number != 2 {
			t.Fatalf("after the first worker left, the second got %+v", b)
		}
		if n := first(q.Dispatch(t.Context())); n != 2 {
			t.Fatalf("dispatch tells of %d attempts, want 2", n)
		}
		checkCounters(t, q)
	})
}

// Polls, results and submits whose transaction is spoiled are replayed, and each gets its work once.
func TestASpoiledTransactionGivesWorkOnce(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		const workers = 8
		leases := make([]Lease, workers)
		for i := range workers {
			id := fmt.Sprint("w", i)
			q.worker(id, id)
			q.submit("v"+id, "tests/a.spec.js")
			leases[i] = q.one(id, id).Lease
		}
		last := q.submit("v1", "tests/b.spec.js")[0]
		release := q.hold()
		var wg sync.WaitGroup
		var mu sync.Mutex
		given := map[string]string{} // devices by job
		for i := range workers {
			wg.Go(func() {
				id := fmt.Sprint("w", i)
				answer, err := q.Poll(t.Context(), Poll{
					WorkerID: id, Seq: 100, Free: []string{id}, Wait: time.Second, Results: []AttemptResult{{leases[i], passed}},
				})
				if err != nil || len(answer.Results) != 1 || answer.Results[0].State != qgjob.Passed {
					t.Errorf("%s: %+v, %v", id, answer, err)
				}
				mu.Lock()
				defer mu.Unlock()
				for _, a := range answer.Assignments {
					if other, twice := given[a.Job.ID]; twice {
						t.Errorf("job %s was given to %s and to %s", a.Job.ID, other, id)
					}
					given[a.Job.ID] = id
				}
			})
		}
		wg.Go(func() {
			wantCode(t, q.write(t.Context(), func(ctx context.Context, t *tx) error {
				return t.exec(ctx, `insert into workers (id, host, version, registered_at_ms, seen_at_ms) values ('w0', '', '', 0, 0)`)
			}), qgjob.CodeInternal)
		})
		q.queued(workers + 1)
		release()
		wg.Wait()
		if len(given) != 1 || given[last.ID] == "" {
			t.Fatalf("given %v, want the one job", given)
		}
		wantStory(t, q.job(last.ID), "submit>queued assign>running/1@"+given[last.ID])
		checkCounters(t, q)
	})
}

// What cannot be planned is no reason to refuse a submit or a poll.
func TestAPlanThatFailsRefusesNobody(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		ctx := t.Context()
		must(t, 0, q.write(ctx, func(ctx context.Context, t *tx) error {
			return t.exec(ctx, `insert into lanes (id, org_id, app_version_id, target, priority, prefer_device, avoid_device, queued, oldest_seq, oldest_at_ms)
				values (1, 'acme', 'v0', 'any', 0, '', '', 1, 1, 1)`)
		}))
		q.writer.board = nil
		q.worker("w1", "p1")
		wake := q.Subscribe(TopicQueue)
		defer wake.Close()
		if got := q.poll(Poll{WorkerID: "w1", Free: []string{"p1"}}); len(got.Assignments) != 0 {
			t.Fatalf("the poll got %+v", got)
		}
		<-wake.C
		j := q.submit("v1", "tests/a.spec.js")[0]
		if err := second(q.Dispatch(ctx)); err == nil {
			t.Fatal("nobody hears that nothing can be planned")
		}
		must(t, 0, q.write(ctx, func(ctx context.Context, t *tx) error {
			return t.exec(ctx, `delete from lanes where app_version_id = 'v0'`)
		}))
		q.writer.board = nil
		if n := first(q.Dispatch(ctx)); n != 1 || q.job(j.ID).Job.State != qgjob.Running {
			t.Fatalf("%d attempts when it can be planned again, want 1", n)
		}
		checkCounters(t, q)
	})
}

func TestDispatchLeavesTheDatabaseAloneWhileNothingWaits(t *testing.T) {
	q := open(t, database(t, "sqlite")) // PostgreSQL's listener may raise a doubt at any time
	q.worker("w1", "p1")
	dispatchIdle := func(when string) {
		t.Helper()
		release := q.hold()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		n, err := q.Dispatch(ctx) // a call that has to wait for the writer is refused
		release()
		if err != nil || n > 1 {
			t.Fatalf("%s: dispatched %d, %v", when, n, err)
		}
	}
	must(t, 0, second(q.Dispatch(t.Context())))
	dispatchIdle("empty")
	q.submit("v1", "tests/a.spec.js")
	dispatchIdle("no device waits")
	q.poll(Poll{WorkerID: "w1", Free: []string{"p1"}})
	dispatchIdle("every device has work")
	q.submit("v1", "tests/b.spec.js")
	dispatchIdle("no device waits any more")
}

func TestDispatchGivesWhatOnlyTimeMakesPossible(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.submit("v1", "tests/a.spec.js")
		q.worker("w1", "p1")
		q.worker("w2", "p2")
		q.report("w1", q.one("w1", "p1").Lease, errored)
		q.advance(DefaultLease - time.Second)
		if got := q.poll(Poll{WorkerID: "w1", Free: []string{"p1"}}).Assignments; len(got) != 0 {
			t.Fatalf("p1 got %+v although p2 is alive", got)
		}
		q.advance(time.Second)
		first(q.Dispatch(t.Context()))
		if got := q.assignments("w1", "p1"); len(got) != 1 {
			t.Fatalf("p1 is the only one left, and got %+v", got)
		}
	})
}

// A poll that waits hears of its assignment without reading the database; one that it replaced does not.
func TestWaitingPollsAreToldWhatTheyGot(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.worker("w1", "p1", "p2")
		news := q.Subscribe(TopicWorker("w1"))
		defer news.Close()
		q.poll(Poll{WorkerID: "w1", Free: []string{"p1"}})
		old := q.polls["w1"]
		q.poll(Poll{WorkerID: "w1", Free: []string{"p1", "p2"}})
		j := q.submit("v1", "tests/a.spec.js")[0]
		<-news.C
		if got := news.Assignments(old); len(got) != 0 {
			t.Fatalf("the replaced poll hears %+v", got)
		}
		q.submit("v2", "tests/b.spec.js")
		<-news.C
		got := news.Assignments(q.polls["w1"])
		if len(got) != 1 || got[0].Job.ID == j.ID || !slices.ContainsFunc(q.assignments("w1", "p1", "p2"), func(a Assignment) bool { return a.Lease == got[0].Lease }) {
			t.Fatalf("the poll hears %+v", got)
		}
		if again := news.Assignments(q.polls["w1"]); len(again) != 0 {
			t.Fatalf("and again %+v", again)
		}
	})
}
