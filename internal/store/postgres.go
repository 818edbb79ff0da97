package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
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
	kind:     "postgresql",
	setwise:  true,
	clock:    postgresClock,
	snapshot: &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead},
	words: strings.NewReplacer("{key}", "bigint primary key", "{bytes}", "bytea", "{keyed} ", "", "{keyed}", "", "{hot}", "with (fillfactor = 70)",
		"{sqlite}", "/*", "{/sqlite}", "*/", "{postgresql}", "", "{/postgresql}", ""),
	translate: translatePostgres,
}

// openPostgres migrates the database and opens a pool of readers. config is for sessions and listeners.
func openPostgres(ctx context.Context, databaseURL string) (read *sql.DB, config *pgx.ConnConfig, err error) {
	config, err = pgx.ParseConfig(databaseURL)
	if err != nil {
		return nil, nil, qgjob.Errorf(qgjob.CodeInvalid, "the database URL cannot be read: %w", err)
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
	read = stdlib.OpenDB(*config)
	read.SetMaxOpenConns(postgresReaders)
	read.SetMaxIdleConns(postgresReaders)
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(migrateLock), lock.WithLockTimeout(1, 300))
	if err == nil {
		err = migrate(ctx, read, postgresDialect, goose.DialectPostgres, goose.WithSessionLocker(locker))
	}
	if err != nil {
		return nil, nil, errors.Join(err, read.Close())
	}
	return read, config, nil
}

// translatePostgres gives an error its code: what the connection, the server's resources or an operator did
// can be tried again, anything else that the server says is a defect.
func translatePostgres(err error) error {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if errors.Is(err, errRolledBack) {
		return &qgjob.Error{Code: qgjob.CodeInternal, Message: databaseRefused, Err: err}
	}
	if !ok {
		return &qgjob.Error{Code: qgjob.CodeUnavailable, Message: databaseAway, Err: err}
	}
	switch e.Code[:2] {
	case "08", "25", "40", "53", "55", "57", "58": // connection, state, rollback, resources, lock, intervention, system
		return &qgjob.Error{Code: qgjob.CodeUnavailable, Message: databaseBusy, Err: err}
	}
	return &qgjob.Error{Code: qgjob.CodeInternal, Message: databaseRefused, Err: err}
}

// postgresSession is a session on a connection of its own. A transaction is one round trip or two: what it begins
// with, and all that it writes together with its commit. While no other server writes, it begins with that, too.
type postgresSession struct {
	c       *pgx.Conn
	origin  string // names the server in what it tells the others
	version int64  // as of the last transaction
	now     int64  // of the transaction
	clock   databaseTime
	quiet   int // transactions in a row before which no other server wrote

	pending bool // the transaction is yet to be opened
	bold    bool // it takes version and now for known
	wrote   bool
	undone  bool // by an error before its commit, or by a commit that told so
}

// A transaction counts on quiet after so many, so soon after the last one. A stale one costs as much as some ten others
// gain. A connection that nobody used for long may have ended, and a commit that finds that out cannot know whether
// it happened.
const (
	quietEnough = 32
	soonEnough  = time.Second
)

// dateSlack is by how much a transaction may be dated before it got the lock. Tests have less time.
var dateSlack = time.Second

func newPostgresSession(ctx context.Context, config *pgx.ConnConfig, origin string) (session, error) {
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	return &postgresSession{c: c, origin: origin}, nil
}

const (
	beginPostgres  = "begin isolation level read committed"
	commitPostgres = "commit"
	// enterPostgres makes the transaction the only one that writes among all servers, and then reads the clock.
	enterPostgres = "with entered as materialized (select pg_advisory_xact_lock(%d)) " + postgresClock + " from entered"
	// The count of commits tells a server whether another one has written since its own last commit.
	commitsCounted = "select coalesce((select value from counters where org_id = '' and name = 'commits'), 0)"
	// isKnown fails with divisionByZero unless the count of commits is the given one and the clock so close to the given time.
	isKnown       = "select 1 / (case when (" + commitsCounted + ") = $1 and abs((" + postgresClock + ") - $2) < $3 then 1 else 0 end)"
	countCommit   = "insert into counters (org_id, name, value) values ('', 'commits', 1) on conflict (org_id, name) do update set value = counters.value + 1"
	notifyServers = "select pg_notify('" + channel + "', c1) from unnest($1::text[]) as v(c1)"
)

// Codes of PostgreSQL's errors (its manual, appendix A).
const (
	divisionByZero   = "22012"
	uniqueViolation  = "23505"
	deadlockDetected = "40P01"
)

func (s *postgresSession) begin(ctx context.Context, known int64, reads []read) (now, version int64, err error) {
	s.pending, s.wrote, s.undone = true, false, false
	reads = slices.DeleteFunc(slices.Clone(reads), func(r read) bool { return len(r.rows) == 0 })
	required := func(r read) bool { return r.skipped == nil }
	elapsed := s.clock.elapsed()
	if s.bold = known == s.version && s.quiet >= quietEnough && elapsed < soonEnough && !slices.ContainsFunc(reads, required); s.bold {
		for _, r := range reads {
			*r.skipped = true
		}
		s.now = max(s.now, s.clock.ms+elapsed.Milliseconds())
		return s.now, s.version, nil
	}
	before := s.version
	err = s.send(ctx, func(batch *pgx.Batch) {
		for _, r := range reads {
			text, args := r.b.forRows(r.rows)
			batch.Queue(text, args...)
		}
	}, func(results pgx.BatchResults) error {
		for _, r := range reads {
			if err := nextRows(results, r.b.text, r.scan); err != nil {
				return err
			}
		}
		return nil
	})
	if s.quiet++; s.version != before {
		s.quiet = 0
	}
	return s.now, s.version, err
}

