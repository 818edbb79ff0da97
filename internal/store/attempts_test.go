package store

import (
	"context"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"qgjob"
	"qgjob/internal/flaky"
)

// undoFirstAttempts brings the schema from 71 to 70.
var undoFirstAttempts = []string{
	`create table attempts_kept as select * from attempts`,
	`drop table attempts`,
	`create table attempts (id text not null primary key, job_seq bigint not null, number bigint not null, org_id text not null, worker_id text not null, device_id text not null,
		token text not null, reason text not null, outcome text not null default '', cause text not null default '', message text not null default '', report text not null default '',
		result_hash text not null default '', trigger text not null default '', retry bigint not null default 0, acknowledged boolean not null default false,
		cancel_told boolean not null default false, log_received bigint not null default 0, assigned_at_ms bigint not null, expires_at_ms bigint not null,
		ended_at_ms bigint not null default 0, why text not null default '', assigned_event bigint not null default 0, ended_event bigint not null default 0,
		unique (job_seq, number))`,
	`insert into attempts select * from attempts_kept`,
	`drop table attempts_kept`,
	`alter table jobs drop column first_attempt`,
	`delete from goose_db_version where version_id = 71`,
}

func (q *queue) undoFirstAttempts() {
	q.t.Helper()
	must(q.t, 0, q.write(q.t.Context(), func(ctx context.Context, t *tx) error {
		for _, text := range undoFirstAttempts {
			if err := t.exec(ctx, text); err != nil {
				return err
			}
		}
		return nil
	}))
}

// A server of the schema before that goes on meanwhile reads open attempts, and then their jobs. Neither ends the other.
func TestAMigrationWaitsForReaders(t *testing.T) {
	q := open(t, database(t, "postgresql"))
	q.undoFirstAttempts()
	must(t, 0, q.Close())
	old := first(pgx.Connect(t.Context(), q.options.DatabaseURL))
	defer old.Close(context.Background())
	reader := first(old.Begin(t.Context()))
	must(t, 0, second(reader.Exec(t.Context(), `select id from attempts`)))
	opened := make(chan error)
	go func() {
		s, err := Open(context.Background(), q.options)
		if err == nil {
			err = s.Close()
		}
		opened <- err
	}()
	watch := first(pgx.Connect(t.Context(), q.options.DatabaseURL))
	defer watch.Close(context.Background())
	for waits := false; !waits; time.Sleep(time.Millisecond) {
		must(t, 0, watch.QueryRow(t.Context(), `select exists (select 1 from pg_locks where not granted and relation = 'attempts'::regclass)`).Scan(&waits))
	}
	must(t, 0, second(reader.Exec(t.Context(), `set lock_timeout = 500`))) // before a deadlock is looked for
	must(t, 0, second(reader.Exec(t.Context(), `select id from jobs`)))
	must(t, 0, reader.Commit(t.Context()))
	must(t, 0, <-opened)
}

// told is all that is told of a run's attempts.
type told struct {
	Jobs       map[string]JobDetail
	Logs       map[string][]LogPage // from the newest on
	Choices    map[string][]Choice
	Attempts   []qgjob.Attempt
	History    History
	Executions map[flaky.Execution]int
	Executed   int
}

func (q *queue) told(run string) told {
	q.t.Helper()
	ctx := q.t.Context()
	all := told{Jobs: map[string]JobDetail{}, Logs: map[string][]LogPage{}, Choices: map[string][]Choice{}, Executions: map[flaky.Execution]int{}}
	r, err := q.Run(ctx, "acme", run)
	for _, j := range must(q.t, r, err).Jobs {
		all.Jobs[j.ID] = q.job(j.ID)
		e, err := q.Explain(ctx, "acme", j.ID)
		must(q.t, e, err)
		for i, c := range e.Attempts {
			if c.Number != i+1 {
				q.t.Fatalf("choice %d is of attempt %d", i+1, c.Number)
			}
		}
		all.Choices[j.ID] = e.Attempts
		for n := range j.Attempts + 1 {
			page, err := q.Log(ctx, "acme", j.ID, n, 0, 100)
			all.Logs[j.ID] = append(all.Logs[j.ID], must(q.t, page, err))
			if of := all.Jobs[j.ID].Attempts; len(of) > 0 && string(page.Data) != "log of "+of[(n+len(of)-1)%len(of)].ID {
				q.t.Fatalf("attempt %d of %+v has log %q", n, of, page.Data)
			}
		}
		_, err = q.Log(ctx, "acme", j.ID, j.Attempts+1, 0, 100)
		wantCode(q.t, err, qgjob.CodeNotFound)
	}
	all.Attempts, err = q.RunAttempts(ctx, "acme", run)
	must(q.t, 0, err)
	all.History, err = q.History(ctx, HistoryFilter{OrgID: "acme"})
	must(q.t, 0, err)
	executions, err := q.Executions(ctx, "acme")
	for _, e := range must(q.t, executions, err) {
		all.Executions[e]++
	}
	all.Executed = len(executions)
	return all
}

// What is told of attempts is the same of a database of the schema before, be they a job's first or not, and its jobs go on.
func TestAttemptsOfAnOlderSchemaAreKept(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgresql"} {
		t.Run(kind, func(t *testing.T) {
			q := open(t, database(t, kind))
			q.worker("w1", "p1")
			unclear := failed
			unclear.Report.Tests = []qgjob.TestResult{{Title: "opens", Status: qgjob.TestFailed}}
			ran := map[string]bool{}
			var running Assignment
			run := q.submitRun(submission("acme", "v1", "a.spec.js", "b.spec.js", "c.spec.js", "d.spec.js"))
			for _, r := range []qgjob.Result{unclear, unclear, passed, passed, unclear, {}} { // three attempts, one, and the second of another job
				running = q.one("w1", "p1")
				ran[running.Job.ID] = true
				must(t, 0, second(q.AppendLog(t.Context(), running.AttemptID, running.Token, 0, []byte("log of "+running.AttemptID))))
				if r.Outcome != "" {
					q.report("w1", running.Lease, r)
				}
			}
			if len(ran) != 3 || running.Number != 2 {
				t.Fatalf("jobs %v ran, the last one's attempt is %d", ran, running.Number)
			}
			before := q.told(run.ID)
			var numbers []int
			for _, a := range before.Attempts {
				numbers = append(numbers, a.Number)
			}
			if !slices.Equal(numbers, []int{1, 2, 3, 1, 1, 2}) || len(before.History.Jobs) != 2 || before.Executed != 5 {
				t.Fatalf("told is %+v", before)
			}
			checkCounters(t, q)

			q.undoFirstAttempts()
			must(t, 0, q.Close())
			polls := q.polls
			q = open(t, q.options)
			q.polls = polls
			if after := q.told(run.ID); !reflect.DeepEqual(after, before) {
				t.Errorf("told was\n%+v\nand is\n%+v", before, after)
			}
			checkCounters(t, q)
			if q.d.setwise { // there may be a server of the schema before
				err := q.write(t.Context(), func(ctx context.Context, t *tx) error {
					return t.exec(ctx, `update jobs set attempts = 1 where attempts = 0`)
				})
				wantCode(t, err, qgjob.CodeInternal)
			}
			q.report("w1", running.Lease, unclear)
			q.report("w1", q.one("w1", "p1").Lease, passed)
			wantStory(t, q.job(running.Job.ID), "submit>queued assign>running/1@p1 retry>queued/1@p1 assign>running/2@p1 retry>queued/2@p1 assign>running/3@p1 pass>passed/3@p1")
			q.report("w1", q.one("w1", "p1").Lease, passed)
			checkCounters(t, q)
		})
	}
}
