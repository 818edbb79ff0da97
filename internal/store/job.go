package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"qgjob"
)

// job is a job as a write transaction holds it.
type job struct {
	qgjob.Job
	seq, runSeq   int64
	prefer, avoid string // devices of its next attempt
	first         string // id of its first attempt
	events        int    // number of its newest event
	fresh         bool   // its row is still to be written
	expectedMS    int64  // run time as expected at submit
	excused       bool   // the tests that failed in the attempt that ends are quarantined, all of them
}

const jobColumns = `
	j.seq, j.run_seq, j.id, r.id, j.org_id, j.app_version_id, j.test_path, j.priority, j.target,
	r.bundle_sha256, r.build_sha256, r.project, r.config_path, r.environment, r.video,
	j.state, j.cause, j.message, j.flaky, j.attempts, j.test_failures, j.infra_errors,
	j.prefer_device, j.avoid_device, j.first_attempt, j.events, j.shard, j.requires, j.expected_ms, j.quarantined, r.submitted_at_ms, j.started_at_ms, j.ended_at_ms`

// scanJob reads jobColumns, after any columns that the caller reads itself.
func scanJob(row scanner, before ...any) (*job, error) {
	j := &job{}
	var submitted, started, ended int64
	dest := append(before, &j.seq, &j.runSeq, &j.ID, &j.RunID, &j.OrgID, &j.AppVersionID, &j.TestPath, &j.Priority, &j.Target,
		&j.BundleSHA256, &j.BuildSHA256, &j.Project, &j.ConfigPath, &j.Environment, &j.Video,
		&j.State, &j.Cause, &j.Message, &j.Flaky, &j.Attempts, &j.TestFailures, &j.InfraErrors,
		&j.prefer, &j.avoid, &j.first, &j.events, &j.Shard, &j.Requires, &j.expectedMS, &j.Quarantined, &submitted, &started, &ended)
	if err := row.Scan(dest...); err != nil {
		return nil, err
	}
	j.SubmittedAt, j.StartedAt, j.EndedAt = at(submitted), atOrNil(started), atOrNil(ended)
	return j, nil
}

// find reads one job by id, as the transaction has it. An empty org is any organization.
func (t *tx) find(ctx context.Context, org, id string) (*job, error) {
	var j *job
	err := t.row(ctx, func(row scanner) (err error) {
		j, err = scanJob(row)
		return err
	}, `select `+jobColumns+` from jobs j, runs r where j.id = $1 and r.seq = j.run_seq and ($2 = '' or j.org_id = $2)`, id, org)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, noJob(id)
	}
	if err != nil {
		return nil, err
	}
	return t.own(j), nil
}

// own is a job that was read as the transaction has it: what it changed, or what the board remembers.
func (t *tx) own(j *job) *job {
	if changed := t.changed[j.seq]; changed != nil {
		return changed
	}
	if a := t.b.ofJob[j.seq]; a != nil {
		return a.job
	}
	if head := t.b.queuedJob(t.b.lanes[t.b.lane(j)], j.seq); head != nil {
		return head
	}
	return j
}

func noJob(id string) error {
	return qgjob.Errorf(qgjob.CodeNotFound, "there is no job %s", id)
}

func (j *job) mutable() []any {
	return []any{
		j.seq, j.State, j.Cause, j.Message, j.Flaky, j.Attempts, j.TestFailures, j.InfraErrors,
		j.prefer, j.avoid, j.events, millis(j.StartedAt), millis(j.EndedAt), j.Quarantined, j.first,
	}
}

func (j *job) row() []any {
	return []any{
		j.seq, j.ID, j.runSeq, j.OrgID, j.AppVersionID, j.Target, j.Priority, j.TestPath,
		j.State, j.Cause, j.Message, j.Flaky, j.Attempts, j.TestFailures, j.InfraErrors,
		j.prefer, j.avoid, j.events, millis(j.StartedAt), millis(j.EndedAt), j.Shard, j.Requires, j.expectedMS, j.first,
	}
}

// move is how every job changes its state: by the one transition function, with its lane, its counters and the number of
// its event, which is to be written with what made it happen. What the move means for the next attempt (prefer, avoid)
// is set before.
func (t *tx) move(j *job, on qgjob.Trigger) error {
	from := j.State
	to, err := from.Next(on)
	if err != nil {
		return err
	}
	if from == qgjob.Queued {
		if err := t.dequeue(j); err != nil {
			return err
		}
	}
	if to == qgjob.Queued {
		t.enqueue(j)
	}
	if from != "" {
		t.count(j.OrgID, jobsIn+string(from), -1)
		t.publish(TopicJob(j.ID))
		if !j.fresh {
			t.changed[j.seq] = j
		}
	}
	t.count(j.OrgID, jobsIn+string(to), 1)
	j.State = to
	j.events++
	if to.IsVerdict() {
		ended := at(t.now)
		j.EndedAt = &ended
		t.judged(j)
	}
	if to == qgjob.Failed || to == qgjob.Errored {
		t.failedIn[j.RunID] = struct{}{}
	}
	return nil
}

// attempt is an attempt as a write transaction holds it.
type attempt struct {
	id, token, org, worker, device string
	reason, why                    string // why is the reason as JSON, of one that was made now
	job                            *job   // of an open one
	jobSeq                         int64
	number, assignedEvent          int
	outcome                        qgjob.Outcome
	resultHash                     string
	trigger                        qgjob.Trigger
	retry                          int
	acknowledged, cancelTold       bool
	logReceived                    int64
	assigned, expires              int64
	saved                          int64 // expires as it is in the database
}

