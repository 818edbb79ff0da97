package store

import (
	"cmp"
	"context"
	"slices"
	"time"

	"qgjob"
)

// runsLookedAt is how many of a branch's newest runs tell what failed last.
const runsLookedAt = 5

var insertFacts = newBulk("itittttttttii", `
	insert into run_facts (run_seq, org_id, max_failures, ci_system, repository, commit_id, branch, pull_request, actor, workflow, ci_url, queue_until_ms, queue_timeout_ms)
	{values}`)

// ci is where a submission came from; nobody knows of one without.
func (s *Submission) ci() qgjob.CI {
	if s.CI == nil {
		return qgjob.CI{}
	}
	return *s.CI
}

// addFacts collects the row of a new run's facts, where it has any.
func (t *tx) addFacts(sub *submitCall, seq int64) {
	sub.run.CI, sub.run.MaxFailures, sub.run.QueueTimeoutSeconds = sub.CI, sub.MaxFailures, int64(sub.QueueTimeout/time.Second)
	if sub.CI == nil && sub.MaxFailures == 0 && sub.QueueTimeout == 0 && len(sub.Jobs) == 1 {
		return
	}
	ci := sub.ci()
	var queueUntil int64
	if sub.QueueTimeout > 0 {
		queueUntil = t.now + sub.QueueTimeout.Milliseconds()
	}
	t.facts = append(t.facts, []any{
		seq, sub.OrgID, sub.MaxFailures, ci.System, ci.Repository, ci.Commit, ci.Branch, ci.PullRequest, ci.Actor, ci.Workflow, ci.URL, queueUntil, sub.QueueTimeout.Milliseconds(),
	})
	if sub.CancelPrevious {
		t.superseding = append(t.superseding, superseding{seq: seq, org: sub.OrgID, runID: sub.run.ID, CI: ci})
	}
}

// readFacts adds to a run what its row of facts says.
func readFacts(query queryFunc, seq int64, run *qgjob.Run) error {
	return query(func(row scanner) error {
		var ci qgjob.CI
		err := row.Scan(&run.MaxFailures, &ci.System, &ci.Repository, &ci.Commit, &ci.Branch, &ci.PullRequest, &ci.Actor, &ci.Workflow, &ci.URL, &run.QueueTimeoutSeconds)
		if ci != (qgjob.CI{}) {
			run.CI = &ci
		}
		return err
	}, `
		select max_failures, ci_system, repository, commit_id, branch, pull_request, actor, workflow, ci_url, queue_timeout_ms / 1000
		from run_facts where run_seq = $1`, seq)
}

// branch is a line of development of an organization's repository.
type branch struct{ org, repository, name string }

// The jobs of a branch's newest runs that have a verdict on their spec. Neither the jobs' order is asked for nor are the runs joined: a planner
// would walk through those of everybody.
const selectBranchVerdicts = `
	select j.seq, j.test_path, j.state
	from (
		select run_seq, (select jobs from runs where seq = run_seq) as jobs
		from run_facts where org_id = $1 and repository = $2 and branch = $3 order by run_seq desc limit $4) r, jobs j
	where j.seq >= r.run_seq and j.seq < r.run_seq + r.jobs and j.state in ('passed', 'failed', 'errored')`

// lastFailed says which specs did not pass when they last ran on a branch.
func (t *tx) lastFailed(ctx context.Context, of branch) (map[string]bool, error) {
	if failed, known := t.failed[of]; known {
		return failed, nil
	}
	newest := map[string]int64{}
	failed := map[string]bool{}
	err := t.query(ctx, func(row scanner) error {
		var seq int64
		var spec string
		var state qgjob.JobState
		err := row.Scan(&seq, &spec, &state)
		if seq > newest[spec] {
			newest[spec], failed[spec] = seq, state != qgjob.Passed
		}
		return err
	}, selectBranchVerdicts, of.org, of.repository, of.name, runsLookedAt)
	t.failed[of] = failed
	return failed, err
}

// failedFirst orders the jobs of a submission: the specs that did not pass when they last ran on its branch
// come first, the others keep their order behind them.
func (t *tx) failedFirst(ctx context.Context, sub *submitCall) error {
	if len(sub.Jobs) < 2 {
		return nil
	}
	ci := sub.ci()
	failed, err := t.lastFailed(ctx, branch{sub.OrgID, ci.Repository, ci.Branch})
	if err != nil {
		return err
	}
	rank := func(spec JobSpec) int {
		if failed[spec.TestPath] {
			return 0
		}
		return 1
	}
	sub.Jobs = slices.Clone(sub.Jobs)
	slices.SortStableFunc(sub.Jobs, func(a, b JobSpec) int { return cmp.Compare(rank(a), rank(b)) })
	return nil
}

