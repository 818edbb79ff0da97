package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"qgjob/internal/api"
)

// spoolAge is how long a result of a worker that has ended is kept for its server to come back.
const spoolAge = 7 * 24 * time.Hour

// outgoing is a result on its way to the server.
type outgoing struct {
	api.AttemptResult
	JobID  string `json:"job_id"`
	Server string `json:"server"` // whom it is for
}

// ownDir is what one worker process keeps on disk: working directories, logs on their way, and the spool.
// It is locked while the worker lives; what a dead one leaves is taken over by the next.
//
//	workers/lock           held while a directory is made or taken over
//	workers/<id>/lock      held while the worker lives
//	workers/<id>/spool/    results that the server has not answered
//	workers/<id>/work/     what belongs to running attempts
type ownDir struct {
	root string // workers/
	path string // workers/<id>
	lock *os.File
}

// openOwnDir makes the directory of a new worker.
func openOwnDir(dataDir, workerID string) (*ownDir, error) {
	o := &ownDir{root: filepath.Join(dataDir, "workers")}
	o.path = filepath.Join(o.root, workerID)
	if err := os.MkdirAll(o.root, 0o700); err != nil {
		return nil, fmt.Errorf("the worker's data directory cannot be used: %w", err)
	}
	gate, err := o.enter()
	if err != nil {
		return nil, err
	}
	defer gate.Close()
	for _, dir := range []string{o.spool(), o.work()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("the worker's data directory cannot be used: %w", err)
		}
	}
	if o.lock, err = lockFile(filepath.Join(o.path, "lock"), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("the worker's data directory cannot be locked: %w", err)
	}
	return o, nil
}

// enter waits for the right to make or take over directories, which lasts until the file is closed.
func (o *ownDir) enter() (*os.File, error) {
	gate, err := lockFile(filepath.Join(o.root, "lock"), syscall.LOCK_EX)
	if err != nil {
		return nil, fmt.Errorf("the workers' data directory cannot be locked: %w", err)
	}
	return gate, nil
}

func (o *ownDir) spool() string { return filepath.Join(o.path, "spool") }
func (o *ownDir) work() string  { return filepath.Join(o.path, "work") }

// close removes the directory, but for results that are still to be delivered.
func (o *ownDir) close() {
	os.RemoveAll(o.work())
	if err := os.Remove(o.spool()); err == nil { // only when it is empty
		os.RemoveAll(o.path)
	}
	o.lock.Close()
}

// keep makes a result survive the process.
func (o *ownDir) keep(out outgoing) error {
	data, err := json.Marshal(out)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(o.spool(), "tmp-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails once it has its name
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), o.file(out.AttemptID)); err != nil {
		return err
	}
	return syncDir(o.spool())
}

// drop forgets a result that was answered.
func (o *ownDir) drop(attemptID string) { os.Remove(o.file(attemptID)) }

func (o *ownDir) file(attemptID string) string {
	return filepath.Join(o.spool(), filepath.Base(attemptID)+".json")
}

// inherit takes over what dead workers of the same data directory left: it returns the results that are for
// the server, now in this worker's spool, and removes everything else but results for other servers.
func (o *ownDir) inherit(server string, logger *slog.Logger) []outgoing {
	gate, err := o.enter()
	if err != nil {
		logger.Warn("what earlier workers left cannot be taken over", "error", err)
		return nil
	}
	defer gate.Close()
	var results []outgoing
	dirs, _ := os.ReadDir(o.root)
	for _, dir := range dirs {
		path := filepath.Join(o.root, dir.Name())
		if !dir.IsDir() || path == o.path {
			continue
		}
		lock, err := lockFile(filepath.Join(path, "lock"), syscall.LOCK_EX|syscall.LOCK_NB)
		if err != nil {
			continue // its worker lives
		}
		dead := &ownDir{root: o.root, path: path, lock: lock}
		results = append(results, o.adopt(dead, server, logger)...)
		dead.close()
	}
	return results
}

// adopt moves the results of a dead worker that are for the server.
func (o *ownDir) adopt(dead *ownDir, server string, logger *slog.Logger) []outgoing {
	var results []outgoing
	files, _ := filepath.Glob(filepath.Join(dead.spool(), "*"))
	for _, file := range files {
		out, err := readOutgoing(file)
		switch {
		case err != nil || time.Since(modified(file)) > spoolAge:
			logger.Warn("an old or unreadable result is dropped", "file", file, "error", err)
			os.Remove(file)
		case out.Server != server:
		default:
			if err := o.keep(out); err != nil {
				logger.Warn("a result cannot be taken over", "file", file, "error", err)
				continue
			}
			os.Remove(file)
			logger.Info("a result of a worker before is delivered now", "attempt", out.AttemptID, "job", out.JobID)
			results = append(results, out)
		}
	}
	return results
}

func readOutgoing(file string) (out outgoing, err error) {
	if !strings.HasSuffix(file, ".json") {
		return out, fmt.Errorf("%s was not written to its end", file)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return out, err
	}
	return out, json.Unmarshal(data, &out)
}

func modified(file string) time.Time {
	info, err := os.Stat(file)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// lockFile takes the lock that a file stands for, which is made when it is missing. It is held until the
// file is closed, or the process dies.
func lockFile(path string, how int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), how); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
