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
	"qgjob/bench/internal/result"
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
			rate, cost, err := submitRate(ctx, s, q, "submit "+c.Name, clients, 1)
			if err != nil {
				return err
			}
			s.Record(result.Submit, c.Name, clientsCase(clients), rate)
			if cost > 0 {
				s.Record(result.CPU, c.Name, "submit, "+clientsCase(clients), cost)
			}
		}
		return nil
	})
}

// Bulks measures jobs a second when each request brings a hundred.
func Bulks(ctx context.Context, s Session, c contest.Contestant[contest.Inbox]) error {
	return on(ctx, s, c, func(q contest.Inbox) error {
		rate, _, err := submitRate(ctx, s, q, "bulk "+c.Name, bulkClients, bulkJobs)
		if err == nil {
			s.Record(result.Bulk, c.Name, clientsCase(bulkClients), bulkJobs*rate)
		}
		return err
	})
}

// SubmitLimits measures what a database alone takes: as many submits a transaction as there are clients.
func SubmitLimits(ctx context.Context, s Session, l plain.Limit) error {
	for _, submits := range clientCounts {
		rate, err := commitRate(ctx, s, l, submits, 1)
		if err != nil {
			return err
		}
		s.Record(result.Submit, l.Name, clientsCase(submits), rate)
	}
	rate, err := commitRate(ctx, s, l, bulkClients, bulkJobs)
	if err == nil {
		s.Record(result.Bulk, l.Name, clientsCase(bulkClients), bulkJobs*rate)
	}
	return err
}

// commitRate is how many submits of so many jobs a second an empty database takes, so many in each transaction.
func commitRate(ctx context.Context, s Session, l plain.Limit, submits, jobs int) (perSecond float64, err error) {
	db, err := l.Open(ctx, s.Stage)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close(ctx)) }()
	done, begin := 0, time.Now()
	for time.Since(begin) < s.Size.Window {
		if err := db.Commit(ctx, submits, jobs); err != nil {
			return 0, fmt.Errorf("%s: %w", l.Name, err)
		}
		done += submits
	}
	return float64(done) / time.Since(begin).Seconds(), nil
}

func clientsCase(n int) string {
	if n == 1 {
		return "1 client"
	}
	return fmt.Sprintf("%d clients", n)
}

// submitRate is how many requests a second so many clients get answered, each sending the next one when it has the
// answer to the one before, and what each costs a server in processor time, in microseconds.
func submitRate(ctx context.Context, s Session, q contest.Inbox, name string, clients, jobs int) (rate, cost float64, err error) {
	if err := q.Settle(ctx); err != nil {
		return 0, 0, err
	}
	var answered atomic.Int64
	done := make(chan struct{})
	err = load.Together(ctx, clients+1, func(ctx context.Context, i int) error {
		if i == clients { // the clock
			defer close(done)
			if err := pause(ctx, s.Size.Warm); err != nil {
				return err
			}
			cpu, err := s.meter(ctx, q, name+" "+clientsCase(clients))
			if err != nil {
				return err
			}
			before, begin := answered.Load(), time.Now()
			err = pause(ctx, s.Size.Window)
			n := float64(answered.Load() - before)
			rate = n / time.Since(begin).Seconds()
			if err == nil {
				cost, err = cpu.each(n)
			}
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
	return rate, cost, err
}
