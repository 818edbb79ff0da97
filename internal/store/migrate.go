package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pressly/goose/v3"

	"qgjob"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migrate brings the database to this version's schema. It refuses a database that a newer qgjob has
// migrated: its rows may mean something that this version does not know.
func migrate(ctx context.Context, db *sql.DB, d *dialect, gd goose.Dialect, opts ...goose.ProviderOption) error {
	steps, newest, err := migrations(d)
	if err != nil {
		return err
	}
	opts = append(opts, goose.WithGoMigrations(steps...), goose.WithDisableGlobalRegistry(true))
	p, err := goose.NewProvider(gd, db, nil, opts...)
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	have, err := p.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("read the database's schema version: %w", err)
	}
	if have > newest {
		return qgjob.Errorf(qgjob.CodeInvalid,
			"the database has schema %d, but this qgjob knows schemas up to %d: use the newer qgjob that migrated it", have, newest)
	}
	for try := 1; ; try++ {
		_, err := p.Up(ctx)
		if refusal, ok := errors.AsType[*pgconn.PgError](err); ok && refusal.Code == deadlockDetected && try < migrateTries {
			continue // with a reader of a server that goes on meanwhile
		}
		if err != nil {
			return fmt.Errorf("migrate the database from schema %d to %d: %w", have, newest, err)
		}
		return nil
	}
}

// migrateTries is how often a migration begins that is a victim of deadlocks.
const migrateTries = 5

// migrations makes one step of each file, in the dialect's words. The number before the first underscore of
// a file's name is its version.
func migrations(d *dialect) (steps []*goose.Migration, newest int64, err error) {
	names, err := fs.Glob(migrationFiles, "migrations/*.sql")
	if err != nil {
		return nil, 0, err
	}
	for _, name := range names {
		number, _, _ := strings.Cut(strings.TrimPrefix(name, "migrations/"), "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return nil, 0, fmt.Errorf("migration %s has no number: %w", name, err)
		}
		content, err := migrationFiles.ReadFile(name)
		if err != nil {
			return nil, 0, err
		}
		script := d.words.Replace(string(content))
		up := func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, script)
			return err
		}
		steps = append(steps, goose.NewGoMigration(version, &goose.GoFunc{RunTx: up}, nil))
		newest = max(newest, version)
	}
	return steps, newest, nil
}