const attemptColumns = `
	a.id, a.token, a.org_id, a.worker_id, a.device_id, a.reason, a.job_seq, a.number,
	a.outcome, a.result_hash, a.trigger, a.retry, a.acknowledged, a.cancel_told, a.log_received, a.assigned_at_ms, a.expires_at_ms`

// columns are where attemptColumns go.
func (a *attempt) columns() []any {
	return []any{
		&a.id, &a.token, &a.org, &a.worker, &a.device, &a.reason, &a.jobSeq, &a.number,
		&a.outcome, &a.resultHash, &a.trigger, &a.retry, &a.acknowledged, &a.cancelTold, &a.logReceived, &a.assigned, &a.expires,
	}
}

// byJob is a statement over the attempts of one job, in two parts: the job names its first attempt, and an index has the others, which are few.
type byJob struct{ first, others string }

// newByJob takes a text whose {job} is the condition that selects the job's attempts. Its parameters begin with $2.
func newByJob(text string) byJob {
	return byJob{
		first:  strings.Replace(text, "{job}", "id = $1", 1),
		others: strings.Replace(text, "{job}", "job_seq = $1 and number > 1", 1) + " order by number",
	}
}

// read scans what the statement finds, in the order of the attempts.
func (s byJob) read(query queryFunc, j *job, scan func(scanner) error, args ...any) error {
	if j.Attempts == 0 {
		return nil
	}
	err := query(scan, s.first, append([]any{j.first}, args...)...)
	if err != nil || j.Attempts == 1 {
		return err
	}
	return query(scan, s.others, append([]any{j.seq}, args...)...)
}

// byJobs makes a statement over several jobs j and their attempts a of a text in which {seq} is a job's sequence and {of j} ties an attempt to its
// job. The rows are in no order: PostgreSQL is kept from sorting them.
func byJobs(text string) string {
	first := strings.NewReplacer("{seq}", "j.seq", "{of j}", "a.id = j.first_attempt")
	others := strings.NewReplacer("{seq}", "a.job_seq", "{of j}", "j.seq = a.job_seq and a.number > 1")
	return first.Replace(text) + " union all " + others.Replace(text)
}

func (a *attempt) lease() Lease { return Lease{AttemptID: a.id, Token: a.token} }

// assignment is what the attempt's worker is to hear.
func (a *attempt) assignment() Assignment {
	return Assignment{Lease: a.lease(), DeviceID: a.device, Number: a.number, Reason: a.reason, Job: a.job.Job}
}

// renewal is how much of a lease may be lost with the board: so much later the database has to know of it.
const renewal = time.Second

// renew lets a worker's lease live on, and notes that its worker knows of it.
func (t *tx) renew(l Lease, worker string) {
	a := t.b.open[l.AttemptID]
	if a == nil || a.token != l.Token || a.worker != worker {
		return
	}
	a.expires = t.expiry()
	if !a.acknowledged || a.expires-a.saved >= renewal.Milliseconds() {
		a.acknowledged = true
		t.attempts[a] = struct{}{}
	}
}

// end ends an open attempt and moves its job by what that means. hash tells the worker's result from
// another one; it is empty when the server ends the attempt. It refuses, with a code and without having
// changed anything, what does not fit the job.
func (t *tx) end(ctx context.Context, a *attempt, r qgjob.Result, hash string) error {
	j := a.job
	s, err := j.Settle(r.Outcome, r.Cause)
	if err != nil {
		return err
	}
	if j.excused {
		s = qgjob.Settlement{Trigger: qgjob.Pass}
	}
	overflowed := t.overflowed(a)
	own := false
	if overflowed && s.Trigger == qgjob.Err {
		if own, err = t.ownFits(ctx, j); err != nil {
			return err
		}
	}
	if own {
		s = qgjob.Settlement{Trigger: qgjob.HandBack}
		j.InfraErrors = 0 // the cloud's: its own devices have theirs
		t.closeOverflow(a, r)
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
		if s.Prefer && !overflowed {
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
	case qgjob.Stop: // the cause is the cancel's
	}
	t.learn(a, r, s.InfraErrors > 0 && !overflowed)
	t.pay(a, r, hash != "")
	t.installed(a, r.Report)
	t.devices[t.b.devices[a.device]] = struct{}{}
	delete(t.attempts, a)
	t.b.end(a)
	t.count(a.org, attemptsOf+string(r.Outcome)+"/"+string(r.Cause), 1)
	if err := t.move(j, s.Trigger); err != nil {
		return err
	}
	t.ends = append(t.ends, []any{a.id, r.Outcome, r.Cause, r.Message, string(report), hash, s.Trigger, a.retry, t.now, j.events})
	return nil
}

// stateAfter is what a job is by the trigger with which an attempt of it ended.
func stateAfter(on qgjob.Trigger) (qgjob.JobState, error) {
	if on == qgjob.Stop {
		return qgjob.Canceling.Next(on)
	}
	return qgjob.Running.Next(on)
}

// answer is what a worker hears about a result that ended an attempt.
func (a *attempt) answer() (ResultAnswer, error) {
	state, err := stateAfter(a.trigger)
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
