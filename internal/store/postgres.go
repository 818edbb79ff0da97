package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"qgjob"
)

// connectTimeout is how long a connection may take to come about, where the URL does not say.
const connectTimeout = 5 * time.Second

// postgresReaders is how many reads of one server run at once.
const postgresReaders = 16

// The advisory locks of a database: of writers, and of servers that migrate at once.
const (
	writeLock   = 7104001
	migrateLock = 7104002
)

const postgresClock = "select floor(extract(epoch from clock_timestamp()) * 1000)::bigint"

var postgresDialect = &dialect{
	kind:      "postgresql",
	setwise:   true,
	begin:     "begin isolation level read committed",
	enter:     fmt.Sprintf("with entered as materialized (select pg_advisory_xact_lock(%d)) %s from entered", writeLock, postgresClock),
	clock:     postgresClock,
	snapshot:  &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead},
	words:     strings.NewReplacer("{key}", "bigint primary key", "{bytes}", "bytea", "{keyed}", ""),
	notify:    "select pg_notify('" + channel + "', c1) from unnest($1::text[]) as v(c1)",
	translate: translatePostgres,
	claim: newBulk("itttittii", `
		select {1}, oldest.seq {from,} lateral (
			select seq from jobs
			where org_id = {2} and app_version_id = {3} and target = {4} and priority = {5}
				and prefer_device = {6} and avoid_device = {7} and state = 'queued' and seq + 0 >= {8}
			order by seq + 0 limit {9}
		) as oldest`),
}

// openPostgres connects one writer and a pool of readers.
func openPostgres(ctx context.Context, databaseURL string) (write, read *sql.DB, config *pgx.ConnConfig, err error) {
	config, err = pgx.ParseConfig(databaseURL)
	if err != nil {
		return nil, nil, nil, qgjob.Errorf(qgjob.CodeInvalid, "the database URL cannot be read: %w", err)
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout // a host that swallows packets must not hold every request for minutes
	}
	for name, value := range map[string]string{
		"application_name": "qgjob",
		// An acknowledged write is on disk, whatever the database's default is.
		"synchronous_commit": "on",
		// A server that stalls inside a transaction holds the write lock of all.
		"idle_in_transaction_session_timeout": "10s",
		// Every query here is made for an index. Plans are kept while tables grow from nothing to millions
		// of rows, and one made on an empty table would scan the full one.
		"enable_seqscan":   "off",
		"enable_hashjoin":  "off",
		"enable_mergejoin": "off",
		// A page's ranges come sorted from the index made for them; another index and a sort only look
		// cheaper to a planner that has not counted yet.
		"enable_sort":       "off",
		"enable_bitmapscan": "off",
		"jit":               "off",
	} {
		config.RuntimeParams[name] = value
	}
	write = stdlib.OpenDB(*config)
	write.SetMaxOpenConns(2) // the writer's, and a fresh one while a broken one ends
	read = stdlib.OpenDB(*config)
	read.SetMaxOpenConns(postgresReaders)
	read.SetMaxIdleConns(postgresReaders)
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(migrateLock), lock.WithLockTimeout(1, 300))
	if err == nil {
		err = migrate(ctx, write, postgresDialect, goose.DialectPostgres, goose.WithSessionLocker(locker))
	}
	if err != nil {
		return nil, nil, nil, errors.Join(err, write.Close(), read.Close())
	}
	return write, read, config, nil
}

// translatePostgres gives an error its code: what the connection, the server's resources or an operator did
// can be tried again, anything else that the server says is a defect.
func translatePostgres(err error) error {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return &qgjob.Error{Code: qgjob.CodeUnavailable, Message: databaseAway, Err: err}
	}
	switch e.Code[:2] {
	case "08", "25", "40", "53", "55", "57", "58": // connection, state, rollback, resources, lock, intervention, system
		return &qgjob.Error{Code: qgjob.CodeUnavailable, Message: databaseBusy, Err: err}
	}
	return &qgjob.Error{Code: qgjob.CodeInternal, Message: databaseRefused, Err: err}
}
