package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"qgjob"
)

// job is a job as a write transaction holds it.
type job struct {
	qgjob.Job
	seq           int64
	prefer, avoid string // devices of its next attempt
	events        int    // number of its newest event
}

const jobColumns = `
	j.seq, j.id, r.id, j.org_id, j.app_version_id, j.test_path, j.priority, j.target,
	r.bundle_sha256, r.build_sha256, r.project, r.config_path,
	j.state, j.cause, j.message, j.flaky, j.attempts, j.test_failures, j.infra_errors,
	j.prefer_device, j.avoid_device, j.events, r.submitted_at_ms, j.started_at_ms, j.ended_at_ms`

// scanJob reads jobColumns, after any columns that the caller reads itself.
func scanJob(row scanner, before ...any) (*job, error) {
	j := &job{}
	var submitted, started, ended int64
	dest := append(before, &j.seq, &j.ID, &j.RunID, &j.OrgID, &j.AppVersionID, &j.TestPath, &j.Priority, &j.Target,
		&j.BundleSHA256, &j.BuildSHA256, &j.Project, &j.ConfigPath,
		&j.State, &j.Cause, &j.Message, &j.Flaky, &j.Attempts, &j.TestFailures, &j.InfraErrors,
		&j.prefer, &j.avoid, &j.events, &submitted, &started, &ended)
	if err := row.Scan(dest...); err != nil {
		return nil, err
	}
	j.SubmittedAt, j.StartedAt, j.EndedAt = at(submitted), atOrNil(started), atOrNil(ended)
	return j, nil
}

var selectJobs = newBulk("i", `select `+jobColumns+` {from,} jobs j, runs r where j.seq = {1} and r.seq = j.run_seq`)

// load reads jobs by sequence. A job that the step has changed already is returned as changed.
func (t *tx) load(ctx context.Context, seqs []int64) (map[int64]*job, error) {
	jobs := make(map[int64]*job, len(seqs))
	var rows [][]any
	for _, seq := range seqs {
		if j, ok := t.changed[seq]; ok {
			jobs[seq] = j
		} else if _, ok := jobs[seq]; !ok {
			jobs[seq] = nil
			rows = append(rows, []any{seq})
		}
	}
	err := t.queryAll(ctx, selectJobs, rows, func(row scanner) error {
		j, err := scanJob(row)
		if err == nil {
			jobs[j.seq] = j
		}
		return err
	})
	return jobs, err
}

// find reads one job by id. An empty org is any organization.
func (t *tx) find(ctx context.Context, org, id string) (*job, error) {
	j, err := scanJob(t.row(ctx, `select `+jobColumns+` from jobs j, runs r where j.id = $1 and r.seq = j.run_seq and ($2 = '' or j.org_id = $2)`, id, org))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, noJob(id)
	}
	if err != nil {
		return nil, err
	}
	if changed, ok := t.changed[j.seq]; ok {
		return changed, nil
	}
	return j, nil
}

func noJob(id string) error {
	return qgjob.Errorf(qgjob.CodeNotFound, "there is no job %s", id)
}

func (j *job) lane() lane {
	return lane{org: j.OrgID, appVersion: j.AppVersionID, target: j.Target, priority: j.Priority, prefer: j.prefer, avoid: j.avoid}
}

func (j *job) mutable() []any {
	return []any{
		j.seq, j.State, j.Cause, j.Message, j.Flaky, j.Attempts, j.TestFailures, j.InfraErrors,
		j.prefer, j.avoid, j.events, millis(j.StartedAt), millis(j.EndedAt),
	}
}

// move is how every job changes its state: by the one transition function, with its event, its lane and its
// counters. e carries what the event says about an attempt. What the move means for the next attempt
// (prefer, avoid) is set before.
func (t *tx) move(j *job, on qgjob.Trigger, e qgjob.Event) error {
	from := j.State
	to, err := from.Next(on)
	if err != nil {
		return err
	}
	if from == qgjob.Queued {
		t.lane(j.lane()).removed++
	}
	if to == qgjob.Queued {
		c := t.lane(j.lane())
		if c.added == 0 || j.seq < c.oldest {
			c.oldest = j.seq
		}
		c.added++
		t.unplan()
	}
	if from != "" {
		t.count(j.OrgID, jobsIn+string(from), -1)
		t.publish(TopicJob(j.ID))
		t.changed[j.seq] = j
	}
	t.count(j.OrgID, jobsIn+string(to), 1)
	j.State = to
	j.events++
	if to.IsVerdict() {
		ended := at(t.now)
		j.EndedAt = &ended
	}
	t.events = append(t.events, []any{j.seq, j.events, j.OrgID, on, to, e.Attempt, e.DeviceID, e.Outcome, e.Cause, e.Message, t.now})
	return nil
}

