package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"qgjob"
)

// holdState is why a device takes no work, and until when in milliseconds; 0: until it is released.
type holdState struct {
	kind  qgjob.HoldKind
	until int64
}

// held says why a device takes no work; empty when it does.
func (b *board) held(deviceID string, now int64) string {
	if h, held := b.holds[deviceID]; held && (h.until == 0 || h.until > now) {
		return "held (" + string(h.kind) + ")"
	}
	return ""
}

// HoldDevice lets a known device take no more work, for a while or, with zero, until it is released. It replaces
// the hold that there is.
func (s *Store) HoldDevice(ctx context.Context, deviceID string, kind qgjob.HoldKind, reason string, lasts time.Duration) error {
	return s.write(ctx, func(ctx context.Context, t *tx) error {
		if err := t.flush(ctx); err != nil {
			return err
		}
		known := ""
		err := t.row(ctx, func(row scanner) error { return row.Scan(&known) }, `select id from devices where id = $1`, deviceID)
		if errors.Is(err, sql.ErrNoRows) {
			return qgjob.Errorf(qgjob.CodeNotFound, "there is no device %s: see qgjob devices", deviceID)
		}
		if err != nil {
			return err
		}
		until := int64(0)
		if lasts > 0 {
			until = t.now + lasts.Milliseconds()
		}
		t.b.holds[deviceID] = holdState{kind, until}
		t.unplan() // others may go elsewhere
		return t.exec(ctx, `
			insert into device_holds (device_id, kind, reason, since_ms, until_ms) values ($1, $2, $3, $4, $5)
			on conflict (device_id) do update set kind = excluded.kind, reason = excluded.reason, since_ms = excluded.since_ms, until_ms = excluded.until_ms`,
			deviceID, kind, reason, t.now, until)
	})
}

// ReleaseDevice ends a device's hold; only one of the given kinds, where any are given. It says whether there was one.
func (s *Store) ReleaseDevice(ctx context.Context, deviceID string, only ...qgjob.HoldKind) (released bool, err error) {
	err = s.write(ctx, func(ctx context.Context, t *tx) error {
		released = false // it may run twice
		var kind string
		err := t.row(ctx, func(row scanner) error { return row.Scan(&kind) }, `select kind from device_holds where device_id = $1`, deviceID)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, k := range only {
			released = released || string(k) == kind
		}
		if released = released || len(only) == 0; !released {
			return nil
		}
		delete(t.b.holds, deviceID)
		return t.exec(ctx, `delete from device_holds where device_id = $1`, deviceID)
	})
	return released, err
}

// Holds returns the holds of devices that are in force, by device.
func (s *Store) Holds(ctx context.Context, now time.Time) (map[string]qgjob.Hold, error) {
	holds := map[string]qgjob.Hold{}
	err := s.query(ctx, func(row scanner) error {
		var id string
		var h qgjob.Hold
		var since, until int64
		err := row.Scan(&id, &h.Kind, &h.Reason, &since, &until)
		h.Since = at(since)
		if until > 0 {
			end := at(until)
			h.Until = &end
		}
		if h.Until == nil || h.Until.After(now) {
			holds[id] = h
		}
		return err
	}, `select device_id, kind, reason, since_ms, until_ms from device_holds`)
	return holds, err
}
