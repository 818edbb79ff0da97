package measure

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"qgjob/bench/internal/contest"
	"qgjob/bench/internal/load"
	"qgjob/bench/internal/plain"
)

// clientCounts are how many clients submit at once.
var clientCounts = []int{1, 16, 64}

// bulkJobs is how many jobs a request of Bulk brings, bulkClients how many clients send such.
const (
	bulkJobs    = 100
	bulkClients = 16
)

// Submits measures durable submits a second, one job a request, with growing numbers of clients.
func Submits(ctx context.Context, s Session, c contest.Contestant[contest.Inbox]) error {
	return on(ctx, s, c, func(q contest.Inbox) error {
		for _, clients := range clientCounts {
			rate, err := submitRate(ctx, s.Size, q, clients, 1)
			if err != nil {
				return err
			}
			s.Record(Submit, c.Name, clientsCase(clients), rate)
		}
		return nil
	})
}

// Bulks measures jobs a second when each request brings a hundred.
func Bulks(ctx context.Context, s Session, c contest.Contestant[contest.Inbox]) error {
	return on(ctx, s, c, func(q contest.Inbox) error {
		rate, err := submitRate(ctx, s.Size, q, bulkClients, bulkJobs)
		if err == nil {
			s.Record(Bulk, c.Name, clientsCase(bulkClients), bulkJobs*rate)
		}
		return err
	})
}

// SubmitLimits measures what a database alone takes: as many submits a transaction as there are clients.
func SubmitLimits(ctx context.Context, s Session, l plain.Limit) error {
	for _, submits := range clientCounts {
		rate, err := l.Submits(ctx, s.Stage, submits, 1, s.Size.Window)
		if err != nil {
			return fmt.Errorf("%s: %w", l.Name, err)
		}
		s.Record(Submit, l.Name, clientsCase(submits), rate)
	}
	rate, err := l.Submits(ctx, s.Stage, bulkClients, bulkJobs, s.Size.Window)
	if err != nil {
		return fmt.Errorf("%s: %w", l.Name, err)
	}
	s.Record(Bulk, l.Name, clientsCase(bulkClients), bulkJobs*rate)
	return nil
}

func clientsCase(n int) string {
	if n == 1 {
		return "1 client"
	}
	return fmt.Sprintf("%d clients", n)
}

// submitRate is how many requests a second so many clients get answered, each sending the next one when it has the
// answer to the one before.
func submitRate(ctx context.Context, size Size, q contest.Inbox, clients, jobs int) (float64, error) {
	if err := q.Settle(ctx); err != nil {
		return 0, err
	}
	var answered atomic.Int64
	var rate float64
	done := make(chan struct{})
	err := load.Together(ctx, clients+1, func(ctx context.Context, i int) error {
		if i == clients { // the clock
			defer close(done)
			if err := pause(ctx, size.Warm); err != nil {
				return err
			}
			before, begin := answered.Load(), time.Now()
			err := pause(ctx, size.Window)
			rate = float64(answered.Load()-before) / time.Since(begin).Seconds()
			return err
		}
		client, err := q.Client(ctx)
		if err != nil {
			return err
		}
		for {
			select {
			case <-done:
				return client.Close()
			default:
			}
			if err := client.Submit(ctx, jobs); err != nil {
				return errors.Join(err, client.Close())
			}
			answered.Add(1)
		}
	})
	return rate, err
}
