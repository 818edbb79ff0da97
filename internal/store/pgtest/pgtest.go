// Package pgtest starts a real PostgreSQL for tests: Debian's binaries, a cluster of its own in a temporary
// directory, fsync on as in production. It is stopped, by its own process, when the test binary is done.
package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
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

const startTimeout = 30 * time.Second

// Cluster is a running PostgreSQL.
type Cluster struct {
	dir     string
	port    int
	process *exec.Cmd
	ended   chan error
	output  bytes.Buffer
	names   chan int
}

// Start makes a cluster and starts it. PostgreSQL refuses to run as root: then it runs as postgres or nobody.
func Start(ctx context.Context) (*Cluster, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "qgjob-postgres-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir, ended: make(chan error, 1), names: make(chan int, 1)}
	c.names <- 1
	if err := c.start(ctx, bin); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, bin string) error {
	as, err := unprivileged(c.dir)
	if err != nil {
		return err
	}
	data := filepath.Join(c.dir, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", "qgjob", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	initdb.Dir, initdb.SysProcAttr = c.dir, as
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	if c.port, err = freePort(); err != nil {
		return err
	}
	c.process = exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-c", "listen_addresses=127.0.0.1",
		"-c", "port="+strconv.Itoa(c.port), "-c", "unix_socket_directories="+c.dir, "-c", "max_connections=300")
	c.process.Dir, c.process.SysProcAttr = c.dir, as
	c.process.Stdout, c.process.Stderr = &c.output, &c.output
	if err := c.process.Start(); err != nil {
		return err
	}
	go func() { c.ended <- c.process.Wait() }()
	return c.ready(ctx)
}

// ready waits until the cluster answers.
func (c *Cluster) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		conn, err := pgx.Connect(ctx, c.url("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case end := <-c.ended:
			return fmt.Errorf("postgres ended while starting: %v: %s", end, c.output.String())
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("postgres does not answer: %w", err), c.Stop())
		case <-again.C:
		}
	}
}

// Database makes an empty database and returns its URL.
func (c *Cluster) Database(ctx context.Context) (string, error) {
	n := <-c.names
	c.names <- n + 1
	name := "qgjob" + strconv.Itoa(n)
	conn, err := pgx.Connect(ctx, c.url("postgres"))
	if err != nil {
		return "", err
	}
	_, err = conn.Exec(ctx, "create database "+name)
	return c.url(name), errors.Join(err, conn.Close(ctx))
}

// PID is that of the postmaster.
func (c *Cluster) PID() int { return c.process.Process.Pid }

// Stop ends the cluster and removes its directory. It waits until the process is gone.
func (c *Cluster) Stop() error {
	if err := c.process.Process.Signal(syscall.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-c.ended
	c.ended <- nil
	return os.RemoveAll(c.dir)
}

func (c *Cluster) url(database string) string {
	u := url.URL{Scheme: "postgres", User: url.User("qgjob"), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port)), Path: database, RawQuery: "sslmode=disable"}
	return u.String()
}

// binaries finds the newest PostgreSQL that Debian's packages have installed.
func binaries() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", errors.Join(errors.New("no PostgreSQL under /usr/lib/postgresql: apt-get install postgresql"), err)
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })
	return filepath.Dir(newest), nil
}

func version(initdb string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(initdb)))) // anything else sorts first
	return n
}

// unprivileged returns how to run as somebody who is not root, and hands dir over to them. The process gets
// a group of its own, so that a Ctrl-C at the test does not reach it first.
func unprivileged(dir string) (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(attr)
	if os.Geteuid() != 0 {
		return attr, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.Atoi(u.Gid)
		if err != nil {
			return nil, err
		}
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		return attr, os.Chown(dir, uid, gid)
	}
	return nil, errors.New("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}
