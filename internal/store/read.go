package store

import (
	"context"
	"encoding/json"
	"fmt"

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

// Job returns a job with its attempts and events. An empty org is any organization.
func (s *Store) Job(ctx context.Context, org, id string) (JobDetail, error) {
	d := JobDetail{Attempts: []qgjob.Attempt{}, Events: []qgjob.Event{}}
	err := s.snapshot(ctx, func(query queryFunc) error {
		j, err := readJob(query, org, id)
		if err != nil {
			return err
		}
		d.Job = j.Job
		if err := query(func(row scanner) error {
			a, err := scanAttemptRow(row)
			a.JobID = id
			d.Attempts = append(d.Attempts, a)
			return err
		}, `
			select id, number, worker_id, device_id, reason, outcome, cause, message, report, assigned_at_ms, ended_at_ms
			from attempts where job_seq = $1 order by number`, j.seq); err != nil {
			return err
		}
		d.Events, err = readEvents(query, j, 0)
		return err
	})
	return d, err
}

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

func readEvents(query queryFunc, j *job, after int) ([]qgjob.Event, error) {
	events := []qgjob.Event{}
	err := query(func(row scanner) error {
		e := qgjob.Event{JobID: j.ID}
		var ms int64
		err := row.Scan(&e.Seq, &e.Trigger, &e.State, &e.Attempt, &e.DeviceID, &e.Outcome, &e.Cause, &e.Message, &ms)
		e.At = at(ms)
		events = append(events, e)
		return err
	}, `
		select seq, trigger, state, attempt, device_id, outcome, cause, message, at_ms
		from events where job_seq = $1 and seq > $2 order by seq`, j.seq, after)
	return events, err
}
