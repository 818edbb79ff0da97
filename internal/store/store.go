// Package store is the durable queue: organizations' runs, jobs, attempts, events, builds and logs, and the
// workers with their devices, in one database. One concrete Store works over SQLite and PostgreSQL.
//
// What it promises: whatever a method acknowledged is committed and synced to disk; a job has at most one
// open attempt, a device too; every state change goes through qgjob's transition function and leaves one
// event; the counters that the planner and Stats read change in the transaction that changes the jobs.
//
// How its parts fit: every write is a call in the queue of one writer (writer.go), which runs the calls that
// arrived while the transaction before was being committed together in the next one. It decides on what it
// remembers of the queue and the fleet (board.go). Within a transaction (tx.go) changes are collected and
// written set-wise at its end (session.go). Reads go to a pool of their own. On
// PostgreSQL a write transaction holds one advisory lock, so that any number of servers write in one strict
// order, as SQLite's one writer does by nature. After a commit the topics that it touched are published
// (wake.go), to subscribers in this process and, on PostgreSQL, in the others.
//
// Time is the database's clock. The package knows nothing of HTTP, and nothing of when to dispatch or to reap.
package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"qgjob"
)

// DefaultLease is how long a worker's lease lives without a sign of it.
const DefaultLease = 45 * time.Second

// MaxLogSize is how much of an attempt's log is kept, in bytes; the rest is dropped with a note.
const MaxLogSize = 16 << 20

// IdempotencyWindow is how long an idempotency key is remembered.
const IdempotencyWindow = 7 * 24 * time.Hour

// Options says which database to open, and how.
type Options struct {
	Path        string        // SQLite file, made with its directory; used when DatabaseURL is empty
	DatabaseURL string        // postgres://…
	Lease       time.Duration // 0 is DefaultLease
	Logger      *slog.Logger  // nil discards
}

// Store is the durable queue. All methods may be called concurrently. Errors carry qgjob codes; after
// CodeUnavailable the outcome of a write may be unknown, and the write can be sent again.
type Store struct {
	d           *dialect
	lease       time.Duration
	maxLog      int64
	readDB      *sql.DB
	writer      *writer
	wakes       *wakes
	predictions []prediction // of Calibrate
	shift       atomic.Int64 // tests move the database's clock by so many milliseconds

	stopListening context.CancelFunc
	listening     chan struct{} // closed when the listener has ended
}

// Open opens or makes the database and migrates it. A database that a newer qgjob has migrated is refused.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Lease == 0 {
		o.Lease = DefaultLease
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{d: sqliteDialect, lease: o.Lease, maxLog: MaxLogSize, wakes: newWakes(), listening: make(chan struct{})}
	var config *pgx.ConnConfig
	var err error
	origin := rand.Text() // names this store to the other servers
	connect := func(ctx context.Context) (session, error) { return newPostgresSession(ctx, config, origin) }
	if o.DatabaseURL != "" {
		s.d = postgresDialect
		s.readDB, config, err = openPostgres(ctx, o.DatabaseURL)
	} else {
		var path string
		if path, err = filepath.Abs(o.Path); err == nil {
			s.readDB, err = openSQLite(ctx, path)
		}
		connect = func(context.Context) (session, error) { return newSQLiteSession(path) }
	}
	if err != nil {
		return nil, err
	}
	s.writer = newWriter(s, connect, o.Logger)
	go s.writer.loop()
	listening, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stopListening = stop
	if config == nil {
		close(s.listening)
		return s, nil
	}
	go func() {
		defer close(s.listening)
		listen(listening, config, origin, s.wakes, o.Logger)
	}()
	return s, nil
}

// Close waits for every batch and every goroutine. Calls that come later are CodeUnavailable.
func (s *Store) Close() error {
	s.writer.close()
	s.stopListening()
	<-s.listening
	return s.readDB.Close()
}

// Kind is the database's: sqlite or postgresql.
func (s *Store) Kind() string { return s.d.kind }

// Lease is how long a lease lives without a sign of its worker.
func (s *Store) Lease() time.Duration { return s.lease }

// Ping goes through the writer to the database and back.
func (s *Store) Ping(ctx context.Context) error {
	return s.write(ctx, func(context.Context, *tx) error { return nil })
}

// query reads from the pool.
func (s *Store) query(ctx context.Context, scan func(scanner) error, text string, args ...any) error {
	if err := each(scan)(s.readDB.QueryContext(ctx, text, values(args)...)); err != nil {
		return s.readError(ctx, err)
	}
	return nil
}

// snapshot runs several reads at one moment.
func (s *Store) snapshot(ctx context.Context, read func(query queryFunc) error) error {
	t, err := s.readDB.BeginTx(ctx, s.d.snapshot)
	if err != nil {
		return s.readError(ctx, err)
	}
	defer t.Rollback() //nolint:errcheck // nothing was written
	err = read(func(scan func(scanner) error, text string, args ...any) error {
		return each(scan)(t.QueryContext(ctx, text, values(args)...))
	})
	if err != nil {
		return s.readError(ctx, err)
	}
	return nil
}

type queryFunc func(scan func(scanner) error, text string, args ...any) error

// readError gives a read's error its code.
func (s *Store) readError(ctx context.Context, err error) error {
	if _, ok := errors.AsType[*qgjob.Error](err); ok {
		return err
	}
	if ctx.Err() != nil {
		return &qgjob.Error{Code: qgjob.CodeUnavailable, Message: "the request ended before its answer was read", Err: err}
	}
	return s.d.translate(err)
}

// readClock selects the database's clock, moved as the tests ask for.
func (s *Store) readClock(query queryFunc) (int64, error) {
	var now int64
	err := query(func(row scanner) error { return row.Scan(&now) }, s.d.clock)
	return now + s.shift.Load(), err
}

// each scans every row of a query's answer.
func each(scan func(scanner) error) func(*sql.Rows, error) error {
	return func(rows *sql.Rows, err error) error {
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := scan(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	}
}
