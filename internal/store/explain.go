package store

import (
	"context"
	"encoding/json"
	"slices"
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
	Unserved    bool          // no device that is available can run it: P50 and P90 are 0
}

// Choice is why an attempt ran where it did.
type Choice struct {
	Number   int
	DeviceID string
	Reason   string
	Why      sched.Why
}

var selectChoices = newByJob(`select number, device_id, reason, why from attempts where {job}`)

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
			if e.Waiting, err = t.waitingOf(ctx, j, org); err != nil {
				return err
			}
		}
		query := func(scan func(scanner) error, text string, args ...any) error {
			return t.query(ctx, scan, text, args...)
		}
		return selectChoices.read(query, j, func(row scanner) error {
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
		})
	})
	return e, err
}

func (t *tx) waitingOf(ctx context.Context, j *job, to string) (*Waiting, error) {
	if err := t.flush(ctx); err != nil {
		return nil, err
	}
	l := t.b.lanes[t.b.lane(j)]
	snapshot, free := t.fleet()
	if err := t.fillOverflowing(ctx, free); err != nil {
		return nil, err
	}
	if err := t.fill(ctx, map[*laneState]int{l: min(len(free)+1, l.queued)}); err != nil {
		return nil, err
	}
	lanes := t.addLanes(&snapshot, free, l)
	w := &Waiting{Position: 1}
	var behindMS int64
	err := t.row(ctx, func(row scanner) error { return row.Scan(&w.Position, &behindMS) }, `
		select (select count(*) from queue where lane_id = $1 and job_seq <= $2),
			(select cast(coalesce(sum(j.expected_ms), 0) as bigint) from queue q, jobs j where q.lane_id = $1 and q.job_seq > $2 and j.seq = q.job_seq)`,
		l.id, j.seq)
	if err != nil {
		return nil, err
	}
	explained := sched.Explain(snapshot, at(t.now), slices.Index(lanes, l), time.Duration(behindMS)*time.Millisecond, to)
	w.Level, w.Constraints = explained.Level, explained.Constraints
	if o := t.b.overflows[j.runSeq]; o != nil && o.closed != "" && !j.Target.Accepts(qgjob.TargetBrowserStack) {
		w.Constraints = append(w.Constraints, sched.Constraint{Kind: sched.ConstraintBudget, Text: "overflows to BrowserStack no more: " + o.closed})
	}
	if w.Unserved = explained.Unserved; !w.Unserved {
		w.P50, w.P90 = t.b.calibration.Waits(explained.Expected)
	}
	return w, nil
}
