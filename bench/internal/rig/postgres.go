package rig

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// cluster is the PostgreSQL cluster that all contestants share. Its settings are PostgreSQL's defaults, fsync
// and synchronous_commit on, but for the number of connections and the statistics of statements.
type cluster struct {
	socketDir string
	process   *Process
}

// Database makes an empty database and returns its URL. drop removes it, with whoever is still connected.
func (r *Rig) Database(ctx context.Context) (databaseURL string, drop func(context.Context) error, err error) {
	c, err := r.postgres(ctx)
	if err != nil {
		return "", nil, err
	}
	name := fmt.Sprintf("bench_%d", r.next())
	if err := c.exec(ctx, "postgres", "create database "+name); err != nil {
		return "", nil, err
	}
	drop = func(ctx context.Context) error {
		return c.exec(ctx, "postgres", "drop database "+name+" with (force)")
	}
	return c.url(name), drop, nil
}

// PostgresVersion is the version of the cluster's server.
func (r *Rig) PostgresVersion(ctx context.Context) (version string, err error) {
	c, err := r.postgres(ctx)
	if err != nil {
		return "", err
	}
	conn, err := c.connect(ctx, "postgres")
	if err != nil {
		return "", err
	}
	err = conn.QueryRow(ctx, "show server_version").Scan(&version)
	return version, errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
}

// Settle brings a database to rest, so that one contestant's writes are not flushed during the next one's turn:
// statistics are as autovacuum would make them in its time, and dirty pages are written.
func (r *Rig) Settle(ctx context.Context, databaseURL string) error {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for _, statement := range []string{"vacuum analyze", "checkpoint"} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

func (r *Rig) postgres(ctx context.Context) (*cluster, error) {
	r.mu.Lock()
	c := r.cluster
	r.mu.Unlock()
	if c != nil {
		return c, nil
	}
	c, err := r.startCluster(ctx)
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL: %w", err)
	}
	r.mu.Lock()
	r.cluster = c
	r.mu.Unlock()
	return c, nil
}

func (r *Rig) startCluster(ctx context.Context) (*cluster, error) {
	credential, err := unprivileged()
	if err != nil {
		return nil, err
	}
	home := filepath.Join(r.dir, "postgresql")
	if err := os.Mkdir(home, 0o700); err != nil {
		return nil, err
	}
	if credential != nil {
		if err := os.Chown(home, int(credential.Uid), int(credential.Gid)); err != nil {
			return nil, err
		}
	}
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(home, "data")
	initdb, err := r.Start(ctx, Command{
		Path: filepath.Join(bin, "initdb"), Dir: home, credential: credential,
		Args: []string{"-D", data, "-U", "bench", "-E", "UTF8", "--no-locale", "-A", "trust", "--no-instructions"},
	})
	if err != nil {
		return nil, err
	}
	<-initdb.Ended()
	if err := initdb.Err(); err != nil {
		return nil, err
	}
	c := &cluster{socketDir: home}
	c.process, err = r.Start(ctx, Command{
		Path: filepath.Join(bin, "postgres"), Dir: home, credential: credential, stop: syscall.SIGINT,
		Args: []string{
			"-D", data, "-k", home, "-c", "listen_addresses=", "-c", "max_connections=400",
			"-c", "shared_preload_libraries=pg_stat_statements",
		},
	})
	if err != nil {
		return nil, err
	}
	if err := c.process.Await(ctx, "unix", filepath.Join(home, ".s.PGSQL.5432")); err != nil {
		return nil, err
	}
	return c, nil
}

// url is how to reach a database of the cluster: its socket lies in a directory that only its owner and root enter.
func (c *cluster) url(database string) string {
	return "postgres:///" + database + "?" + url.Values{"host": {c.socketDir}, "user": {"bench"}}.Encode()
}

func (c *cluster) exec(ctx context.Context, database, statement string) error {
	conn, err := c.connect(ctx, database)
	if err == nil {
		_, err = conn.Exec(ctx, statement)
		err = errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

// connect connects to a database. A server that has just begun to listen refuses connections until it has started
// up: it is asked again.
func (c *cluster) connect(ctx context.Context, database string) (*pgx.Conn, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, c.url(database))
		if err == nil || !startingUp(err) {
			return conn, err
		}
		select {
		case <-tick.C:
		case <-c.process.Ended():
			return nil, errors.Join(err, c.process.Err())
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}

// unprivileged returns whom PostgreSQL runs as: it refuses root.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(errUID, errGID); err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("it refuses to run as root, and there is neither a user postgres nor nobody")
}

// binaries finds the directory of initdb and postgres: on PATH, or where Debian puts the newest one.
func binaries() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", errors.New("initdb is not on PATH nor in /usr/lib/postgresql: install postgresql")
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1]), nil
}

func startingUp(err error) bool {
	const cannotConnectNow = "57P03"
	var state interface{ SQLState() string }
	return errors.As(err, &state) && state.SQLState() == cannotConnectNow
}
