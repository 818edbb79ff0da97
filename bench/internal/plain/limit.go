package plain

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"qgjob/bench/internal/contest"
	"qgjob/bench/internal/load"
	"qgjob/bench/internal/rig"
)

// A Limit is a database's own: rows written by one writer in plain transactions, with no queue and no server.
type Limit struct {
	Name string
	open func(context.Context, *rig.Rig) (writer, func(context.Context) error, error)
}

// Limits are those of both databases.
var Limits = []Limit{
	{Name: contest.SQLite, open: func(ctx context.Context, r *rig.Rig) (writer, func(context.Context) error, error) {
		dir, err := r.Dir()
		if err != nil {
			return nil, nil, err
		}
		w, err := openSQLite(ctx, filepath.Join(dir, "bench.db"))
		return w, func(context.Context) error { return nil }, err
	}},
	{Name: contest.Postgres, open: func(ctx context.Context, r *rig.Rig) (writer, func(context.Context) error, error) {
		url, drop, err := r.Database(ctx)
		if err != nil {
			return nil, nil, err
		}
		w, err := openPostgres(ctx, url)
		return w, drop, err
	}},
}

// Submits is how many submits of so many jobs a second the database takes in transactions of so many submits, for
// about so long.
func (l Limit) Submits(ctx context.Context, r *rig.Rig, submits, jobs int, length time.Duration) (perSecond float64, err error) {
	w, drop, err := l.open(ctx, r)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, w.close(), drop(context.WithoutCancel(ctx))) }()
	made, seq, done := load.NewJobs(), int64(1), 0
	begin := time.Now()
	for time.Since(begin) < length {
		rows := newBatch()
		for range submits {
			seq += int64(len(rows.add(made.Next(jobs), seq)))
		}
		if err := rows.commit(ctx, w); err != nil {
			return 0, err
		}
		done += submits
	}
	return float64(done) / time.Since(begin).Seconds(), nil
}
