package measure

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"qgjob/bench/internal/contest"
	"qgjob/bench/internal/result"
)

// latencyCrew waits for the one job that there is.
var latencyCrew = contest.Crew{Workers: 16, Devices: 1}

// Latencies measures how long it takes from the moment that a client begins to submit to the moment that a waiting
// worker has the job, when there is nothing else to do. Jobs come at random, 50 ms apart on average, so that they do
// not fall into step with a contestant's polls.
func Latencies(ctx context.Context, s Session, c contest.Contestant[contest.Queue]) error {
	return on(ctx, s, c, func(q contest.Queue) error {
		if err := q.Settle(ctx); err != nil {
			return err
		}
		starts := make(chan time.Time, 1)
		crew := latencyCrew
		crew.Started = func() { starts <- time.Now() }
		var took []float64
		err := staff(ctx, q, crew, func(ctx context.Context) error {
			client, err := q.Client(ctx)
			if err != nil {
				return err
			}
			took, err = latencies(ctx, s.Size.Starts, client, starts)
			return errors.Join(err, client.Close())
		})
		if err != nil {
			return err
		}
		s.Record(result.Latency, c.Name, "p50", result.Quantile(took, 0.5))
		s.Record(result.Latency, c.Name, "p99", result.Quantile(took, 0.99))
		return nil
	})
}

func latencies(ctx context.Context, n int, client contest.Client, starts <-chan time.Time) ([]float64, error) {
	const warm = 5 // connections, prepared statements
	var took []float64
	for i := range n + warm {
		if err := pause(ctx, time.Duration(rand.IntN(100_000))*time.Microsecond); err != nil {
			return nil, err
		}
		begin := time.Now()
		if err := client.Submit(ctx, 1); err != nil {
			return nil, err
		}
		select {
		case start := <-starts:
			if i >= warm {
				took = append(took, start.Sub(begin).Seconds()*1e3)
			}
		case <-time.After(30 * time.Second):
			return nil, fmt.Errorf("job %d did not start within 30 s", i)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return took, nil
}