// send makes one round trip, which opens the transaction first where that is to be done. read takes the results of
// what queue queues.
func (s *postgresSession) send(ctx context.Context, queue func(*pgx.Batch), read func(pgx.BatchResults) error) error {
	var batch pgx.Batch
	opens := s.pending
	if opens {
		s.pending = false
		batch.Queue(beginPostgres)
		batch.Queue(fmt.Sprintf(enterPostgres, writeLock))
		if s.bold {
			batch.Queue(isKnown, s.version, s.now, dateSlack.Milliseconds())
		} else {
			batch.Queue(commitsCounted)
		}
	}
	queue(&batch)
	results := s.c.SendBatch(ctx, &batch)
	defer results.Close() // where read panics
	var err error
	if opens {
		err = s.opened(results)
		s.undone = saidByServer(err)
	}
	if err == nil {
		err = read(results)
	}
	err = errors.Join(err, results.Close())
	if refusal, ok := errors.AsType[*pgconn.PgError](err); ok && s.bold && (refusal.Code == divisionByZero || refusal.Code == uniqueViolation) {
		s.quiet = 0
		return fmt.Errorf("%w: %w", errStale, err)
	}
	return err
}

// opened takes the results of what opens a transaction. Each statement after the lock sees what was committed before
// it was got.
func (s *postgresSession) opened(results pgx.BatchResults) error {
	_, err := results.Exec()
	if err == nil {
		var ms int64
		err = results.QueryRow().Scan(&ms)
		s.clock = newDatabaseTime(ms)
	}
	switch {
	case err != nil:
	case s.bold:
		_, err = results.Exec()
	default:
		err = results.QueryRow().Scan(&s.version)
		s.now = s.clock.ms
	}
	return err
}

func (s *postgresSession) exec(ctx context.Context, text string, args ...any) error {
	s.wrote = true
	return s.query(ctx, noRows, text, args...)
}

func (s *postgresSession) query(ctx context.Context, scan func(scanner) error, text string, args ...any) error {
	return s.send(ctx, func(batch *pgx.Batch) { batch.Queue(text, args...) }, func(results pgx.BatchResults) error {
		return nextRows(results, text, scan)
	})
}

func (s *postgresSession) ask(ctx context.Context, questions []question) error {
	return s.send(ctx, func(batch *pgx.Batch) {
		for _, q := range questions {
			batch.Queue(q.text)
		}
	}, func(results pgx.BatchResults) error {
		for _, q := range questions {
			if err := nextRows(results, q.text, q.scan); err != nil {
				return err
			}
		}
		return nil
	})
}

// nextRows scans every row of the next statement's answer.
func nextRows(results pgx.BatchResults, text string, scan func(scanner) error) error {
	rows, err := results.Query()
	if err != nil {
		return inStatement(text, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return inStatement(text, err)
		}
	}
	return inStatement(text, rows.Err())
}

func (s *postgresSession) write(ctx context.Context, statements []statement) error {
	return s.sendAll(ctx, statements, func(*pgx.Batch) {})
}

// sendAll runs statements, and what more is queued after them, which return nothing.
func (s *postgresSession) sendAll(ctx context.Context, statements []statement, more func(*pgx.Batch)) error {
	var queued []*pgx.QueuedQuery
	return s.send(ctx, func(batch *pgx.Batch) {
		opening := batch.Len()
		for _, st := range statements {
			s.wrote = true
			text, args := st.b.forRows(st.rows)
			batch.Queue(text, args...)
		}
		more(batch)
		queued = batch.QueuedQueries[opening:]
	}, func(results pgx.BatchResults) error {
		for i, q := range queued {
			tag, err := results.Exec()
			if q.SQL == commitPostgres && err == nil && tag.String() != "COMMIT" {
				s.undone = true
				return errRolledBack
			}
			if err != nil {
				s.undone = i < len(queued)-1 && saidByServer(err)
				return inStatement(q.SQL, err)
			}
		}
		return nil
	})
}

// errRolledBack is the commit of a transaction in which a statement had failed: PostgreSQL takes it for a rollback.
var errRolledBack = errors.New("the transaction was rolled back instead of committed")

// saidByServer says whether an error is the database's, and not one of the way to it or of what lies between.
func saidByServer(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && !strings.HasPrefix(e.Code, "08")
}

func (s *postgresSession) commit(ctx context.Context, statements []statement, topics []string) (int64, error) {
	version := s.version
	err := s.sendAll(ctx, statements, func(batch *pgx.Batch) {
		if s.wrote {
			version++
			batch.Queue(countCommit)
		}
		if len(topics) > 0 {
			batch.Queue(notifyServers, payloads(s.origin, topics))
		}
		batch.Queue(commitPostgres)
	})
	refusal, refused := errors.AsType[*pgconn.PgError](err)
	_, unsent := errors.AsType[pgx.ErrPreprocessingBatch](err)
	switch {
	case err == nil:
		s.version = version
	case s.undone, refused && !connectionEnded(refusal), unsent, pgconn.SafeToRetry(err):
	default:
		err = errors.Join(errUnknown, err)
	}
	return version, err
}

// connectionEnded says whether an error is about the connection and not about a statement.
func connectionEnded(e *pgconn.PgError) bool {
	switch e.Code[:2] {
	case "08", "57", "58":
		return true
	}
	return false
}

func (s *postgresSession) rollback(ctx context.Context) error {
	if s.pending {
		s.pending = false
		return nil
	}
	if s.c.IsClosed() {
		return errors.New("the connection has ended")
	}
	_, err := s.c.Exec(ctx, "rollback")
	return err
}

// closeTimeout bounds the end of a connection that may be broken.
const closeTimeout = time.Second

func (s *postgresSession) close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = s.c.Close(ctx) // it is given up either way
}
