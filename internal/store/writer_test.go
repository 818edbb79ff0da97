package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"qgjob"
)

// hold keeps the writer inside a transaction until the returned function is called, so that calls queue up
// behind it. It returns once the transaction has begun.
func (q *queue) hold() (release func()) {
	entered, leave, left := make(chan struct{}), make(chan struct{}), make(chan struct{})
	enter := sync.OnceFunc(func() { close(entered) }) // a stale transaction is made again
	go func() {
		defer close(left)
		if err := q.write(context.Background(), func(context.Context, *tx) error {
			enter()
			<-leave
			return nil
		}); err != nil {
			q.t.Errorf("the holding call: %v", err)
		}
	}()
	<-entered
	return func() { close(leave); <-left }
}

// queued waits until n calls wait for the writer.
func (q *queue) queued(n int) {
	for len(q.writer.queue) < n {
		runtime.Gosched() // another goroutine is on its way into the queue
	}
}

func TestOneSpoilerSpoilsNobodyElse(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		ctx := t.Context()
		j := q.submit("v1", "tests/a.spec.js")[0]
		release := q.hold()
		var wg sync.WaitGroup
		const submits = 10
		runs := make([]qgjob.Run, submits)
		for i := range submits {
			wg.Go(func() {
				run, created, err := q.Submit(ctx, submission("acme", "v1", fmt.Sprintf("tests/%d.spec.js", i)))
				if err != nil || !created {
					t.Errorf("submit %d: created %v, %v", i, created, err)
				}
				runs[i] = run
			})
		}
		wg.Go(func() {
			wantCode(t, q.write(ctx, func(ctx context.Context, t *tx) error {
				return t.exec(ctx, `insert into jobs (seq, id, run_seq, org_id, app_version_id, target, priority, test_path, state, events)
					values (1, $1, 1, '', '', '', 1, '', '', 1)`, j.ID)
			}), qgjob.CodeInternal)
		})
		wg.Go(func() {
			_, err := q.Cancel(ctx, "acme", "unknown")
			if qgjob.ErrorCode(err) != qgjob.CodeNotFound {
				t.Errorf("a refusal in a spoiled batch: %v", err)
			}
		})
		q.queued(submits + 2)
		release()
		wg.Wait()
		for _, run := range runs {
			if d := q.job(run.Jobs[0].ID); story(d) != "submit>queued" {
				t.Fatalf("job %+v", d)
			}
		}
		if st := first(q.Stats(ctx)); st.Jobs[qgjob.Queued] != submits+1 {
			t.Fatalf("%d jobs queued, want %d", st.Jobs[qgjob.Queued], submits+1)
		}
		checkCounters(t, q)
	})
}

func TestADefectRefusesItsRequestOnly(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		ctx := t.Context()
		j := q.submit("v1", "tests/a.spec.js")[0]
		release := q.hold()
		var wg sync.WaitGroup
		wg.Go(func() {
			wantCode(t, q.write(ctx, func(ctx context.Context, t *tx) error {
				changed, err := t.find(ctx, "acme", j.ID)
				if err != nil {
					return err
				}
				if err := t.cancel(changed, qgjob.CauseCanceled); err != nil {
					return err
				}
				panic("a defect")
			}), qgjob.CodeInternal)
		})
		wg.Go(func() { // one that shows when its rows are written
			wantCode(t, q.write(ctx, func(_ context.Context, t *tx) error {
				t.ends = append(t.ends, []any{struct{}{}, "", "", "", "", "", "", 0, int64(0)})
				return nil
			}), qgjob.CodeInternal)
		})
		wg.Go(func() { q.submit("v1", "tests/b.spec.js") })
		q.queued(3)
		release()
		wg.Wait()
		if st := first(q.Stats(ctx)); st.Jobs[qgjob.Queued] != 2 {
			t.Fatalf("%d jobs queued, want 2", st.Jobs[qgjob.Queued])
		}
		checkCounters(t, q)
	})
}

func TestWaitingCallsShareATransaction(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		release := q.hold()
		var wg sync.WaitGroup
		times := map[int64]bool{}
		for range 50 {
			wg.Go(func() {
				err := q.write(t.Context(), func(_ context.Context, t *tx) error {
					times[t.now] = true // the writer runs one call at a time
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		q.queued(50)
		release()
		wg.Wait()
		if len(times) != 1 {
			t.Fatalf("50 calls took %d transactions", len(times))
		}
	})
}

func TestAbandonedCallsChangeNothing(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		release := q.hold()
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error)
		go func() {
			_, _, err := q.Submit(ctx, submission("acme", "v1", "tests/a.spec.js"))
			result <- err
		}()
		q.queued(1)
		cancel()
		err := <-result
		wantCode(t, err, qgjob.CodeUnavailable)
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("error %v does not say that its context ended", err)
		}
		release()
		if st := first(q.Stats(t.Context())); st.Jobs[qgjob.Queued] != 0 {
			t.Fatal("an abandoned submit was carried out")
		}
	})
}

