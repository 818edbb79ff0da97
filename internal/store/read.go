package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"qgjob"
)

// Run returns a run with its jobs. An empty org is any organization.
func (s *Store) Run(ctx context.Context, org, id string) (qgjob.Run, error) {
	run := qgjob.Run{Jobs: []qgjob.Job{}}
	err := s.snapshot(ctx, func(query queryFunc) error {
		var seq, jobs, submitted int64
		err := query(func(row scanner) error {
			return row.Scan(&seq, &run.ID, &run.OrgID, &run.AppVersionID, &run.PreviousID, &jobs, &submitted)
		}, `
			select seq, id, org_id, app_version_id, previous_id, jobs, submitted_at_ms
			from runs where id = $1 and ($2 = '' or org_id = $2)`, id, org)
		if err != nil {
			return err
		}
		if run.ID == "" {
			return noRun(id)
		}
		run.SubmittedAt = at(submitted)
		if err := readFacts(query, seq, &run); err != nil {
			return err
		}
		if err := readEnvironment(query, seq, &run); err != nil {
			return err
		}
		if err := readOverflow(query, seq, &run); err != nil {
			return err
		}
		return query(func(row scanner) error {
			j, err := scanJob(row)
			if err == nil {
				run.Jobs = append(run.Jobs, j.Job)
			}
			return err
		}, `select `+jobColumns+` from jobs j, runs r where j.seq >= $1 and j.seq < $2 and r.seq = j.run_seq order by j.seq`, seq, seq+jobs)
	})
	if err != nil {
		return qgjob.Run{}, err
	}
	states := make([]qgjob.JobState, len(run.Jobs))
	for i, j := range run.Jobs {
		states[i] = j.State
	}
	run.State = qgjob.RunState(states)
	return run, nil
}

// readJob reads one job by id. An empty org is any organization.
func readJob(query queryFunc, org, id string) (*job, error) {
	var j *job
	err := query(func(row scanner) (err error) {
		j, err = scanJob(row)
		return err
	}, `select `+jobColumns+` from jobs j, runs r where j.id = $1 and ($2 = '' or j.org_id = $2) and r.seq = j.run_seq`, id, org)
	if err == nil && j == nil {
		return nil, noJob(id)
	}
	return j, err
}

const attemptRow = `a.id, a.number, a.worker_id, a.device_id, a.reason, a.outcome, a.cause, a.message, a.report, a.assigned_at_ms, a.ended_at_ms`

var selectAttemptsOfJob = newByJob(`select ` + attemptRow + ` from attempts a where {job}`)

// Job returns a job with its attempts and events. An empty org is any organization.
func (s *Store) Job(ctx context.Context, org, id string) (JobDetail, error) {
	d := JobDetail{Attempts: []qgjob.Attempt{}, Events: []qgjob.Event{}}
	err := s.snapshot(ctx, func(query queryFunc) error {
		j, err := readJob(query, org, id)
		if err != nil {
			return err
		}
		d.Job = j.Job
		if err := selectAttemptsOfJob.read(query, j, func(row scanner) error {
			a, err := scanAttemptRow(row)
			a.JobID = id
			d.Attempts = append(d.Attempts, a)
			return err
		}); err != nil {
			return err
		}
		d.Events, err = readEvents(query, j, 0)
		return err
	})
	return d, err
}

// scanAttemptRow reads attemptRow.
func scanAttemptRow(row scanner) (qgjob.Attempt, error) {
	var a qgjob.Attempt
	var report string
	var assigned, ended int64
	err := row.Scan(&a.ID, &a.Number, &a.WorkerID, &a.DeviceID, &a.Reason, &a.Outcome, &a.Cause, &a.Message, &report, &assigned, &ended)
	if err != nil {
		return a, err
	}
	a.AssignedAt, a.EndedAt = at(assigned), atOrNil(ended)
	if report != "" {
		if err := json.Unmarshal([]byte(report), &a.Report); err != nil {
			return a, fmt.Errorf("read the report of attempt %s: %w", a.ID, err)
		}
	}
	return a, nil
}

// Events returns the events of a job with a number above after.
func (s *Store) Events(ctx context.Context, org, jobID string, after int) ([]qgjob.Event, error) {
	var events []qgjob.Event
	err := s.snapshot(ctx, func(query queryFunc) error {
		j, err := readJob(query, org, jobID)
		if err == nil {
			events, err = readEvents(query, j, after)
		}
		return err
	})
	return events, err
}

var selectEvents = newByJob(`
	select number, device_id, reason, assigned_event, assigned_at_ms, trigger, outcome, cause, message, ended_event, ended_at_ms
	from attempts where {job} and (assigned_event > $2 or ended_event > $2)`)

// readEvents makes the events of a job with a number above after, of its submit, its attempts and its cancel.
func readEvents(query queryFunc, j *job, after int) ([]qgjob.Event, error) {
	events := []qgjob.Event{}
	add := func(seq int, e qgjob.Event, ms int64) {
		if seq > after {
			e.JobID, e.Seq, e.At = j.ID, seq, at(ms)
			events = append(events, e)
		}
	}
	add(1, qgjob.Event{Trigger: qgjob.Submit, State: qgjob.Queued}, j.SubmittedAt.UnixMilli())
	err := selectEvents.read(query, j, func(row scanner) error {
		var e qgjob.Event
		var trigger qgjob.Trigger
		var outcome qgjob.Outcome
		var cause qgjob.Cause
		var reason, message string
		var assigned, ended int
		var assignedMS, endedMS int64
		err := row.Scan(&e.Attempt, &e.DeviceID, &reason, &assigned, &assignedMS, &trigger, &outcome, &cause, &message, &ended, &endedMS)
		if err != nil {
			return err
		}
		e.Trigger, e.State, e.Message = qgjob.Assign, qgjob.Running, reason
		add(assigned, e, assignedMS)
		if ended == 0 {
			return nil
		}
		if trigger == qgjob.Pass && outcome != qgjob.OutcomePassed {
			cause = j.Cause // its tests' failures were excused
		}
		e.Trigger, e.Outcome, e.Cause, e.Message = trigger, outcome, cause, message
		e.State, err = stateAfter(trigger)
		add(ended, e, endedMS)
		return err
	}, after)
	if err != nil {
		return nil, err
	}
	if len(events) < j.events-after {
		err = query(func(row scanner) error {
			e := qgjob.Event{Trigger: qgjob.Cancel, State: qgjob.Canceled}
			var seq int
			var ms int64
			err := row.Scan(&seq, &e.Attempt, &e.DeviceID, &e.Cause, &ms)
			if e.Attempt > 0 {
				e.State = qgjob.Canceling
			}
			add(seq, e, ms)
			return err
		}, `select event, attempt, device_id, cause, at_ms from cancels where job_seq = $1`, j.seq)
	}
	slices.SortFunc(events, func(a, b qgjob.Event) int { return a.Seq - b.Seq })
	return events, err
}
