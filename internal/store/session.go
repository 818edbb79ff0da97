package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// A session is the writer's connection to the database, one transaction at a time. One goroutine uses it.
// After an error the transaction is rolled back; when that fails, too, the session is closed and another one
// opened.
type session interface {
	// begin opens a write transaction, the only one among all servers, and returns the database's clock and
	// the version of what is there: it changes with every commit of anybody else. What reads find is as of
	// the transaction. A session may take it that the version is still the known one (noVersion for none), leave
	// out the reads that may be skipped, and open the transaction with the first statement or the commit. Where
	// that was wrong, one of those is errStale.
	begin(ctx context.Context, known int64, reads []read) (now, version int64, err error)
	query(ctx context.Context, scan func(scanner) error, text string, args ...any) error
	// ask runs selects that need no arguments, in one round trip.
	ask(ctx context.Context, questions []question) error
	exec(ctx context.Context, text string, args ...any) error
	// write runs statements in their order.
	write(ctx context.Context, statements []statement) error
	// commit writes the last statements, tells other servers of the topics, and commits. version is that of
	// what is there now. An error that is errUnknown leaves open whether it was committed.
	commit(ctx context.Context, statements []statement, topics []string) (version int64, err error)
	rollback(ctx context.Context) error
	close()
}

// statement is a bulk write.
type statement struct {
	b    *bulk
	rows [][]any
}

// read is a bulk select.
type read struct {
	b       *bulk
	rows    [][]any
	scan    func(scanner) error
	skipped *bool // set when it was left out, as it may be unless nil: a unique index refuses what is written without it
}

// question is a select without arguments, and what takes its rows.
type question struct {
	text string
	scan func(scanner) error
}

// noVersion is the version of a board that is not there.
const noVersion = -1

// errStale marks a transaction that took for known what is not so any more. Another one on the same session
// reads all of it.
var errStale = errors.New("something else was written meanwhile")

// errUnknown marks a commit that may or may not have happened.
var errUnknown = errors.New("the outcome of the commit is unknown")

// scanner is a row under the cursor.
type scanner interface{ Scan(dest ...any) error }

// queryBulk runs a bulk select over its rows.
func queryBulk(ctx context.Context, s session, r read) error {
	if len(r.rows) == 0 {
		return nil
	}
	if _, setwise := s.(*postgresSession); setwise {
		text, args := r.b.forRows(r.rows)
		return s.query(ctx, r.scan, text, args...)
	}
	text := r.b.forRow()
	for _, row := range r.rows {
		if err := s.query(ctx, r.scan, text, values(row)...); err != nil {
			return err
		}
	}
	return nil
}

// inStatement says in which statement an error came up.
func inStatement(text string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%.60q: %w", strings.TrimSpace(text), err)
}
