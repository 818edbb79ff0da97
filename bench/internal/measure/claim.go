package measure

import (
	"context"
	"fmt"
	"time"

	"qgjob/bench/internal/contest"
	"qgjob/bench/internal/result"
)

// claimCrew claims, and burst is how many jobs it may claim at a time.
var claimCrew = contest.Crew{Workers: 64, Devices: 1}

const burst = 500

// Claims measures how many jobs a second 64 workers start and end at growing depths of the queue. So that the depth
// does not change they do so in bursts of 500, timed from the moment that they may to the start of the last one,
// and what they took is submitted again in between. A server's memory is measured before and after; one that can be
// looked at closer is, at the last depth.
func Claims(ctx context.Context, s Session, c contest.Contestant[contest.Queue]) error {
	return on(ctx, s, c, func(q contest.Queue) error {
		if err := memory(ctx, s, c.Name, "idle", q); err != nil {
			return err
		}
		depth := 0
		for _, next := range s.Size.Depths {
			if err := fill(ctx, q, next-depth); err != nil {
				return err
			}
			depth = next
			if err := q.Settle(ctx); err != nil {
				return err
			}
			rate, err := claimRate(ctx, s.Size.Bursts, q)
			if err != nil {
				return err
			}
			s.Record(result.Claim, c.Name, depthCase(depth), rate)
		}
		if err := memory(ctx, s, c.Name, depthCase(depth), q); err != nil {
			return err
		}
		if d, ok := q.(Deep); ok {
			return d.Deep(ctx, s, c.Name)
		}
		return nil
	})
}

// Deep is a Queue that can be looked at closer when it is deep.
type Deep interface {
	Deep(ctx context.Context, s Session, name string) error
}

func depthCase(n int) string {
	switch {
	case n >= 1_000_000:
		return fmt.Sprintf("%d million queued", n/1_000_000)
	default:
		return fmt.Sprintf("%d thousand queued", n/1_000)
	}
}

func claimRate(ctx context.Context, bursts int, q contest.Queue) (float64, error) {
	starts := make(chan time.Time, burst)
	crew := claimCrew
	crew.Gate = contest.NewGate()
	crew.Started = func() { starts <- time.Now() }
	var took time.Duration
	err := staff(ctx, q, crew, func(ctx context.Context) error {
		const warm = 2 // connections, prepared statements
		for i := range bursts + warm {
			begin := time.Now()
			crew.Gate.Open(burst)
			var last time.Time
			for range burst {
				select {
				case last = <-starts:
				case <-ctx.Done():
					return context.Cause(ctx)
				case <-time.After(time.Minute):
					return fmt.Errorf("a burst of %d jobs did not start within a minute", burst)
				}
			}
			if i >= warm {
				took += last.Sub(begin)
			}
			if err := fill(ctx, q, burst); err != nil {
				return err
			}
		}
		return nil
	})
	return float64(bursts*burst) / took.Seconds(), err
}
