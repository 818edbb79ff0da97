package browserstack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"qgjob/internal/device"
)

// record is what a slot has open at BrowserStack, kept on disk so that it can be ended after the death of
// the worker. A session that is being made has no id yet: it is known by the name that it was given.
type record struct {
	Open   []string `json:"open,omitempty"`   // ids of sessions
	Making string   `json:"making,omitempty"` // name of the session that is being made
	Build  string   `json:"build,omitempty"`  // in which
}

func (r record) empty() bool { return len(r.Open) == 0 && r.Making == "" }

func (d *Driver) recordPath(slot int) string {
	return filepath.Join(d.dir, fmt.Sprintf("slot-%d.json", slot))
}

func (d *Driver) writeRecord(slot int, r record) error {
	path := d.recordPath(slot)
	if r.empty() {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// endDead ends what a dead worker left open in a slot. The caller holds the slot's lock: its worker is dead, or
// was this one.
func (d *Driver) endDead(ctx context.Context, slot int) error {
	data, err := os.ReadFile(d.recordPath(slot))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		d.log.Warn("the record of open sessions at BrowserStack is damaged: they end when they have been idle", "file", d.recordPath(slot), "error", err)
		return d.writeRecord(slot, record{})
	}
	ids, err := d.sessionsOf(ctx, r)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := d.rest.delete(ctx, id); err != nil {
			return err
		}
		d.log.Info("ended a session at BrowserStack whose worker died", "session", id, "device", d.id(slot))
	}
	return d.writeRecord(slot, record{})
}

// sessionsOf are the sessions of a record, the one that was being made included if it came to be.
func (d *Driver) sessionsOf(ctx context.Context, r record) ([]string, error) {
	ids := slices.Clone(r.Open)
	if r.Making == "" {
		return ids, nil
	}
	running, err := d.rest.runningSessions(ctx, r.Build)
	if err != nil {
		return nil, err
	}
	for _, s := range running {
		if s.Name == r.Making {
			ids = append(ids, s.ID)
		}
	}
	return ids, nil
}

// sweep ends the sessions of dead workers in slots that are not open here. They may hold the very parallels
// without which their slots would never be opened again.
func (d *Driver) sweep(ctx context.Context) {
	d.mu.Lock()
	due := time.Since(d.swept) >= sweepEvery
	if due {
		d.swept = time.Now()
	}
	d.mu.Unlock()
	if !due {
		return
	}
	files, err := filepath.Glob(filepath.Join(d.dir, "slot-*.json"))
	if err != nil {
		return // the pattern is right
	}
	for _, file := range files {
		var slot int
		if _, err := fmt.Sscanf(filepath.Base(file), "slot-%d.json", &slot); err != nil {
			continue
		}
		held, err := device.Lock(device.HostLockDir, d.id(slot))
		if err != nil {
			continue // its worker lives
		}
		if err := d.endDead(ctx, slot); err != nil {
			d.log.Warn("sessions of a worker that died could not be ended: it is tried again", "device", d.id(slot), "error", err)
		}
		held.Unlock()
	}
}