// attempt is an attempt as a write transaction holds it.
type attempt struct {
	id, token, org, worker, device string
	jobSeq                         int64
	number                         int
	outcome                        qgjob.Outcome
	resultHash                     string
	trigger                        qgjob.Trigger
	retry                          int
	acknowledged, cancelTold       bool
	logReceived                    int64
}

const attemptColumns = `
	a.id, a.token, a.org_id, a.worker_id, a.device_id, a.job_seq, a.number,
	a.outcome, a.result_hash, a.trigger, a.retry, a.acknowledged, a.cancel_told, a.log_received`

func scanAttempt(row scanner) (*attempt, error) {
	a := &attempt{}
	err := row.Scan(&a.id, &a.token, &a.org, &a.worker, &a.device, &a.jobSeq, &a.number,
		&a.outcome, &a.resultHash, &a.trigger, &a.retry, &a.acknowledged, &a.cancelTold, &a.logReceived)
	return a, err
}

// end ends an open attempt and moves its job by what that means. hash tells the worker's result from
// another one; it is empty when the server ends the attempt. It refuses, with a code and without having
// changed anything, what does not fit the job.
func (t *tx) end(a *attempt, j *job, r qgjob.Result, hash string) error {
	s, err := j.Settle(r.Outcome, r.Cause)
	if err != nil {
		return err
	}
	report, err := json.Marshal(r.Report)
	if err != nil {
		return fmt.Errorf("encode the report of attempt %s: %w", a.id, err)
	}
	j.TestFailures += s.TestFailures
	j.InfraErrors += s.InfraErrors
	a.outcome, a.resultHash, a.trigger = r.Outcome, hash, s.Trigger
	switch s.Trigger {
	case qgjob.Retry:
		j.prefer, j.avoid = "", ""
		if s.Prefer {
			j.prefer = a.device
		}
		if s.Avoid {
			j.avoid = a.device
		}
		a.retry = j.TestFailures
		if s.InfraErrors > 0 {
			a.retry = j.InfraErrors
		}
	case qgjob.Pass:
		j.Flaky = j.TestFailures > 0
	case qgjob.Fail, qgjob.Err:
		j.Cause, j.Message = r.Cause, r.Message
	case qgjob.Stop:
		j.Cause = qgjob.CauseCanceled
	}
	t.ends = append(t.ends, []any{a.id, r.Outcome, r.Cause, r.Message, string(report), hash, s.Trigger, a.retry, t.now})
	t.count(a.org, attemptsOf+string(r.Outcome)+"/"+string(r.Cause), 1)
	return t.move(j, s.Trigger, qgjob.Event{Attempt: a.number, DeviceID: a.device, Outcome: r.Outcome, Cause: r.Cause, Message: r.Message})
}

// answer is what a worker hears about a result that ended an attempt.
func (a *attempt) answer() (ResultAnswer, error) {
	from := qgjob.Running
	if a.trigger == qgjob.Stop {
		from = qgjob.Canceling
	}
	state, err := from.Next(a.trigger)
	if err != nil {
		return ResultAnswer{}, err
	}
	r := ResultAnswer{AttemptID: a.id, Trigger: a.trigger, State: state}
	if a.trigger == qgjob.Retry {
		r.Retry, r.Retries = a.retry, qgjob.InfraRetries
		if a.outcome == qgjob.OutcomeFailed || a.outcome == qgjob.OutcomeTimedOut {
			r.Retries = qgjob.TestRetries
		}
	}
	return r, nil
}

// hashResult tells results apart.
func hashResult(r qgjob.Result) (string, error) {
	encoded, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("encode a result: %w", err)
	}
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:]), nil
}
