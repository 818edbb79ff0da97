package product

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"qgjob"
	"qgjob/bench/internal/contest"
	"qgjob/bench/internal/load"
	"qgjob/bench/internal/rig"
	"qgjob/internal/api"
	"qgjob/internal/store"
)

// InsideSQLite is qgjob's queue as a library of the program that submits and works, on SQLite: what it does without HTTP.
func InsideSQLite(name string) contest.Contestant[contest.Queue] {
	return insider(name, func(_ context.Context, r *rig.Rig) (*inside, error) {
		dir, err := r.Dir()
		return &inside{
			options: store.Options{Path: filepath.Join(dir, "qgjob.db")},
			settle:  func(context.Context) error { return nil },
			drop:    func(context.Context) error { return os.RemoveAll(dir) },
		}, err
	})
}

// InsidePostgres is the same on PostgreSQL.
func InsidePostgres(name string) contest.Contestant[contest.Queue] {
	return insider(name, func(ctx context.Context, r *rig.Rig) (*inside, error) {
		url, drop, err := r.Database(ctx)
		return &inside{
			options: store.Options{DatabaseURL: url},
			settle:  func(ctx context.Context) error { return r.Settle(ctx, url) },
			drop:    drop,
		}, err
	})
}

func insider(name string, prepare func(context.Context, *rig.Rig) (*inside, error)) contest.Contestant[contest.Queue] {
	return contest.Contestant[contest.Queue]{Name: name, Pace: pace, Open: func(ctx context.Context, r *rig.Rig) (contest.Queue, error) {
		q, err := prepare(ctx, r)
		if err != nil {
			return nil, err
		}
		if q.store, err = store.Open(ctx, q.options); err != nil {
			return nil, errors.Join(err, q.drop(context.WithoutCancel(ctx)))
		}
		return q, nil
	}}
}

// inside is an open store.
type inside struct {
	options      store.Options
	settle, drop func(context.Context) error
	store        *store.Store
	completed    atomic.Int64
}

func (q *inside) Settle(ctx context.Context) error { return q.settle(ctx) }

func (q *inside) Close() error {
	return errors.Join(q.store.Close(), q.drop(context.Background()))
}

func (q *inside) Completed(context.Context) (int64, error) { return q.completed.Load(), nil }

func (q *inside) Client(context.Context) (contest.Client, error) {
	return &insideClient{q.store, load.NewJobs()}, nil
}

type insideClient struct {
	store *store.Store
	jobs  *load.Jobs
}

func (c *insideClient) Submit(ctx context.Context, jobs int) error {
	request := c.jobs.Next(jobs)
	s := store.Submission{
		OrgID: request.OrgID, AppVersionID: request.AppVersionID, IdempotencyKey: request.IdempotencyKey, BodyHash: load.BodyHash,
		Jobs: make([]store.JobSpec, jobs),
	}
	for i, j := range request.Jobs {
		s.Jobs[i] = store.JobSpec{TestPath: j.TestPath, Priority: qgjob.DefaultPriority, Target: qgjob.TargetAny}
	}
	_, _, err := c.store.Submit(ctx, s)
	return err
}

func (c *insideClient) Close() error { return nil }

// Work runs no-op workers until the context ends; their polls come often enough to keep them alive. Each hands its results in with the poll that asks for the next jobs.
func (q *inside) Work(ctx context.Context, crew contest.Crew) error {
	return load.Together(ctx, crew.Workers, func(ctx context.Context, _ int) error {
		w := newWorker("", crew.Devices)
		refused, err := q.store.Register(ctx, w.id, "bench", "bench", reports(w.devices))
		if err == nil && len(refused) > 0 {
			err = fmt.Errorf("%d devices were refused", len(refused))
		}
		if err != nil {
			return err
		}
		return q.work(ctx, w.id, w.ids, crew)
	})
}

func reports(devices []api.DeviceReport) []store.DeviceReport {
	out := make([]store.DeviceReport, len(devices))
	for i, d := range devices {
		out[i] = store.DeviceReport{ID: d.ID, Serial: d.Serial, Kind: d.Kind, Platform: d.Platform, Model: d.Model, OSVersion: d.OSVersion, State: d.State}
	}
	return out
}

func (q *inside) work(ctx context.Context, id string, devices []string, crew contest.Crew) error {
	news := q.store.Subscribe(store.TopicWorker(id))
	defer news.Close()
	var results []store.AttemptResult
	for seq := int64(1); ; seq++ {
		answer, err := q.store.Poll(ctx, store.Poll{WorkerID: id, Seq: seq, Free: devices, Wait: pollWait, Results: results})
		if err != nil {
			return err
		}
		for _, r := range answer.Results {
			if r.Code != "" {
				return fmt.Errorf("the result of attempt %s was refused: %s", r.AttemptID, r.Message)
			}
		}
		q.completed.Add(int64(len(answer.Results)))
	wait:
		for over := time.After(pollWait); len(answer.Assignments) == 0; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-over:
				break wait
			case <-news.C:
			}
			if answer.Assignments = news.Assignments(seq); len(answer.Assignments) == 0 {
				if answer, err = q.store.Assignments(ctx, id, seq, devices); err != nil {
					return err
				}
			}
		}
		results = results[:0]
		for _, a := range answer.Assignments {
			crew.Started()
			results = append(results, store.AttemptResult{Lease: a.Lease, Result: noop})
		}
	}
}
