package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// spaceEvery is how often the free space of the data directory's disk is looked at.
const spaceEvery = 5 * time.Second

// guardDisk lets the worker take no job while its disk has too little space, until ctx ends. Before that it
// makes room: what the caches hold and nobody has used for longer than an attempt may last goes, the oldest first.
func (a *Agent) guardDisk(ctx context.Context) {
	for ctx.Err() == nil {
		a.lookAtDisk(time.Now())
		pause(ctx, spaceEvery)
	}
}

func (a *Agent) lookAtDisk(now time.Time) {
	free, err := a.o.Space(a.o.DataDir)
	if err == nil && free < a.o.MinFree {
		a.makeRoom(now)
		free, err = a.o.Space(a.o.DataDir)
	}
	full := ""
	switch {
	case err != nil:
		a.o.Logger.Warn("the free space of the disk is not known", "dir", a.o.DataDir, "error", err)
	case free < a.o.MinFree:
		full = fmt.Sprintf("its host is low on disk space: %s has %s free, and a job needs %s (--min-free): free some", a.o.DataDir, gigabytes(free), gigabytes(a.o.MinFree))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if (full == "") != (a.full == "") {
		if full != "" {
			a.say.trouble("No jobs are taken", full)
		} else {
			a.say.note("There is space on the disk again: jobs are taken.")
		}
		a.beat.set()
	}
	a.full = full
	a.offer()
}

func gigabytes(n int64) string { return fmt.Sprintf("%.1f GB", float64(n)/1e9) }

// cached is a file or a directory that can be had again.
type cached struct {
	path string
	used time.Time
}

// makeRoom removes what the caches hold, the oldest first, until there is enough space. What was used within the
// longest time that an attempt may last is kept: an attempt of this or another worker may use it.
func (a *Agent) makeRoom(now time.Time) {
	rest := a.o.Limits.Setup + a.o.Limits.Deadline
	var old []cached
	for _, dir := range []string{a.hold.dir, filepath.Join(a.o.DataDir, dependenciesName)} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			a.o.Logger.Warn("a cache cannot be looked at", "dir", dir, "error", err)
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil || now.Sub(info.ModTime()) <= rest || filepath.Ext(e.Name()) == ".lock" {
				continue
			}
			old = append(old, cached{filepath.Join(dir, e.Name()), info.ModTime()})
		}
	}
	slices.SortFunc(old, func(x, y cached) int { return x.used.Compare(y.used) })
	for _, c := range old {
		if free, err := a.o.Space(a.o.DataDir); err != nil || free >= a.o.MinFree {
			return
		}
		info, err := os.Lstat(c.path)
		if err != nil || now.Sub(info.ModTime()) <= rest {
			continue // somebody has taken it into use, or removed it, meanwhile
		}
		// It loses its name first: a removal that takes long, or is broken off, leaves nobody half of it.
		gone := c.path + ".gone"
		if err := errors.Join(os.RemoveAll(gone), os.Rename(c.path, gone)); err != nil {
			a.o.Logger.Warn("a cache cannot be emptied", "file", c.path, "error", err)
			continue
		}
		a.o.Logger.Info("making room on the disk", "removed", c.path, "last used", c.used)
		if err := os.RemoveAll(gone); err != nil {
			a.o.Logger.Warn("a cache cannot be emptied", "file", gone, "error", err)
		}
	}
}