func TestOverload(t *testing.T) {
	q := open(t, database(t, "sqlite"))
	release := q.hold()
	var last *call
	for range queueLimit {
		last = &call{step: single, arg: func(context.Context, *tx) error { return nil }, done: make(chan struct{})}
		must(t, 0, q.writer.enqueue(last))
	}
	wantCode(t, q.Ping(t.Context()), qgjob.CodeUnavailable)
	release()
	<-last.done
	if err := q.Ping(t.Context()); err != nil {
		t.Fatalf("after the overload: %v", err)
	}
}

func TestCommitOfUnknownOutcomeIsUnavailable(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		j := q.submit("v1", "tests/a.spec.js")[0]
		err := q.write(t.Context(), func(ctx context.Context, t *tx) error { return breakConnection(ctx, q, t) })
		wantCode(t, err, qgjob.CodeUnavailable)
		if !strings.Contains(err.Error(), "may or may not") {
			t.Fatalf("error %q does not say that the outcome is unknown", err)
		}
		if got := q.submit("v1", "tests/b.spec.js")[0]; got.ID == j.ID {
			t.Fatal("the store does not go on")
		}
		checkCounters(t, q)
	})
}

func TestCommitOfUnknownOutcomeWakes(t *testing.T) {
	q := open(t, database(t, "sqlite")) // PostgreSQL's notification would fail before the commit
	wake := q.Subscribe(TopicQueue)
	defer wake.Close()
	err := q.write(t.Context(), func(ctx context.Context, t *tx) error {
		t.publish(TopicQueue)
		return breakConnection(ctx, q, t)
	})
	wantCode(t, err, qgjob.CodeUnavailable)
	select {
	case <-wake.C:
	default:
		t.Fatal("nobody is woken to see what came of it")
	}
}

// breakConnection makes the commit fail that follows.
func breakConnection(ctx context.Context, q *queue, t *tx) error {
	if q.Kind() == "sqlite" {
		return t.s.rollback(ctx)
	}
	var pid int64
	if err := t.row(ctx, func(row scanner) error { return row.Scan(&pid) }, "select pg_backend_pid()"); err != nil {
		return err
	}
	var done bool
	return q.readDB.QueryRowContext(ctx, "select pg_terminate_backend($1, 5000)", pid).Scan(&done)
}

func TestClosedStoreIsUnavailable(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgresql"} {
		t.Run(kind, func(t *testing.T) {
			s, err := Open(t.Context(), database(t, kind))
			if err != nil {
				t.Fatal(err)
			}
			q := &queue{Store: s, t: t}
			release := q.hold()
			waiting := make(chan error)
			go func() { waiting <- q.Ping(t.Context()) }()
			q.queued(1)
			closed := make(chan error)
			go func() { closed <- s.Close() }()
			release()
			if err := <-waiting; err != nil {
				t.Fatalf("a call that waited: %v", err)
			}
			if err := <-closed; err != nil {
				t.Fatal(err)
			}
			wantCode(t, s.Ping(t.Context()), qgjob.CodeUnavailable)
		})
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgresql"} {
		t.Run(kind, func(t *testing.T) {
			o := database(t, kind)
			s, err := Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			must(t, 0, s.write(t.Context(), func(ctx context.Context, t *tx) error {
				return t.exec(ctx, `insert into goose_db_version (version_id, is_applied) values (99, true)`)
			}))
			must(t, 0, s.Close())
			_, err = Open(t.Context(), o)
			wantCode(t, err, qgjob.CodeInvalid)
			if !strings.Contains(err.Error(), "schema 99") || !strings.Contains(err.Error(), "newer") {
				t.Fatalf("error %q does not say what is wrong", err)
			}
		})
	}
}

// A copy of the files while the store is open is what a kill leaves: the log is not folded in.
func TestReopenAfterAKill(t *testing.T) {
	q := open(t, database(t, "sqlite"))
	q.worker("w1", "p1")
	jobs := q.submit("v1", "tests/a.spec.js", "tests/b.spec.js")
	a := q.one("w1", "p1")
	dir := t.TempDir()
	for _, suffix := range []string{"", "-wal"} {
		content, err := os.ReadFile(q.options.Path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		must(t, 0, os.WriteFile(filepath.Join(dir, "copy.db"+suffix), content, 0o600))
	}
	after := open(t, Options{Path: filepath.Join(dir, "copy.db")})
	wantStory(t, after.job(jobs[0].ID), "submit>queued assign>running/1@p1")
	checkCounters(t, after)
	if hb := heartbeat(t, after, "w1", []string{"p1"}, []Lease{a.Lease}); len(hb.Lost) != 0 {
		t.Fatalf("a lease did not survive: %+v", hb)
	}
	if answer := after.report("w1", a.Lease, passed); answer.State != qgjob.Passed {
		t.Fatalf("answer %+v", answer)
	}
	if got := after.one("w1", "p1"); got.Job.ID != jobs[1].ID {
		t.Fatalf("got %+v", got)
	}
}

func TestFilesWithOddNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a ? b#c %41 d")
	open(t, Options{Path: filepath.Join(dir, "x.db")}).submit("v1", "tests/a.spec.js")
	if _, err := os.Stat(filepath.Join(dir, "x.db")); err != nil {
		t.Fatal(err)
	}
}
