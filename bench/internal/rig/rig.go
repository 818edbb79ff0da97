// Package rig is the stage of a benchmark: a temporary directory, one PostgreSQL cluster in it with Debian's
// defaults, and the server processes of the contestants.
//
// It promises that everything it started has ended when Close returns, and that children do not outlive a
// benchmark that is killed. It measures nothing but the memory and the CPU time of processes, and knows no contestant.
package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// Rig owns a directory, a cluster and processes. Its methods may be called concurrently.
type Rig struct {
	dir string

	mu        sync.Mutex
	processes []*Process // in the order of their start
	cluster   *cluster   // nil until a database is asked for
	made      int        // databases and directories so far
}

// New makes the stage. Nothing runs on it yet.
func New() (*Rig, error) {
	dir, err := os.MkdirTemp("", "queuebench-")
	if err != nil {
		return nil, fmt.Errorf("make the benchmark's directory: %w", err)
	}
	// PostgreSQL runs as another user when this is root: it must be able to pass through.
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &Rig{dir: dir}, nil
}

// Close ends every process that still runs, the latest started first, and removes the directory.
func (r *Rig) Close() error {
	r.mu.Lock()
	processes := r.processes
	r.mu.Unlock()
	var errs []error
	for i := len(processes) - 1; i >= 0; i-- {
		errs = append(errs, processes[i].Stop())
	}
	return errors.Join(append(errs, os.RemoveAll(r.dir))...)
}

// Dir makes a new empty directory.
func (r *Rig) Dir() (string, error) {
	dir := filepath.Join(r.dir, fmt.Sprintf("data-%d", r.next()))
	return dir, os.Mkdir(dir, 0o700)
}

func (r *Rig) next() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.made++
	return r.made
}

// Build compiles a main package of a module that this one depends on, within that module, and returns the binary's
// path. A second call finds it built.
func (r *Rig) Build(ctx context.Context, module, pkg, name string) (string, error) {
	binary := filepath.Join(r.dir, name)
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	dir, err := r.goTool(ctx, "", "list", "-m", "-f", "{{.Dir}}", module)
	if err == nil {
		_, err = r.goTool(ctx, dir, "build", "-trimpath", "-o", binary, pkg)
	}
	if err != nil {
		return "", fmt.Errorf("build %s: %w", pkg, err)
	}
	return binary, nil
}

// goTool runs a command of the go tool to its end and returns what it printed.
func (r *Rig) goTool(ctx context.Context, dir string, args ...string) (string, error) {
	p, err := r.Start(ctx, Command{Path: "go", Args: args, Dir: dir, Env: []string{"CGO_ENABLED=0"}})
	if err != nil {
		return "", err
	}
	select {
	case <-p.Ended():
		return p.output.String(), p.Err()
	case <-ctx.Done():
		return "", errors.Join(ctx.Err(), p.Stop())
	}
}
