package plain

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	_ "modernc.org/sqlite" // the driver that qgjob uses

	"qgjob/internal/store"
)

// sqliteWriter writes to SQLite with qgjob's durability: WAL and synchronous=FULL.
type sqliteWriter struct {
	db       *sql.DB
	conn     *sql.Conn
	prepared map[string]*sql.Stmt
}

// chunk is how many rows one statement takes when there are enough of them.
const chunk = 32

func openSQLite(ctx context.Context, path string) (writer, error) {
	if err := migrate(ctx, store.Options{Path: path}); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(wal)&_pragma=synchronous(full)&_pragma=cache_size(-16384)")
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &sqliteWriter{db, conn, map[string]*sql.Stmt{}}, nil
}

// write is without a context of its own at each statement: database/sql pays for those with a goroutine.
func (w *sqliteWriter) write(ctx context.Context, rows [][][]any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	plain := context.Background()
	if _, err := w.conn.ExecContext(plain, "begin immediate"); err != nil {
		return err
	}
	for i, t := range tables {
		for left := rows[i]; len(left) > 0; {
			n := 1
			if len(left) >= chunk {
				n = chunk
			}
			if err := w.insert(plain, t, left[:n]); err != nil {
				_, rollback := w.conn.ExecContext(plain, "rollback")
				return errors.Join(err, rollback)
			}
			left = left[n:]
		}
	}
	_, err := w.conn.ExecContext(plain, "commit")
	return err
}

func (w *sqliteWriter) insert(ctx context.Context, t table, rows [][]any) error {
	row := "(?" + strings.Repeat(",?", len(t.kinds)-1) + ")"
	text := "insert into " + t.into + " values " + row + strings.Repeat(","+row, len(rows)-1) + t.rest
	statement, ok := w.prepared[text]
	if !ok {
		var err error
		if statement, err = w.conn.PrepareContext(ctx, text); err != nil {
			return err
		}
		w.prepared[text] = statement
	}
	values := make([]any, 0, len(rows)*len(t.kinds))
	for _, r := range rows {
		values = append(values, r...)
	}
	_, err := statement.ExecContext(ctx, values...)
	return err
}

func (w *sqliteWriter) close() error { return errors.Join(w.conn.Close(), w.db.Close()) }
