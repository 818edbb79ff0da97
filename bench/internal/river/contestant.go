package river

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgxpool"

	"qgjob/bench/internal/contest"
	"qgjob/bench/internal/load"
	"qgjob/bench/internal/rig"
	"qgjob/bench/internal/thin"
)

// InProcess is River as a library of the program that submits and works.
func InProcess(name string, t Tuning) contest.Contestant[contest.Queue] {
	return contest.Contestant[contest.Queue]{Name: name, Pace: t.pace(), Library: true, Open: func(ctx context.Context, r *rig.Rig) (contest.Queue, error) {
		url, drop, err := r.Database(ctx)
		if err != nil {
			return nil, err
		}
		q, err := Open(ctx, url, t)
		if err != nil {
			return nil, errors.Join(err, drop(context.WithoutCancel(ctx)))
		}
		return &inProcess{Queue: q, stage: r, url: url, drop: drop}, nil
	}}
}

type inProcess struct {
	*Queue
	stage *rig.Rig
	url   string
	drop  func(context.Context) error
}

func (q *inProcess) Client(context.Context) (contest.Client, error) {
	return &client{q.Queue, load.NewJobs()}, nil
}

func (q *inProcess) Settle(ctx context.Context) error { return q.stage.Settle(ctx, q.url) }

func (q *inProcess) Close() error {
	q.Shut()
	return q.drop(context.Background())
}

// client submits by River's own methods.
type client struct {
	queue *Queue
	jobs  *load.Jobs
}

func (c *client) Submit(ctx context.Context, jobs int) error {
	_, err := c.queue.Submit(ctx, c.jobs.Next(jobs))
	return err
}

func (c *client) Close() error { return nil }

// BehindHTTP is River behind a thin server of the given kind, in a process of its own.
func BehindHTTP(name, kind string, t Tuning) contest.Contestant[contest.Queue] {
	return contest.Contestant[contest.Queue]{Name: name, Pace: t.pace(), Open: func(ctx context.Context, r *rig.Rig) (contest.Queue, error) {
		url, drop, err := r.Database(ctx)
		if err != nil {
			return nil, err
		}
		settle := func(ctx context.Context) error { return r.Settle(ctx, url) }
		hosted, err := thin.Host(ctx, r, kind, url, settle, drop)
		if err != nil {
			return nil, errors.Join(err, drop(context.WithoutCancel(ctx)))
		}
		watch, err := pgxpool.New(ctx, url)
		if err != nil {
			return nil, errors.Join(err, hosted.Close())
		}
		return &behindHTTP{Hosted: hosted, watch: watch}, nil
	}}
}

type behindHTTP struct {
	*thin.Hosted
	watch *pgxpool.Pool // to count what the server has completed
}

func (q *behindHTTP) Work(ctx context.Context, crew contest.Crew) error {
	return thin.Work(ctx, q.Address(), crew)
}

func (q *behindHTTP) Completed(ctx context.Context) (int64, error) { return completed(ctx, q.watch) }

func (q *behindHTTP) Close() error {
	q.watch.Close()
	return q.Hosted.Close()
}
