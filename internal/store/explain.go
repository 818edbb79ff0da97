package store

import (
	"context"
	"encoding/json"
	"time"

	"qgjob"
	"qgjob/internal/sched"
)

// Explanation says why a job waits, and why its attempts ran where they did.
type Explanation struct {
	Job      qgjob.Job
	Waiting  *Waiting // nil for a job that is not queued
	Attempts []Choice
}

// Waiting is what holds a queued job back.
type Waiting struct {
	Level       int // its priority, risen with age
	Position    int // in its lane, from 1
	Constraints []sched.Constraint
	P50, P90    time.Duration // until it is expected to start, if nothing more urgent is submitted
}

// Choice is why an attempt ran where it did.
type Choice struct {
	Number   int
	DeviceID string
	Reason   string
	Why      sched.Why
}

// Explain makes the plan of this moment, without carrying it out, and says what it means for a job. An empty org
// is any organization.
func (s *Store) Explain(ctx context.Context, org, jobID string) (Explanation, error) {
	var e Explanation
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		e = Explanation{}
		j, err := t.find(ctx, org, jobID)
		if err != nil {
			return err
		}
		e.Job = j.Job
		if j.State == qgjob.Queued {
			if e.Waiting, err = t.waitingOf(ctx, j); err != nil {
				return err
			}
		}
		return t.query(ctx, func(row scanner) error {
			var c Choice
			var why string
			if err := row.Scan(&c.Number, &c.DeviceID, &c.Reason, &why); err != nil {
				return err
			}
			e.Attempts = append(e.Attempts, c)
			if why == "" {
				return nil
			}
			return json.Unmarshal([]byte(why), &e.Attempts[len(e.Attempts)-1].Why)
		}, `select number, device_id, reason, why from attempts where job_seq = $1 order by number`, j.seq)
	})
	return e, err
}

func (t *tx) waitingOf(ctx context.Context, j *job) (*Waiting, error) {
	if err := t.flush(ctx); err != nil {
		return nil, err
	}
	l := t.b.lanes[j.lane()]
	snapshot, free := t.fleet()
	lanes := t.b.urgentLanes(free)
	at0 := -1
	for i, other := range lanes {
		snapshot.Lanes = append(snapshot.Lanes, other.snapshot())
		if other == l {
			at0 = i
		}
	}
	if at0 < 0 {
		at0 = len(lanes)
		snapshot.Lanes = append(snapshot.Lanes, l.snapshot())
	}
	w := &Waiting{Position: 1}
	var behindMS int64
	err := t.row(ctx, func(row scanner) error { return row.Scan(&w.Position, &behindMS) }, `
		select (select count(*) from queue where lane_id = $1 and job_seq <= $2),
			(select cast(coalesce(sum(j.expected_ms), 0) as bigint) from queue q, jobs j where q.lane_id = $1 and q.job_seq > $2 and j.seq = q.job_seq)`,
		l.id, j.seq)
	if err != nil {
		return nil, err
	}
	now := at(t.now)
	explained := sched.Explain(snapshot, now, at0)
	w.Level, w.Constraints = explained.Level, explained.Constraints
	expected := sched.New(snapshot, now).Expected(at0, time.Duration(behindMS)*time.Millisecond)
	w.P50, w.P90 = sched.Calibration{}.Waits(expected)
	return w, nil
}

// SetOrganization gives an organization its weight beside others (1000 is one) and the number of devices that it
// may use at once (0 is no limit).
func (s *Store) SetOrganization(ctx context.Context, id string, weightPermille int64, maxDevices int) error {
	return s.write(ctx, func(_ context.Context, t *tx) error {
		o := t.b.org(id)
		o.weightPermille, o.maxDevices = weightPermille, maxDevices
		t.orgs[o] = struct{}{}
		t.unplan()
		return nil
	})
}
