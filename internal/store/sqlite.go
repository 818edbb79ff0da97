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
	sqlite3 "modernc.org/sqlite/lib"

	"qgjob"
)

// sqliteReaders is how many reads run at once beside the writer.
const sqliteReaders = 8

const sqliteClock = "select cast(round(unixepoch('subsec') * 1000) as integer)"

var sqliteDialect = &dialect{
	kind:      "sqlite",
	begin:     "begin immediate",
	enter:     sqliteClock,
	clock:     sqliteClock,
	snapshot:  &sql.TxOptions{ReadOnly: true},
	words:     strings.NewReplacer("{key}", "integer primary key", "{bytes}", "blob", "{keyed}", "without rowid"),
	translate: translateSQLite,
	claim: newBulk("itttittii", `
		select {1}, seq from jobs
		where org_id = {2} and app_version_id = {3} and target = {4} and priority = {5}
			and prefer_device = {6} and avoid_device = {7} and state = 'queued' and seq + 0 >= {8}
		order by seq + 0 limit {9}`),
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