// superseding is a new run that ends the older ones of its branch.
type superseding struct {
	seq        int64
	org, runID string
	qgjob.CI
}

// runJobs is a run by the sequence of its first job and the number of its jobs.
type runJobs struct{ seq, jobs int64 }

// runsOf reads runs.
func (t *tx) runsOf(ctx context.Context, text string, args ...any) ([]runJobs, error) {
	var runs []runJobs
	err := t.query(ctx, func(row scanner) error {
		var r runJobs
		err := row.Scan(&r.seq, &r.jobs)
		runs = append(runs, r)
		return err
	}, text, args...)
	return runs, err
}

// stopRuns ends the runs that the step's changes have decided: those that reached their number of failures,
// and those that a newer run of their branch replaces.
func (t *tx) stopRuns(ctx context.Context) error {
	if len(t.failedIn) == 0 && len(t.superseding) == 0 {
		return nil
	}
	if err := t.flush(ctx); err != nil { // what is read below is what the step changed
		return err
	}
	for runID := range t.failedIn {
		if err := t.stopFailed(ctx, runID); err != nil {
			return err
		}
	}
	for _, s := range t.superseding {
		if err := t.stopPrevious(ctx, s); err != nil {
			return err
		}
	}
	clear(t.failedIn)
	t.superseding = nil
	return nil
}

func (t *tx) stopFailed(ctx context.Context, runID string) error {
	var seq, jobs, most, failures int64
	err := t.query(ctx, func(row scanner) error { return row.Scan(&seq, &jobs, &most) }, `
		select r.seq, r.jobs, f.max_failures from runs r, run_facts f
		where r.id = $1 and f.run_seq = r.seq and f.max_failures > 0`, runID)
	if err != nil || most == 0 {
		return err
	}
	err = t.row(ctx, func(row scanner) error { return row.Scan(&failures) },
		`select count(*) from jobs where seq >= $1 and seq < $2 and state in ('failed', 'errored')`, seq, seq+jobs)
	if err != nil || failures < most {
		return err
	}
	return t.cancelRange(ctx, seq, jobs, qgjob.CauseRunStopped, live)
}

// supersededAtOnce is how many older runs of a branch are looked at together. When none of them goes on, those before them do not either: a
// branch may have had thousands.
const supersededAtOnce = 100

// The runs of a branch before one, newest first, and which of them a run of its workflow and pull request replaces: those that go on, but for
// its siblings, which the same run of the CI submitted.
const selectSuperseded = `
	select r.run_seq, r.jobs, r.replaced and exists (select 1 from jobs j where j.seq >= r.run_seq and j.seq < r.run_seq + r.jobs and j.state in ('queued', 'running'))
	from (
		select run_seq, (select jobs from runs where seq = run_seq) as jobs, workflow = $5 and pull_request = $6 and (ci_url <> $7 or $7 = '') as replaced
		from run_facts where org_id = $1 and repository = $2 and branch = $3 and run_seq < $4 order by run_seq desc limit $8) r`

// stopPrevious cancels what is left of the older runs of a branch and workflow.
func (t *tx) stopPrevious(ctx context.Context, s superseding) error {
	for before := s.seq; ; {
		seen := 0
		var older []runJobs
		err := t.query(ctx, func(row scanner) error {
			var r runJobs
			var replaced bool
			err := row.Scan(&r.seq, &r.jobs, &replaced)
			if replaced {
				older = append(older, r)
			}
			before = min(before, r.seq)
			seen++
			return err
		}, selectSuperseded, s.org, s.Repository, s.Branch, before, s.Workflow, s.PullRequest, s.URL, supersededAtOnce)
		if err != nil {
			return err
		}
		for _, i := range older {
			if err := t.cancelRange(ctx, i.seq, i.jobs, qgjob.CauseSuperseded, live); err != nil {
				return err
			}
		}
		if len(older) == 0 || seen < supersededAtOnce {
			return nil
		}
	}
}

// cancelRange asks for the end of those jobs of a run that have none.
func (t *tx) cancelRange(ctx context.Context, seq, jobs int64, cause qgjob.Cause, which func(*job) bool) error {
	if err := t.flush(ctx); err != nil { // what is read is what the transaction has
		return err
	}
	var found []*job
	err := t.query(ctx, func(row scanner) error {
		j, err := scanJob(row)
		found = append(found, j)
		return err
	}, `select `+jobColumns+` from jobs j, runs r where j.seq >= $1 and j.seq < $2 and j.state in ('queued', 'running') and r.seq = j.run_seq order by j.seq`, seq, seq+jobs)
	if err != nil {
		return err
	}
	for _, j := range found {
		if j = t.own(j); which(j) {
			if err := t.cancel(j, cause); err != nil {
				return err
			}
		}
	}
	return nil
}

