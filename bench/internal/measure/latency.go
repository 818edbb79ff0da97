package measure

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"qgjob/bench/internal/contest"
	"qgjob/bench/internal/plain"
	"qgjob/bench/internal/result"
)

// latencyCrew waits for the one job that there is.
var latencyCrew = contest.Crew{Workers: 16, Devices: 1}

// Latencies measures how long it takes from the moment that a client begins to submit to the moment that a waiting
// worker has the job, when there is nothing else to do.
func Latencies(ctx context.Context, s Session, c contest.Contestant[contest.Queue]) error {
	return on(ctx, s, c, func(q contest.Queue) error {
		if err := q.Settle(ctx); err != nil {
			return err
		}
		starts := make(chan time.Time, 1)
		crew := latencyCrew
		crew.Started = func() { starts <- time.Now() }
		return staff(ctx, q, crew, func(ctx context.Context) error {
			client, err := q.Client(ctx)
			if err != nil {
				return err
			}
			err = s.nowAndThen(ctx, c.Name, func() (start time.Time, err error) {
				if err := client.Submit(ctx, 1); err != nil {
					return start, err
				}
				select {
				case start = <-starts:
				case <-time.After(30 * time.Second):
					err = errors.New("a job did not start within 30 s")
				case <-ctx.Done():
					err = context.Cause(ctx)
				}
				return start, err
			})
			return errors.Join(err, client.Close())
		})
	})
}

// Answers measures how long a server takes to answer a submit when there is nothing else to do. A job cannot start sooner: it has to be
// durable first, and a worker to hear of it.
func Answers(ctx context.Context, s Session, c contest.Contestant[contest.Inbox]) error {
	return on(ctx, s, c, func(q contest.Inbox) error {
		client, err := q.Client(ctx)
		if err != nil {
			return err
		}
		err = s.nowAndThen(ctx, c.Name, func() (time.Time, error) {
			err := client.Submit(ctx, 1)
			return time.Now(), err
		})
		return errors.Join(err, client.Close())
	})
}

// LatencyLimits measures how long a database alone takes for the rows of a submit, when there is nothing else to do.
func LatencyLimits(ctx context.Context, s Session, l plain.Limit) (err error) {
	db, err := l.Open(ctx, s.Stage)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close(ctx)) }()
	return s.nowAndThen(ctx, l.Name, func() (time.Time, error) {
		err := db.Commit(ctx, 1, 1)
		return time.Now(), err
	})
}

// nowAndThen calls f at random, 50 ms apart on average, so that it does not fall into step with anybody's polls, and
// records how long it is each time until the moment that f returns.
func (s Session) nowAndThen(ctx context.Context, contestant string, f func() (time.Time, error)) error {
	const warm = 5 // connections, prepared statements
	var took []float64
	for i := range s.Size.Starts + warm {
		if err := pause(ctx, time.Duration(rand.IntN(100_000))*time.Microsecond); err != nil {
			return err
		}
		begin := time.Now()
		end, err := f()
		if err != nil {
			return fmt.Errorf("%s: %w", contestant, err)
		}
		if i >= warm {
			took = append(took, end.Sub(begin).Seconds()*1e3)
		}
	}
	s.Record(result.Latency, contestant, "p50", result.Quantile(took, 0.5))
	s.Record(result.Latency, contestant, "p99", result.Quantile(took, 0.99))
	return nil
}
