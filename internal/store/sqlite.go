package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"qgjob"
)

// sqliteReaders is how many reads run at once beside the writer.
const sqliteReaders = 8

const sqliteClock = "select cast(round(unixepoch('subsec') * 1000) as integer)"

var sqliteDialect = &dialect{
	kind:      "sqlite",
	clock:     sqliteClock,
	snapshot:  &sql.TxOptions{ReadOnly: true},
	words:     strings.NewReplacer("{key}", "integer primary key", "{bytes}", "blob", "{keyed} {hot}", "without rowid", "{keyed}", "without rowid", "{hot}", ""),
	translate: translateSQLite,
	heads: newBulk("iii", `
		select q.lane_id, `+jobColumns+`
		from queue q, jobs j, runs r
		where q.lane_id = {1} and q.job_seq > {2} and j.seq = q.job_seq and r.seq = j.run_seq
		order by q.job_seq limit {3}`),
}

// openSQLite opens the file for one writer and a few readers. WAL lets them go on beside each other;
// synchronous=FULL syncs the log at every commit.
func openSQLite(ctx context.Context, path string) (write, read *sql.DB, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, nil, fmt.Errorf("make the database's directory: %w", err)
	}
	// SQLite would let everybody on the machine read it, and gives its log the mode of the file.
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open the database: %w", err)
	}
	if err := file.Close(); err != nil {
		return nil, nil, fmt.Errorf("open the database: %w", err)
	}
	open := func(connections int, pragmas ...string) (*sql.DB, error) {
		q := url.Values{"_pragma": append([]string{"busy_timeout(10000)", "journal_mode(wal)", "synchronous(full)", "temp_store(memory)"}, pragmas...)}
		db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
		if err != nil {
			return nil, fmt.Errorf("open the database %s: %w", path, err)
		}
		db.SetMaxOpenConns(connections)
		db.SetMaxIdleConns(connections)
		return db, nil
	}
	if write, err = open(1, "cache_size(-16384)"); err != nil {
		return nil, nil, err
	}
	if err := migrate(ctx, write, sqliteDialect, goose.DialectSQLite3); err != nil {
		return nil, nil, errors.Join(err, write.Close())
	}
	if read, err = open(sqliteReaders, "query_only(1)"); err != nil {
		return nil, nil, errors.Join(err, write.Close())
	}
	return write, read, nil
}

// translateSQLite gives an error its code: what a full or failing disk, a lock or an interrupt did can be
// tried again, anything else is a defect.
func translateSQLite(err error) error {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return &qgjob.Error{Code: qgjob.CodeUnavailable, Message: databaseAway, Err: err}
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_INTERRUPT,
		sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_NOMEM:
		return &qgjob.Error{Code: qgjob.CodeUnavailable, Message: databaseBusy, Err: err}
	}
	return &qgjob.Error{Code: qgjob.CodeInternal, Message: databaseRefused, Err: err}
}

// sqliteSession is a session on the one connection that writes. Its statements stay prepared.
type sqliteSession struct {
	c       *sql.Conn
	stmts   map[string]*sql.Stmt
	version int64
}

func newSQLiteSession(ctx context.Context, db *sql.DB) (session, error) {
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return &sqliteSession{c: c, stmts: map[string]*sql.Stmt{}}, nil
}

// begin takes the database's one lock for writers. What data_version tells changes when another connection,
// of whatever process, has committed.
func (s *sqliteSession) begin(ctx context.Context, reads []read) (now, version int64, err error) {
	if err := s.exec(ctx, "begin immediate"); err != nil {
		return 0, 0, err
	}
	for _, one := range []struct {
		text string
		to   *int64
	}{{sqliteClock, &now}, {"pragma data_version", &s.version}} {
		if err := s.query(ctx, func(row scanner) error { return row.Scan(one.to) }, one.text); err != nil {
			return 0, 0, err
		}
	}
	for _, r := range reads {
		if err := queryBulk(ctx, s, r); err != nil {
			return 0, 0, err
		}
	}
	return now, s.version, nil
}

func (s *sqliteSession) prepare(ctx context.Context, text string) (*sql.Stmt, error) {
	if stmt, ok := s.stmts[text]; ok {
		return stmt, nil
	}
	stmt, err := s.c.PrepareContext(ctx, text)
	if err != nil {
		return nil, inStatement(text, err)
	}
	s.stmts[text] = stmt
	return stmt, nil
}

func (s *sqliteSession) exec(ctx context.Context, text string, args ...any) error {
	stmt, err := s.prepare(ctx, text)
	if err == nil {
		_, err = stmt.ExecContext(ctx, args...)
	}
	return inStatement(text, err)
}

func (s *sqliteSession) query(ctx context.Context, scan func(scanner) error, text string, args ...any) error {
	stmt, err := s.prepare(ctx, text)
	if err != nil {
		return err
	}
	return inStatement(text, each(scan)(stmt.QueryContext(ctx, args...)))
}

func (s *sqliteSession) write(ctx context.Context, statements []statement) error {
	for _, st := range statements {
		text := st.b.sql(sqliteDialect)
		for _, row := range st.rows {
			if err := s.exec(ctx, text, values(row)...); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *sqliteSession) commit(ctx context.Context, statements []statement, _ []string) (int64, error) {
	if err := s.write(ctx, statements); err != nil {
		return 0, err
	}
	if err := s.exec(ctx, "commit"); err != nil {
		return 0, errors.Join(errUnknown, err)
	}
	return s.version, nil
}

func (s *sqliteSession) rollback(ctx context.Context) error { return s.exec(ctx, "rollback") }

// close ends the connection, which may be inside a transaction, and does not give it back to the pool.
func (s *sqliteSession) close() {
	for _, stmt := range s.stmts {
		_ = stmt.Close() // the connection ends anyway
	}
	_ = s.c.Raw(func(any) error { return driver.ErrBadConn })
	_ = s.c.Close()
}
