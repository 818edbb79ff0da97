package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// Profiler leaves a profile of each measurement in a directory: perf's samples of the server, and the statements on
// which PostgreSQL spent its time. The zero Profiler leaves nothing.
type Profiler struct {
	Dir string
}

// Begin starts to profile a server (the benchmark itself when it is nil); finish writes what was seen under a name.
func (p Profiler) Begin(ctx context.Context, r *Rig, server *Process, name string) (finish func() error, err error) {
	if p.Dir == "" {
		return func() error { return nil }, nil
	}
	pid := os.Getpid()
	if server != nil {
		pid = server.PID()
	}
	path := filepath.Join(p.Dir, strings.NewReplacer(" ", "-", ",", "", "×", "x").Replace(name))
	perf, err := r.Start(ctx, Command{
		Path: "perf", stop: syscall.SIGINT,
		Args: []string{"record", "-q", "-F", "499", "-g", "-p", fmt.Sprint(pid), "-o", path + ".perf.data"},
	})
	if err != nil {
		return nil, err
	}
	if err := r.statements(ctx, "select pg_stat_statements_reset()", nil); err != nil {
		return nil, errors.Join(err, perf.Stop())
	}
	return func() error {
		var out strings.Builder
		err := r.statements(ctx, topStatements, func(rows pgx.Rows) error {
			var calls, written int64
			var total float64
			var text string
			err := rows.Scan(&calls, &total, &written, &text)
			fmt.Fprintf(&out, "%10.1f ms %9d calls %9.3f ms each %9d rows  %s\n", total, calls, total/float64(calls), written, text)
			return err
		})
		if out.Len() > 0 {
			err = errors.Join(err, os.WriteFile(path+".statements.txt", []byte(out.String()), 0o644))
		}
		return errors.Join(err, perf.Stop())
	}, nil
}

const topStatements = `
	select calls, total_exec_time, rows, left(regexp_replace(query, '\s+', ' ', 'g'), 300)
	from pg_stat_statements order by total_exec_time desc limit 40`

// statements asks the cluster's statistics of statements, if there is a cluster.
func (r *Rig) statements(ctx context.Context, query string, each func(pgx.Rows) error) (err error) {
	r.mu.Lock()
	c := r.cluster
	r.mu.Unlock()
	if c == nil {
		return nil
	}
	conn, err := c.connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if _, err := conn.Exec(ctx, "create extension if not exists pg_stat_statements"); err != nil {
		return err
	}
	rows, err := conn.Query(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if each != nil {
			if err := each(rows); err != nil {
				return err
			}
		}
	}
	return rows.Err()
}
