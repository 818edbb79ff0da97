package store

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"zombiezen.com/go/sqlite"
)

// busyTimeout is how long a statement waits for another process that holds the database.
const busyTimeout = 10 * time.Second

// What the writer's connection sets. Pages that many transactions change, as a queue's ends and its devices are, go from the log into the
// file once in so many: a log of 64 MB costs a third less than SQLite's own of 4 MB when a million jobs lie between a queue's ends.
var writerPragmas = []string{"cache_size(-16384)", "wal_autocheckpoint(16000)"}

// sqliteSession is a session on the one connection that writes. It goes without database/sql, which costs more
// than the statements themselves when they are run row by row. Its statements stay prepared.
type sqliteSession struct {
	c       *sqlite.Conn
	stmts   map[string]*sqlite.Stmt
	version int64
}

func newSQLiteSession(path string) (session, error) {
	c, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
	if err != nil {
		return nil, err
	}
	c.SetBusyTimeout(busyTimeout)
	s := &sqliteSession{c: c, stmts: map[string]*sqlite.Stmt{}}
	for _, pragma := range sqlitePragmas(writerPragmas...) {
		if err := s.query(context.Background(), func(scanner) error { return nil }, "pragma "+pragma); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return s, nil
}

// begin takes the database's one lock for writers. What data_version tells changes when another connection,
// of whatever process, has committed.
func (s *sqliteSession) begin(ctx context.Context, _ int64, reads []read) (now, version int64, err error) {
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

// parameter is how the statements name their parameters. SQLite would number such names as they come up.
var parameter = regexp.MustCompile(`\$(\d+)`)

func (s *sqliteSession) prepare(text string) (*sqlite.Stmt, error) {
	if stmt, ok := s.stmts[text]; ok {
		return stmt, nil
	}
	stmt, err := s.c.Prepare(parameter.ReplaceAllString(text, "?$1"))
	if err != nil {
		return nil, inStatement(text, newSQLiteError(err))
	}
	s.stmts[text] = stmt
	return stmt, nil
}

// sqliteError is an error that SQLite gave, with its code.
type sqliteError struct {
	code sqlite.ResultCode
	err  error
}

func newSQLiteError(err error) error { return &sqliteError{sqlite.ErrCode(err), err} }

func (e *sqliteError) Error() string { return e.err.Error() }

func (e *sqliteError) Unwrap() error { return e.err }

// bind sets a statement's parameters to values of types that values returns.
func bind(stmt *sqlite.Stmt, args []any) {
	for i, arg := range args {
		switch v := arg.(type) {
		case int64:
			stmt.BindInt64(i+1, v)
		case int:
			stmt.BindInt64(i+1, int64(v))
		case bool:
			stmt.BindBool(i+1, v)
		case []byte:
			stmt.BindBytes(i+1, v)
		default:
			stmt.BindText(i+1, text(v))
		}
	}
}

// run steps through a statement's rows.
func run(stmt *sqlite.Stmt, args []any, scan func(scanner) error) error {
	bind(stmt, args)
	for {
		more, err := stmt.Step()
		if err != nil {
			err = newSQLiteError(err)
		} else if more {
			err = scan(sqliteRow{stmt})
		}
		if err != nil {
			return errors.Join(err, stmt.Reset())
		}
		if !more {
			return stmt.Reset()
		}
	}
}

func noRows(scanner) error { return errors.New("a statement that was to write returns rows") }

func (s *sqliteSession) exec(ctx context.Context, text string, args ...any) error {
	return s.query(ctx, noRows, text, args...)
}

func (s *sqliteSession) query(_ context.Context, scan func(scanner) error, text string, args ...any) error {
	stmt, err := s.prepare(text)
	if err != nil {
		return err
	}
	return inStatement(text, run(stmt, args, scan))
}

func (s *sqliteSession) ask(ctx context.Context, questions []question) error {
	for _, q := range questions {
		if err := s.query(ctx, q.scan, q.text); err != nil {
			return err
		}
	}
	return nil
}

func (s *sqliteSession) write(_ context.Context, statements []statement) error {
	for _, st := range statements {
		text := st.b.forRow()
		stmt, err := s.prepare(text)
		if err != nil {
			return err
		}
		for _, row := range st.rows {
			if err := run(stmt, row, noRows); err != nil {
				return inStatement(text, err)
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

func (s *sqliteSession) close() { _ = s.c.Close() } // it may be inside a transaction, which ends with it

// sqliteRow is the row that a statement stands on.
type sqliteRow struct{ stmt *sqlite.Stmt }

func (r sqliteRow) Scan(dest ...any) error {
	for i, d := range dest {
		switch d := d.(type) {
		case *int64:
			*d = r.stmt.ColumnInt64(i)
		case *int:
			*d = r.stmt.ColumnInt(i)
		case *bool:
			*d = r.stmt.ColumnBool(i)
		case *string:
			*d = r.stmt.ColumnText(i)
		default:
			t, err := textOf(d)
			if err != nil {
				return fmt.Errorf("column %d: %w", i, err)
			}
			*t = r.stmt.ColumnText(i)
		}
	}
	return nil
}
