package measure

import (
	"context"
	"sync/atomic"
	"time"

	"qgjob/bench/internal/contest"
)

// drainFill is how many jobs wait for a crew, by how many of them a worker takes at once. A crew that is through
// with most of them before its time is measured until then.
func drainFill(crew contest.Crew, window time.Duration) int {
	perSecond := 40_000
	if crew.Devices > 1 {
		perSecond = 120_000
	}
	return max(20_000, int(float64(perSecond)*window.Seconds()))
}

// Drains measures how many jobs a second crews do that have nothing to do but to say so. What counts is what has
// ended durably.
func Drains(ctx context.Context, s Session, c contest.Contestant[contest.Queue]) error {
	for _, crew := range s.Size.Crews {
		err := on(ctx, s, c, func(q contest.Queue) error {
			rate, err := drainRate(ctx, s.Size, q, crew)
			if err == nil {
				s.Record(Drain, c.Name, crew.String(), rate)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func drainRate(ctx context.Context, size Size, q contest.Queue, crew contest.Crew) (float64, error) {
	filled := drainFill(crew, size.Window)
	if err := fill(ctx, q, filled); err != nil {
		return 0, err
	}
	if err := q.Settle(ctx); err != nil {
		return 0, err
	}
	var started atomic.Int64
	crew.Started = func() { started.Add(1) }
	var rate float64
	err := staff(ctx, q, crew, func(ctx context.Context) error {
		warm := time.Now()
		for time.Since(warm) < size.Warm || started.Load() < int64(2*crew.Workers*crew.Devices) {
			if err := pause(ctx, time.Millisecond); err != nil {
				return err
			}
		}
		begin := time.Now()
		before, err := q.Completed(ctx)
		if err != nil {
			return err
		}
		// Near the end of the queue there is not work for everybody: that is another measurement.
		enough := int64(filled) * 9 / 10
		first := started.Load()
		for started.Load() < enough && (time.Since(begin) < size.Window || started.Load() == first) {
			if err := pause(ctx, time.Millisecond); err != nil {
				return err
			}
		}
		end := time.Now()
		after, err := q.Completed(ctx)
		if err != nil {
			return err
		}
		rate = float64(after-before) / end.Sub(begin).Seconds()
		return nil
	})
	return rate, err
}
