// Package product is the contestant qgjob: the real binary as a process of its own, spoken to over HTTP by clients
// that submit and by workers that speak the worker protocol as real ones do, but have nothing to run.
package product

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"qgjob/bench/internal/contest"
	"qgjob/bench/internal/load"
	"qgjob/bench/internal/rig"
	"qgjob/bench/internal/wire"
	"qgjob/internal/api"
)

// Binary finds or builds the qgjob binary, once.
type Binary func(context.Context, *rig.Rig) (path string, err error)

// OnSQLite is qgjob with its embedded database.
func OnSQLite(name string, binary Binary) contest.Contestant[contest.Queue] {
	return contestant(name, binary, func(context.Context, *rig.Rig) (database, error) { return database{}, nil })
}

// OnPostgres is qgjob on PostgreSQL.
func OnPostgres(name string, binary Binary) contest.Contestant[contest.Queue] {
	return contestant(name, binary, func(ctx context.Context, r *rig.Rig) (database, error) {
		url, drop, err := r.Database(ctx)
		return database{url, drop}, err
	})
}

// pace is more jobs a second than it drains.
const pace = 100_000

type database struct {
	url  string // empty: SQLite in the data directory
	drop func(context.Context) error
}

func contestant(name string, binary Binary, make func(context.Context, *rig.Rig) (database, error)) contest.Contestant[contest.Queue] {
	return contest.Contestant[contest.Queue]{Name: name, Pace: pace, Open: func(ctx context.Context, r *rig.Rig) (contest.Queue, error) {
		path, err := binary(ctx, r)
		if err != nil {
			return nil, err
		}
		dir, err := r.Dir()
		if err != nil {
			return nil, err
		}
		db, err := make(ctx, r)
		if err != nil {
			return nil, err
		}
		q := &Queue{stage: r, binary: path, dir: dir, db: db}
		if _, err := q.start(ctx); err != nil {
			return nil, errors.Join(err, q.Close())
		}
		return q, nil
	}}
}

// Queue is a running qgjob server.
type Queue struct {
	stage  *rig.Rig
	binary string
	dir    string
	db     database

	process   *rig.Process
	address   string
	completed atomic.Int64 // results that were recorded
}

// start starts the server and returns how long it took until it was healthy.
func (q *Queue) start(ctx context.Context) (time.Duration, error) {
	address, err := rig.FreeAddress()
	if err != nil {
		return 0, err
	}
	args := []string{"server", "--listen=" + address, "--data-dir=" + q.dir, "--log-level=error"}
	if q.db.url != "" {
		args = append(args, "--database-url="+q.db.url)
	}
	begin := time.Now()
	if q.process, err = q.stage.Start(ctx, rig.Command{Path: q.binary, Args: args}); err != nil {
		return 0, err
	}
	q.address = address
	if err := q.process.Await(ctx, "tcp", address); err != nil {
		return 0, err
	}
	conn, err := wire.Dial(ctx, address)
	if err != nil {
		return 0, err
	}
	_, err = conn.Do(ctx, http.MethodGet, "/health", nil) // answered when the database is open
	return time.Since(begin), errors.Join(err, conn.Close())
}

// Join starts another server over the same PostgreSQL.
func (q *Queue) Join(ctx context.Context) (contest.Inbox, error) {
	if q.db.url == "" {
		return nil, errors.New("SQLite is for one server")
	}
	dir, err := q.stage.Dir()
	if err != nil {
		return nil, err
	}
	other := &Queue{stage: q.stage, binary: q.binary, dir: dir, db: database{url: q.db.url}}
	if _, err := other.start(ctx); err != nil {
		return nil, errors.Join(err, other.Close())
	}
	return other, nil
}

// Process is the server's process.
func (q *Queue) Process() *rig.Process { return q.process }

// Settle brings the database to rest.
func (q *Queue) Settle(ctx context.Context) error {
	if q.db.url == "" {
		return nil
	}
	return q.stage.Settle(ctx, q.db.url)
}

// Close stops the server and removes its data.
func (q *Queue) Close() error {
	var errs []error
	if q.process != nil {
		errs = append(errs, q.process.Stop())
	}
	if q.db.drop != nil {
		errs = append(errs, q.db.drop(context.Background()))
	}
	return errors.Join(append(errs, os.RemoveAll(q.dir))...)
}

// Completed is how many results the server has recorded.
func (q *Queue) Completed(context.Context) (int64, error) { return q.completed.Load(), nil }

// client submits runs.
type client struct {
	conn *wire.Conn
	jobs *load.Jobs
}

// Client connects a client.
func (q *Queue) Client(ctx context.Context) (contest.Client, error) {
	conn, err := wire.Dial(ctx, q.address)
	if err != nil {
		return nil, err
	}
	return &client{conn, load.NewJobs()}, nil
}

func (c *client) Submit(ctx context.Context, jobs int) error {
	_, err := c.conn.Do(ctx, http.MethodPost, "/v1/runs", c.jobs.Body(jobs))
	return err
}

func (c *client) Close() error { return c.conn.Close() }

// someJob is the id of a job that is queued.
func (q *Queue) someJob(ctx context.Context, conn *wire.Conn) (string, error) {
	var page api.JobList
	if err := conn.Call(ctx, http.MethodGet, "/v1/jobs?limit=1&state=queued", nil, &page); err != nil {
		return "", err
	}
	if len(page.Jobs) == 0 {
		return "", fmt.Errorf("the server lists no queued job")
	}
	return page.Jobs[0].ID, nil
}