// GiveUp cancels the jobs that no device has taken in the time that their run has in the queue. Any server may call it at
// any time; it writes only when such a time has come.
func (s *Store) GiveUp(ctx context.Context) error {
	due := false
	err := s.snapshot(ctx, func(query queryFunc) error {
		now, err := s.readClock(query)
		if err != nil {
			return err
		}
		return query(func(row scanner) error {
			due = true
			return row.Scan(new(int64))
		}, `select queue_until_ms from run_facts where queue_until_ms > 0 and queue_until_ms <= $1 limit 1`, now)
	})
	if err != nil || !due {
		return err
	}
	return s.write(ctx, func(ctx context.Context, t *tx) error { return t.giveUp(ctx) })
}

// giveUp cancels the jobs that no device has taken within their run's time in the queue. A job that is tried again has been
// taken.
func (t *tx) giveUp(ctx context.Context) error {
	due, err := t.runsOf(ctx, `
		select r.seq, r.jobs from run_facts f, runs r
		where f.queue_until_ms > 0 and f.queue_until_ms <= $1 and r.seq = f.run_seq order by f.queue_until_ms limit $2`, t.now, reapLimit)
	if err != nil {
		return err
	}
	for _, i := range due {
		err := t.cancelRange(ctx, i.seq, i.jobs, qgjob.CauseQueueTimedOut, func(j *job) bool { return j.State == qgjob.Queued && j.StartedAt == nil })
		if err != nil {
			return err
		}
		if err := t.exec(ctx, `update run_facts set queue_until_ms = 0 where run_seq = $1`, i.seq); err != nil {
			return err
		}
	}
	return nil
}

func live(*job) bool { return true }

// CancelRun asks for the end of every job of a run that has none yet. Cancel says what that does to each.
func (s *Store) CancelRun(ctx context.Context, org, runID string) error {
	return s.write(ctx, func(ctx context.Context, t *tx) error {
		seq, jobs := int64(-1), int64(0)
		err := t.query(ctx, func(row scanner) error { return row.Scan(&seq, &jobs) },
			`select seq, jobs from runs where id = $1 and ($2 = '' or org_id = $2)`, runID, org)
		if err != nil {
			return err
		}
		if seq < 0 {
			return noRun(runID)
		}
		return t.cancelRange(ctx, seq, jobs, qgjob.CauseCanceled, live)
	})
}

var selectAttemptsOfRun = byJobs(`
	select a.job_seq, j.id, ` + attemptRow + `
	from jobs j, attempts a where {seq} >= $1 and {seq} < $2 and {of j}`)

// RunAttempts returns the attempts of all jobs of a run, those of one job together and in their order.
func (s *Store) RunAttempts(ctx context.Context, org, runID string) ([]qgjob.Attempt, error) {
	attempts := []qgjob.Attempt{}
	err := s.snapshot(ctx, func(query queryFunc) error {
		seq, jobs := int64(-1), int64(0)
		err := query(func(row scanner) error { return row.Scan(&seq, &jobs) },
			`select seq, jobs from runs where id = $1 and ($2 = '' or org_id = $2)`, runID, org)
		if err != nil {
			return err
		}
		if seq < 0 {
			return noRun(runID)
		}
		type place struct {
			seq int64
			a   qgjob.Attempt
		}
		var found []place
		err = query(func(row scanner) error {
			var seq int64
			var job string
			a, err := scanAttemptRow(after{row, []any{&seq, &job}})
			a.JobID = job
			found = append(found, place{seq, a})
			return err
		}, selectAttemptsOfRun, seq, seq+jobs)
		slices.SortFunc(found, func(a, b place) int { return cmp.Or(cmp.Compare(a.seq, b.seq), a.a.Number-b.a.Number) })
		for _, p := range found {
			attempts = append(attempts, p.a)
		}
		return err
	})
	return attempts, err
}

// after is a row whose first columns are read beside what the others are read into.
type after struct {
	row   scanner
	first []any
}

func (r after) Scan(dest ...any) error { return r.row.Scan(append(r.first, dest...)...) }

func noRun(id string) error { return qgjob.Errorf(qgjob.CodeNotFound, "there is no run %s", id) }
