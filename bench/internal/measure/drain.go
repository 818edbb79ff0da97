package measure

import (
	"context"
	"sync/atomic"
	"time"

	"qgjob/bench/internal/contest"
	"qgjob/bench/internal/result"
)

// oneByOne is more jobs a second than any crew does that asks for one job at a time.
const oneByOne = 30_000

// Drains measures how many jobs a second crews do that have nothing to do but to say so. What counts is what has
// ended durably. A crew that is through with most of its jobs before the time is measured until then.
func Drains(ctx context.Context, s Session, c contest.Contestant[contest.Queue]) error {
	for _, crew := range s.Size.Crews {
		if c.Library && crew.Devices > 1 {
			continue
		}
		pace := c.Pace
		if crew.Devices == 1 {
			pace = min(pace, oneByOne)
		}
		fill := max(10_000, int(float64(pace)*(s.Size.Warm+s.Size.Window).Seconds()))
		err := on(ctx, s, c, func(q contest.Queue) error {
			rate, cost, err := drainRate(ctx, s, q, "drain "+c.Name, crew, fill)
			if err != nil {
				return err
			}
			s.Record(result.Drain, c.Name, crew.String(), rate)
			if cost > 0 {
				s.Record(result.CPU, c.Name, "drain, "+crew.String(), cost)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// drainRate is how many jobs a second a crew does, and what each costs a server in processor time.
func drainRate(ctx context.Context, s Session, q contest.Queue, name string, crew contest.Crew, filled int) (rate, cost float64, err error) {
	if err := fill(ctx, q, filled); err != nil {
		return 0, 0, err
	}
	if err := q.Settle(ctx); err != nil {
		return 0, 0, err
	}
	var started atomic.Int64
	crew.Started = func() { started.Add(1) }
	err = staff(ctx, q, crew, func(ctx context.Context) error {
		warm := time.Now()
		for time.Since(warm) < s.Size.Warm || started.Load() < int64(2*crew.Workers*crew.Devices) {
			if err := pause(ctx, time.Millisecond); err != nil {
				return err
			}
		}
		cpu, err := s.meter(ctx, q, name+" "+crew.String())
		if err != nil {
			return err
		}
		begin := time.Now()
		before, err := q.Completed(ctx)
		if err != nil {
			return err
		}
		// Near the end of the queue there is not work for everybody: that is another measurement.
		enough := int64(filled) * 9 / 10
		first := started.Load()
		for started.Load() < enough && (time.Since(begin) < s.Size.Window || started.Load() == first) {
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
		cost, err = cpu.each(float64(after - before))
		return err
	})
	return rate, cost, err
}
