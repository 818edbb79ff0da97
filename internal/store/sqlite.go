package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	zombiezen "zombiezen.com/go/sqlite"

	"qgjob"
)

// sqliteReaders is how many reads run at once beside the writer.
const sqliteReaders = 8

const sqliteClock = "select cast(round(unixepoch('subsec') * 1000) as integer)"

var sqliteDialect = &dialect{
	kind:     "sqlite",
	clock:    sqliteClock,
	snapshot: &sql.TxOptions{ReadOnly: true},
	words: strings.NewReplacer("{key}", "integer primary key", "{bytes}", "blob", "{keyed} {hot}", "without rowid", "{keyed}", "without rowid", "{hot}", "",
		"{sqlite}", "", "{/sqlite}", "", "{postgresql}", "/*", "{/postgresql}", "*/"),
	translate: translateSQLite,
}

// sqlitePragmas are what every connection sets. WAL lets readers go on beside the writer; synchronous=FULL syncs
// the log at every commit.
func sqlitePragmas(more ...string) []string {
	return append([]string{"journal_mode(wal)", "synchronous(full)", "temp_store(memory)"}, more...)
}

// openSQLite makes and migrates the file, and opens it for a few readers.
func openSQLite(ctx context.Context, path string) (read *sql.DB, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the database's directory: %w", err)
	}
	// SQLite would let everybody on the machine read it, and gives its log the mode of the file.
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	if err := file.Close(); err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	open := func(connections int, pragmas ...string) (*sql.DB, error) {
		q := url.Values{"_pragma": sqlitePragmas(append(pragmas, fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()))...)}
		db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
		if err != nil {
			return nil, fmt.Errorf("open the database %s: %w", path, err)
		}
		db.SetMaxOpenConns(connections)
		db.SetMaxIdleConns(connections)
		return db, nil
	}
	write, err := open(1)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(migrate(ctx, write, sqliteDialect, goose.DialectSQLite3), write.Close()); err != nil {
		return nil, err
	}
	return open(sqliteReaders, "query_only(1)")
}

// translateSQLite gives an error its code: what a full or failing disk, a lock or an interrupt did can be
// tried again, anything else is a defect.
func translateSQLite(err error) error {
	var code zombiezen.ResultCode
	if e, ok := errors.AsType[*sqliteError](err); ok { // of the writer
		code = e.code
	} else if e, ok := errors.AsType[*sqlite.Error](err); ok { // of a reader
		code = zombiezen.ResultCode(e.Code())
	} else {
		return &qgjob.Error{Code: qgjob.CodeUnavailable, Message: databaseAway, Err: err}
	}
	switch code.ToPrimary() {
	case zombiezen.ResultBusy, zombiezen.ResultLocked, zombiezen.ResultFull, zombiezen.ResultIOErr, zombiezen.ResultInterrupt,
		zombiezen.ResultCantOpen, zombiezen.ResultReadOnly, zombiezen.ResultNoMem:
		return &qgjob.Error{Code: qgjob.CodeUnavailable, Message: databaseBusy, Err: err}
	}
	return &qgjob.Error{Code: qgjob.CodeInternal, Message: databaseRefused, Err: err}
}
