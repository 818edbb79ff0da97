package plain

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

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

// Database is one that only rows are written to, by one writer.
type Database struct {
	writer writer
	drop   func(context.Context) error
	jobs   *load.Jobs
	seq    int64
}

// Open makes an empty database.
func (l Limit) Open(ctx context.Context, r *rig.Rig) (*Database, error) {
	w, drop, err := l.open(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.Name, err)
	}
	return &Database{writer: w, drop: drop, jobs: load.NewJobs(), seq: 1}, nil
}

// Commit writes the rows of so many submits of so many jobs each in one transaction.
func (d *Database) Commit(ctx context.Context, submits, jobs int) error {
	rows := newBatch()
	for range submits {
		d.seq += int64(len(rows.add(d.jobs.Next(jobs), d.seq)))
	}
	return rows.commit(ctx, d.writer)
}

// Close removes the database.
func (d *Database) Close(ctx context.Context) error {
	return errors.Join(d.writer.close(), d.drop(context.WithoutCancel(ctx)))
}
