package plain

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"qgjob/internal/store"
)

// postgresWriter writes to PostgreSQL: a transaction is one round trip, and takes the rows as arrays.
type postgresWriter struct{ conn *pgx.Conn }

func openPostgres(ctx context.Context, url string) (writer, error) {
	if err := migrate(ctx, store.Options{DatabaseURL: url}); err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	return &postgresWriter{conn}, nil
}

func (w *postgresWriter) write(ctx context.Context, rows [][][]any) error {
	batch := &pgx.Batch{} // pgx sends a batch as one transaction
	for i, t := range tables {
		if len(rows[i]) > 0 {
			batch.Queue(t.unnest(), arrays(t, rows[i])...)
		}
	}
	return w.conn.SendBatch(ctx, batch).Close()
}

func (t table) unnest() string {
	params := make([]string, len(t.kinds))
	for i, kind := range t.kinds {
		params[i] = fmt.Sprintf("$%d::%s[]", i+1, map[rune]string{'t': "text", 'i': "bigint"}[kind])
	}
	return "insert into " + t.into + " select * from unnest(" + strings.Join(params, ", ") + ")" + t.rest
}

// arrays turns rows into one array a column.
func arrays(t table, rows [][]any) []any {
	columns := make([]any, len(t.kinds))
	for i, kind := range t.kinds {
		if kind == 't' {
			columns[i] = column[string](rows, i)
		} else {
			columns[i] = column[int64](rows, i)
		}
	}
	return columns
}

func column[T any](rows [][]any, i int) []T {
	values := make([]T, len(rows))
	for n, row := range rows {
		values[n] = row[i].(T)
	}
	return values
}

func (w *postgresWriter) close() error { return w.conn.Close(context.Background()) }
