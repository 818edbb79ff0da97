package store

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"qgjob"
)

// servers opens several stores over one PostgreSQL.
func servers(t *testing.T, n int) []*queue {
	t.Helper()
	o := database(t, "postgresql")
	qs := make([]*queue, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			s, err := Open(context.Background(), o)
			if err != nil {
				t.Errorf("server %d: %v", i, err)
				return
			}
			qs[i] = &queue{Store: s, t: t, options: o, polls: map[string]int64{}}
		})
	}
	wg.Wait()
	t.Cleanup(func() {
		for _, q := range qs {
			if q != nil {
				must(t, 0, q.Close())
			}
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return qs
}

func TestServersThatStartAtOnceMigrateOnce(t *testing.T) {
	for _, q := range servers(t, 4) {
		q.submit("v1", "tests/a.spec.js")
	}
}

// listening waits until n servers listen.
func listening(q *queue, n int) {
	q.t.Helper()
	for have := 0; have != n; {
		err := q.readDB.QueryRowContext(q.t.Context(), `
			select count(*) from pg_stat_activity
			where datname = current_database() and application_name = $1 and state = 'idle' and query <> ''`, listenerName).Scan(&have)
		if err != nil {
			q.t.Fatal(err)
		}
	}
}

func wantWake(t *testing.T, sub *Subscription, why string) {
	t.Helper()
	select {
	case <-sub.C:
	case <-time.After(listenCheck / 2): // polling would not come so soon
		t.Fatal("not woken by " + why)
	}
}

func TestServersWakeEachOther(t *testing.T) {
	qs := servers(t, 2)
	a, b := qs[0], qs[1]
	listening(a, 2)
	queueWake := b.Subscribe(TopicQueue)
	defer queueWake.Close()
	j := a.submit("v1", "tests/a.spec.js")[0]
	wantWake(t, queueWake, "a submit to the other server")
	jobWake := b.Subscribe(TopicJob(j.ID))
	defer jobWake.Close()
	first(a.Cancel(t.Context(), "acme", j.ID))
	wantWake(t, jobWake, "a cancel at the other server")
	if d := b.job(j.ID); d.Job.State != qgjob.Canceled {
		t.Fatalf("woken, it reads %+v", d.Job)
	}
}

func TestALostListenerIsReplaced(t *testing.T) {
	qs := servers(t, 2)
	a, b := qs[0], qs[1]
	listening(a, 2)
	wake := b.Subscribe(TopicQueue)
	defer wake.Close()
	var ended bool
	err := a.readDB.QueryRowContext(t.Context(), `
		select bool_and(pg_terminate_backend(pid, 5000)) from pg_stat_activity
		where datname = current_database() and application_name = $1`, listenerName).Scan(&ended)
	if err != nil || !ended {
		t.Fatalf("end the listeners: %v, %v", ended, err)
	}
	wantWake(t, wake, "the loss: something may have been missed")
	listening(a, 2)
	wantWake(t, wake, "its return: something was missed")
	a.submit("v1", "tests/a.spec.js")
	wantWake(t, wake, "a submit to the other server")
}

// Workers of two servers drain one queue while both dispatch and reap.
func TestServersShareOneQueue(t *testing.T) {
	qs := servers(t, 2)
	const jobs, workers = 60, 6
	paths := make([]string, jobs)
	for i := range paths {
		paths[i] = "tests/" + strings.Repeat("x", i+1) + ".spec.js"
	}
	all := qs[0].submit("v1", paths...)
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for w := range workers {
		wg.Go(func() {
			q := &queue{Store: qs[w%2].Store, t: t, polls: map[string]int64{}}
			id := "w" + string(rune('a'+w))
			q.worker(id, id)
			for {
				got := q.wait(id, id)
				first(q.Reap(context.Background()))
				mu.Lock()
				over := done == jobs
				mu.Unlock()
				if over {
					return
				}
				for _, a := range got {
					if answer := q.report(id, a.Lease, passed); answer.State != qgjob.Passed {
						t.Errorf("answer %+v", answer)
					}
					mu.Lock()
					done++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	for _, j := range all {
		if d := qs[1].job(j.ID); len(d.Attempts) != 1 || d.Job.State != qgjob.Passed {
			t.Fatalf("job %+v ran %d times", d.Job, len(d.Attempts))
		}
	}
	checkCounters(t, qs[0])
}

// What another server queues it plans, too: a dispatcher that looked at each of its commits would hold the lock of all for
// that, and read everything anew.
func TestOthersCommitsAreNotOnesOwn(t *testing.T) {
	qs := servers(t, 2)
	a, b := qs[0], qs[1]
	all, own := b.Subscribe(TopicQueue), b.SubscribeOwn(TopicQueue)
	defer all.Close()
	defer own.Close()
	listening(a, 2)
	a.submit("v1", "tests/a.spec.js")
	wantWake(t, all, "a submit to the other server")
	select {
	case <-own.C: // by the listener's start
	default:
	}
	a.submit("v1", "tests/b.spec.js")
	wantWake(t, all, "a submit to the other server")
	select {
	case <-own.C:
		t.Error("woken by another server's commit")
	default:
	}
	b.submit("v1", "tests/c.spec.js")
	wantWake(t, own, "a submit to this server")
}

// alone lets a server write until it counts on nobody else writing, and returns how many jobs it submitted.
func alone(q *queue) (jobs int) {
	q.t.Helper()
	const patience = 10 * quietEnough // a machine that stands still for soonEnough now and then
	for bold := false; !bold; jobs++ {
		if jobs == patience {
			q.t.Fatal("a server that writes alone asks before it writes")
		}
		q.submit("v1", "tests/quiet.spec.js")
		must(q.t, 0, q.write(q.t.Context(), func(_ context.Context, t *tx) error {
			bold = t.s.(*postgresSession).pending
			return nil
		}))
	}
	return jobs
}

func TestAServerThatWasAloneSeesWhatOthersWrite(t *testing.T) {
	qs := servers(t, 2)
	a, b := qs[0], qs[1]
	b.submit("v1", "tests/a.spec.js") // its first transaction takes long
	alone(a)
	keyed := submission("acme", "v1", "tests/b.spec.js")
	keyed.IdempotencyKey, keyed.BodyHash = "key", "hash"
	run, created, err := b.Submit(t.Context(), keyed)
	if err != nil || !created {
		t.Fatalf("created %v, %v", created, err)
	}
	got, created, err := a.Submit(t.Context(), keyed)
	if err != nil || created || got.ID != run.ID {
		t.Fatalf("the key of another server's run makes run %s (created %v, %v), want %s", got.ID, created, err, run.ID)
	}
	alone(a)
	b.worker("w", "d")
	running := b.wait("w", "d")[0].Job
	if job, err := a.Cancel(t.Context(), "acme", running.ID); err != nil || job.State != qgjob.Canceling {
		t.Fatalf("the cancel of a job that another server gave to a device: state %s, %v", job.State, err)
	}
	checkCounters(t, a)
}

func TestAServerThatWritesAloneKnowsItsKeys(t *testing.T) {
	a := servers(t, 1)[0]
	keyed := submission("acme", "v1", "tests/b.spec.js")
	keyed.IdempotencyKey, keyed.BodyHash = "key", "hash"
	run, _, err := a.Submit(t.Context(), keyed)
	must(t, 0, err)
	repeat := func() {
		got, created, err := a.Submit(t.Context(), keyed)
		if err != nil || created || got.ID != run.ID {
			t.Errorf("run %s (created %v, %v), want %s", got.ID, created, err, run.ID)
		}
	}
	quiet := alone(a)
	repeat()
	quiet += alone(a)
	var wg sync.WaitGroup
	release := a.hold()
	const others = 5
	for range others {
		wg.Go(func() { a.submit("v1", "tests/c.spec.js") })
	}
	wg.Go(repeat)
	a.queued(others + 1)
	release()
	wg.Wait()
	if got, want := first(a.Stats(t.Context())).Jobs[qgjob.Queued], int64(1+others+quiet); got != want {
		t.Errorf("%d jobs are queued, want %d", got, want)
	}
	checkCounters(t, a)
}

func TestTheNewestBuildIsTheOneOfAnotherServer(t *testing.T) {
	qs := servers(t, 2)
	a, b := qs[0], qs[1]
	older, newer := strings.Repeat("a", 64), strings.Repeat("b", 64)
	b.build(Build{OrgID: "acme", AppVersionID: "v1", SHA256: older, Platform: "android"})
	alone(a)
	b.build(Build{OrgID: "acme", AppVersionID: "v1", SHA256: newer, Platform: "android"})
	if got := a.submit("v1", "tests/a.spec.js")[0].BuildSHA256; got != newer {
		t.Errorf("a submit after the upload of a newer build takes build %.3s", got)
	}
}

// What has changed since a key was used refuses nothing: the key names its run.
func TestAKeyNamesItsRunWhateverChanged(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		keyed := submission("acme", "v1", "tests/b.spec.js")
		keyed.IdempotencyKey, keyed.BodyHash = "key", "hash"
		keyed.Jobs[0].Target = qgjob.TargetEmulator
		run, created, err := q.Submit(t.Context(), keyed)
		if err != nil || !created {
			t.Fatalf("created %v, %v", created, err)
		}
		q.worker("w", "phone") // no emulator
		for range quietEnough + 1 {
			q.submit("v1", "tests/quiet.spec.js")
		}
		got, created, err := q.Submit(t.Context(), keyed)
		if err != nil || created || got.ID != run.ID {
			t.Errorf("run %s (created %v, %v), want %s", got.ID, created, err, run.ID)
		}
		keyed.IdempotencyKey = "another"
		wantCode(t, third(q.Submit(t.Context(), keyed)), qgjob.CodeUnmatched)
	})
}

func TestASubmitThatLooksForDevicesSeesAnotherServersOwn(t *testing.T) {
	qs := servers(t, 2)
	a, b := qs[0], qs[1]
	b.worker("w2", "tablet")
	a.worker("w", "phone")
	alone(a)
	a.worker("w", "phone") // what is known of devices is read again
	emulator := phone("emulator")
	emulator.Kind = qgjob.TargetEmulator
	must(t, 0, second(b.Register(t.Context(), "w2", "host-w2", "test", []DeviceReport{phone("tablet"), emulator})))
	sub := submission("acme", "v1", "tests/b.spec.js")
	sub.Jobs[0].Target = qgjob.TargetEmulator
	if _, created, err := a.Submit(t.Context(), sub); err != nil || !created {
		t.Errorf("created %v, %v", created, err)
	}
	checkCounters(t, a)
}

func TestACommitThatRollsBackIsAnError(t *testing.T) {
	a := servers(t, 1)[0]
	err := a.write(t.Context(), func(ctx context.Context, t *tx) error {
		_ = t.query(ctx, noRows, "select nothing_like_that") // a defect
		return nil
	})
	wantCode(t, err, qgjob.CodeInternal)
	a.submit("v1", "tests/a.spec.js")
	checkCounters(t, a)
}

func TestARefusalBeforeTheCommitIsNoUnknownOutcome(t *testing.T) {
	a := servers(t, 1)[0]
	timeout := func(ms string) {
		must(t, 0, a.write(t.Context(), func(ctx context.Context, t *tx) error { return t.exec(ctx, "set statement_timeout = "+ms) }))
	}
	alone(a)
	timeout("500")
	release := lockedOut(a)
	_, _, err := a.Submit(t.Context(), submission("acme", "v1", "tests/a.spec.js"))
	wantCode(t, err, qgjob.CodeUnavailable)
	if strings.Contains(err.Error(), "may or may not") {
		t.Errorf("a transaction that never got the lock is told as %q", err)
	}
	release()
	timeout("0")
	a.submit("v1", "tests/a.spec.js")
	checkCounters(t, a)
}

// lockedOut keeps everybody from writing, until release.
func lockedOut(q *queue) (release func()) {
	q.t.Helper()
	lock := first(q.readDB.Conn(q.t.Context()))
	must(q.t, 0, second(lock.ExecContext(q.t.Context(), "select pg_advisory_lock($1)", writeLock)))
	return func() {
		q.t.Helper()
		must(q.t, 0, second(lock.ExecContext(q.t.Context(), "select pg_advisory_unlock($1)", writeLock)))
		must(q.t, 0, lock.Close())
	}
}

// lockedOutNow waits until n transactions wait for the lock.
func lockedOutNow(q *queue, n int) {
	q.t.Helper()
	have := 0
	for end := time.Now().Add(time.Minute); have != n; time.Sleep(time.Millisecond) {
		must(q.t, 0, q.readDB.QueryRowContext(q.t.Context(), `select count(*) from (`+whoIsLockedOut+`) waiting`).Scan(&have))
		if time.Now().After(end) {
			q.t.Fatalf("%d transactions wait for the lock, want %d", have, n)
		}
	}
}

const whoIsLockedOut = `
	select l.pid from pg_locks l, pg_database d
	where l.locktype = 'advisory' and not l.granted and d.oid = l.database and d.datname = current_database()`

// A batch of submits and polls that took for known what another server has changed meanwhile is done again, as a whole.
func TestAStaleBatchIsDoneAgain(t *testing.T) {
	usual := dateSlack
	dateSlack = time.Minute // a slow machine makes no transaction stale
	t.Cleanup(func() { dateSlack = usual })
	qs := servers(t, 2)
	a, b := qs[0], qs[1]
	b.submit("v0", "tests/a.spec.js") // its first transaction takes long
	a.worker("w", "phone")
	running := a.one("w", "phone")
	alone(a)
	keyed := submission("acme", "v1", "tests/b.spec.js")
	keyed.IdempotencyKey, keyed.BodyHash = "key", "hash"
	var run, repeated qgjob.Run
	var created bool
	var answer PollAnswer
	release := lockedOut(a)
	var wg sync.WaitGroup
	wg.Go(func() { a.submit("v1", "tests/c.spec.js") })
	lockedOutNow(a, 1)
	wg.Go(func() { run, _, _ = b.Submit(t.Context(), keyed) })
	lockedOutNow(a, 2) // it is next
	wg.Go(func() { repeated, created, _ = a.Submit(t.Context(), keyed) })
	wg.Go(func() {
		answer = a.poll(Poll{WorkerID: "w", Free: []string{"phone"}, Results: []AttemptResult{{running.Lease, passed}}})
	})
	a.queued(2)
	release()
	wg.Wait()
	if created || repeated.ID != run.ID || run.ID == "" {
		t.Errorf("the key of another server's run makes run %q (created %v), want %q", repeated.ID, created, run.ID)
	}
	if len(answer.Results) != 1 || answer.Results[0].State != qgjob.Passed || len(answer.Assignments) != 1 {
		t.Errorf("the poll hears %+v, want its job passed and one to run", answer)
	}
	if d := a.job(running.Job.ID); d.Job.State != qgjob.Passed || len(d.Attempts) != 1 {
		t.Errorf("the job is %+v", d)
	}
	checkCounters(t, b)
}

// A connection that ends before its transaction got the lock has committed nothing: it is done again on another one.
func TestAConnectionThatEndsWhileItWaits(t *testing.T) {
	a := servers(t, 1)[0]
	queued := alone(a)
	release := lockedOut(a)
	var wg sync.WaitGroup
	wg.Go(func() { a.submit("v1", "tests/a.spec.js") })
	lockedOutNow(a, 1)
	var ended bool
	must(t, 0, a.readDB.QueryRowContext(t.Context(), `select bool_and(pg_terminate_backend(pid, 5000)) from (`+whoIsLockedOut+`) waiting`).Scan(&ended))
	if !ended {
		t.Fatal("the connection of the writer does not end")
	}
	lockedOutNow(a, 1)
	release()
	wg.Wait()
	if got, want := first(a.Stats(t.Context())).Jobs[qgjob.Queued], int64(queued+1); got != want {
		t.Errorf("%d jobs are queued, want %d", got, want)
	}
	checkCounters(t, a)
}

func TestAServerThatHadToWaitReadsTheClockAgain(t *testing.T) {
	a := servers(t, 1)[0]
	alone(a)
	release := lockedOut(a)
	var run qgjob.Run
	var wg sync.WaitGroup
	wg.Go(func() { run, _, _ = a.Submit(t.Context(), submission("acme", "v1", "tests/a.spec.js")) })
	time.Sleep(2*soonEnough + 200*time.Millisecond) // it has not begun long after the last one, and has waited for longer than it may
	var released int64
	must(t, 0, a.readDB.QueryRowContext(t.Context(), postgresClock).Scan(&released))
	release()
	wg.Wait()
	if run.SubmittedAt.UnixMilli() < released {
		t.Errorf("a run is dated %v, before the lock was free", run.SubmittedAt)
	}
}

func TestWakesWithinAServer(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		j := q.submit("v1", "tests/a.spec.js")[0]
		q.worker("w1", "p1")
		subs := map[string]*Subscription{}
		for _, topic := range []string{TopicQueue, TopicJob(j.ID), TopicWorker("w1")} {
			subs[topic] = q.Subscribe(topic)
			defer subs[topic].Close()
		}
		q.poll(Poll{WorkerID: "w1", Free: []string{"p1"}})
		<-subs[TopicQueue].C
		first(q.Dispatch(t.Context()))
		<-subs[TopicWorker("w1")].C
		<-subs[TopicJob(j.ID)].C
		got := q.assignments("w1", "p1")
		q.report("w1", got[0].Lease, failed)
		<-subs[TopicJob(j.ID)].C
		<-subs[TopicQueue].C // it is queued again
	})
}

func TestPayloads(t *testing.T) {
	var topics []string
	for range 1000 {
		topics = append(topics, TopicJob("0123456789-0123456789-0123456789-0123"))
	}
	n := 0
	for _, p := range payloads("me", topics) {
		if len(p) > payloadLimit {
			t.Fatalf("a payload of %d bytes", len(p))
		}
		from, rest, _ := strings.Cut(p, "\n")
		if from != "me" {
			t.Fatalf("origin %q", from)
		}
		n += strings.Count(rest, "job/")
	}
	if n != 1000 {
		t.Fatalf("%d topics arrive, want 1000", n)
	}
}
