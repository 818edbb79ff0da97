package store

import (
	"context"
	"math/rand/v2"
	"time"

	"qgjob"
	"qgjob/internal/sched"
)

const (
	predictionsKept = 64 // that wait for what comes of them
	predictionsMade = 8  // at a time
)

// calibrationKey is where the calibration is kept among the estimates.
var calibrationKey = estimateKey{kind: "calibration"}

// prediction is what was said of when a job starts.
type prediction struct {
	jobSeq   int64
	made     int64 // in milliseconds
	p50, p90 time.Duration
}

// Calibrate compares what was predicted of waiting jobs with what has come of them, learns from that for the next
// predictions, and predicts of a few more that wait. Predictions are this server's own and end with it; what was
// learned is everybody's. One goroutine at a time calls it, every few seconds.
func (s *Store) Calibrate(ctx context.Context) error {
	var kept []prediction
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		kept = nil
		if len(s.predictions) == 0 && len(t.b.lanes) == 0 {
			return nil
		}
		known := map[int64]bool{}
		for _, p := range s.predictions {
			waits, err := t.judge(ctx, p)
			if err != nil {
				return err
			}
			if waits {
				kept = append(kept, p)
			}
			known[p.jobSeq] = true
		}
		made, err := t.predict(ctx, known, min(predictionsMade, predictionsKept-len(kept)))
		kept = append(kept, made...)
		return err
	})
	if err == nil {
		s.predictions = kept
	}
	return err
}

// judge learns what came of a prediction. waits says that this is still to be seen. What waits beyond its p90 is judged
// before it starts: whoever looks only at what has started learns too late of long waits.
func (t *tx) judge(ctx context.Context, p prediction) (waits bool, err error) {
	var started int64
	var state qgjob.JobState
	err = t.row(ctx, func(row scanner) error { return row.Scan(&started, &state) }, `select started_at_ms, state from jobs where seq = $1`, p.jobSeq)
	if err != nil {
		return false, err
	}
	waited := time.Duration(t.now-p.made) * time.Millisecond
	switch {
	case started > 0:
		waited = time.Duration(started-p.made) * time.Millisecond
	case state != qgjob.Queued: // canceled
		return false, nil
	case waited <= p.p90:
		return true, nil
	}
	t.b.calibration = t.b.calibration.Observe(waited, p.p50, p.p90)
	t.estimates[calibrationKey] = struct{}{}
	t.count("", predictionsJudged, 1)
	if waited <= p.p50 {
		t.count("", startedByP50, 1)
	}
	if waited <= p.p90 {
		t.count("", startedByP90, 1)
	}
	return false, nil
}

// predict says of the newest jobs of some lanes when they will start.
func (t *tx) predict(ctx context.Context, known map[int64]bool, most int) ([]prediction, error) {
	if most == 0 || len(t.b.lanes) == 0 {
		return nil, nil
	}
	if err := t.flush(ctx); err != nil {
		return nil, err
	}
	snapshot, free := t.fleet()
	lanes := t.addLanes(&snapshot, free, nil)
	planner := sched.New(snapshot, at(t.now))
	var made []prediction
	for _, i := range rand.Perm(len(lanes))[:min(most, len(lanes))] {
		if t.b.overflows[lanes[i].runSeq] != nil || !planner.Served(i) {
			continue // what is bought, and what has no device, tells nothing of how others wait
		}
		var newest, started int64
		err := t.query(ctx, func(row scanner) error { return row.Scan(&newest, &started) },
			`select j.seq, j.started_at_ms from jobs j where j.seq = (select max(job_seq) from queue where lane_id = $1)`, lanes[i].id)
		if err != nil {
			return nil, err
		}
		if newest == 0 || started > 0 || known[newest] {
			continue
		}
		p := prediction{jobSeq: newest, made: t.now}
		p.p50, p.p90 = t.b.calibration.Waits(planner.Expected(i, 0))
		made = append(made, p)
	}
	return made, nil
}
