// Package river is the contestant River (github.com/riverqueue/river) on PostgreSQL: in process, as its users
// run it, and as a backend of the thin HTTP server. Both as it comes and tuned for what is measured.
package river

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"qgjob/bench/internal/contest"
	"qgjob/bench/internal/thin"
	"qgjob/internal/api"
)

// Tuning is how River is set up.
type Tuning struct {
	Connections   int32         // of the pool; zero is pgx's default, the larger of 4 and the number of cores
	FetchCooldown time.Duration // least time between two fetches; zero is River's default, 100 ms
	FetchPoll     time.Duration // between fetches when nothing notifies; zero is River's default, 1 s
}

// The two set-ups that are measured.
var (
	AsItComes = Tuning{}
	Tuned     = Tuning{Connections: 24, FetchCooldown: time.Millisecond, FetchPoll: 100 * time.Millisecond}
)

// pace is more jobs a second than it drains: a fetch takes as many as there are workers, 256 here.
func (t Tuning) pace() int {
	if t.FetchCooldown == 0 {
		return 4_000
	}
	return 40_000
}

// args is a job of River's: what a job of qgjob holds.
type args struct{ thin.Spec }

// Kind names the kind of job.
func (args) Kind() string { return "run_spec" }

// Queue is River over one database. It implements thin.Worked, and is the base of the in-process contestant.
type Queue struct {
	pool   *pgxpool.Pool
	tuning Tuning
	insert *river.Client[pgx.Tx] // only submits

	ready chan thin.Job // from River's slots to polls

	mu      sync.Mutex
	working *river.Client[pgx.Tx]
	running map[string]chan struct{} // closed when the job is done
}

// Open connects to a database, migrated before or not.
func Open(ctx context.Context, databaseURL string, t Tuning) (*Queue, error) {
	config, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		return nil, err
	}
	if t.Connections > 0 {
		config.MaxConns, config.MinConns = t.Connections, t.Connections
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: quiet})
	if err == nil {
		_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	}
	var insert *river.Client[pgx.Tx]
	if err == nil {
		insert, err = river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: quiet, FetchCooldown: t.FetchCooldown})
	}
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("set up River: %w", err)
	}
	return &Queue{pool: pool, tuning: t, insert: insert, ready: make(chan thin.Job), running: map[string]chan struct{}{}}, nil
}

// Shut closes the connections.
func (q *Queue) Shut() { q.pool.Close() }

var quiet = slog.New(slog.DiscardHandler)

// Submit inserts jobs as River's users do: one by Insert, many by COPY. The ids of many are not returned.
func (q *Queue) Submit(ctx context.Context, s api.SubmitRequest) ([]string, error) {
	specs := thin.Specs(s)
	if len(specs) == 1 {
		inserted, err := q.insert.Insert(ctx, args{specs[0]}, nil)
		if err != nil {
			return nil, err
		}
		return []string{strconv.FormatInt(inserted.Job.ID, 10)}, nil
	}
	params := make([]river.InsertManyParams, len(specs))
	for i, spec := range specs {
		params[i].Args = args{spec}
	}
	_, err := q.insert.InsertManyFast(ctx, params)
	return nil, err
}

// Completed counts the jobs that River has recorded as completed.
func (q *Queue) Completed(ctx context.Context) (int64, error) { return completed(ctx, q.pool) }

func completed(ctx context.Context, pool *pgxpool.Pool) (n int64, err error) {
	err = pool.QueryRow(ctx, "select count(*) from river_job where state = 'completed'").Scan(&n)
	return n, err
}

// start begins to work with so many slots.
func (q *Queue) start(ctx context.Context, slots int, work func(context.Context, *river.Job[args]) error) (*river.Client[pgx.Tx], error) {
	workers := river.NewWorkers()
	river.AddWorker(workers, river.WorkFunc(work))
	client, err := river.NewClient(riverpgxv5.New(q.pool), &river.Config{
		Logger: quiet, Workers: workers,
		Queues:        map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: slots}},
		FetchCooldown: q.tuning.FetchCooldown, FetchPollInterval: q.tuning.FetchPoll,
	})
	if err != nil {
		return nil, err
	}
	return client, client.Start(ctx)
}

// stop ends the work within ten seconds.
func stop(ctx context.Context, client *river.Client[pgx.Tx]) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return client.StopAndCancel(ctx)
}

// Work runs a crew's slots in this process until the context ends.
func (q *Queue) Work(ctx context.Context, crew contest.Crew) error {
	client, err := q.start(context.WithoutCancel(ctx), crew.Workers*crew.Devices, func(ctx context.Context, _ *river.Job[args]) error {
		if _, err := crew.Gate.Pass(ctx, 1); err != nil {
			return err
		}
		crew.Started()
		return nil
	})
	if err != nil {
		return err
	}
	<-ctx.Done()
	return stop(ctx, client)
}

// StartWork begins to hand jobs to polls: each of River's slots waits for a worker to take its job and to report it
// done.
func (q *Queue) StartWork(ctx context.Context, slots int) error {
	client, err := q.start(ctx, slots, q.handOver)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.working = client
	return nil
}

// StopWork ends what StartWork began.
func (q *Queue) StopWork(ctx context.Context) error {
	q.mu.Lock()
	client := q.working
	q.working = nil
	q.mu.Unlock()
	if client == nil {
		return nil
	}
	return stop(ctx, client)
}

func (q *Queue) handOver(ctx context.Context, job *river.Job[args]) error {
	id := strconv.FormatInt(job.ID, 10)
	done := make(chan struct{})
	q.mu.Lock()
	q.running[id] = done
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		delete(q.running, id)
		q.mu.Unlock()
	}()
	select {
	case q.ready <- thin.Job{ID: id, Spec: job.Args.Spec}:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Poll ends jobs and takes others.
func (q *Queue) Poll(ctx context.Context, done []string, want int) ([]thin.Job, error) {
	q.mu.Lock()
	for _, id := range done {
		if ended, ok := q.running[id]; ok {
			close(ended)
			delete(q.running, id)
		}
	}
	q.mu.Unlock()
	jobs := make([]thin.Job, 0, want)
	if want == 0 {
		return jobs, nil
	}
	select {
	case j := <-q.ready:
		jobs = append(jobs, j)
	case <-ctx.Done():
		return jobs, nil
	}
	for len(jobs) < want {
		select {
		case j := <-q.ready:
			jobs = append(jobs, j)
		default:
			return jobs, nil
		}
	}
	return jobs, nil
}
