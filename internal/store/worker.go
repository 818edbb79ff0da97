package store

import (
	"context"
	"fmt"
	"strings"

	"qgjob"
)

// Register announces a worker with its devices. It can be repeated.
func (s *Store) Register(ctx context.Context, workerID, host, version string, devices []DeviceReport) ([]Refusal, error) {
	var refused []Refusal
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		err := t.exec(ctx, `
			insert into workers (id, host, version, registered_at_ms, seen_at_ms) values ($1, $2, $3, $4, $4)
			on conflict (id) do update set host = excluded.host, version = excluded.version, seen_at_ms = excluded.seen_at_ms`,
			workerID, host, version, t.now)
		if err != nil {
			return err
		}
		if w := t.b.workers[workerID]; w != nil {
			w.host, w.seen, w.saved = host, t.now, t.now
		} else {
			t.b.workers[workerID] = &workerState{id: workerID, host: host, seen: t.now, saved: t.now}
		}
		refused, err = t.claimDevices(ctx, workerID, host, devices)
		return err
	})
	return refused, err
}

// Heartbeat keeps a worker, its devices and its leases alive. CodeNotFound: the worker is not known (any
// more) and registers again.
func (s *Store) Heartbeat(ctx context.Context, workerID string, devices []DeviceReport, leases []Lease) (HeartbeatAnswer, error) {
	var answer HeartbeatAnswer
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		answer = HeartbeatAnswer{}
		w := t.b.workers[workerID]
		if w == nil {
			return noWorker(workerID)
		}
		w.seen = t.now
		t.workers[w] = struct{}{}
		var err error
		if answer.Refused, err = t.claimDevices(ctx, workerID, w.host, devices); err != nil {
			return err
		}
		for _, l := range leases {
			t.renew(l, workerID)
			if a := t.b.open[l.AttemptID]; a == nil || a.token != l.Token || a.worker != workerID {
				answer.Lost = append(answer.Lost, l.AttemptID)
			}
		}
		for _, a := range t.b.ofWorker[workerID] {
			if a.job.State == qgjob.Canceling {
				answer.Cancel = append(answer.Cancel, a.id)
			}
		}
		return nil
	})
	return answer, err
}

var (
	upsertDevices = newBulk("tttttttttttttiiiiiitit", `
		insert into devices (id, worker_id, host, serial, kind, platform, model, os_version, state, message,
			installed_org_id, installed_app_version_id, installed_build_sha256, waiting_until_ms, seen_at_ms,
			screen_width, screen_height, battery_percent, free_storage, tags, minute_price, abis)
		{values}
		on conflict (id) do update
		set worker_id = excluded.worker_id, host = excluded.host, serial = excluded.serial, kind = excluded.kind, platform = excluded.platform,
			model = excluded.model, os_version = excluded.os_version, state = excluded.state, message = excluded.message,
			installed_org_id = excluded.installed_org_id, installed_app_version_id = excluded.installed_app_version_id,
			installed_build_sha256 = excluded.installed_build_sha256, seen_at_ms = excluded.seen_at_ms,
			screen_width = excluded.screen_width, screen_height = excluded.screen_height,
			battery_percent = excluded.battery_percent, free_storage = excluded.free_storage, tags = excluded.tags, minute_price = excluded.minute_price, abis = excluded.abis,
			waiting_until_ms = case when devices.worker_id = excluded.worker_id then devices.waiting_until_ms else 0 end`)
	dropDevices = newBulk("t", `update devices set worker_id = '', waiting_until_ms = 0 {from} where id = {1}`)
)

// claimDevices makes the reported devices the worker's, and lets go those that it reports no more. A device
// of another worker whose lease has not run out is refused.
func (t *tx) claimDevices(ctx context.Context, workerID, host string, devices []DeviceReport) ([]Refusal, error) {
	var refused []Refusal
	held := map[string]bool{} // by another live worker
	for _, report := range devices {
		d := t.b.devices[report.ID]
		if d == nil || d.worker == "" || d.worker == workerID {
			continue
		}
		if owner := t.b.workers[d.worker]; owner.seen+t.w.lease.Milliseconds() > t.now {
			held[d.id] = true
			refused = append(refused, Refusal{DeviceID: d.id, Message: fmt.Sprintf(
				"device %s belongs to worker %.8s… on %s: stop that worker, or leave the device to it", d.id, owner.id, owner.host)}) // who knows its id speaks for it
		}
	}
	mine := map[string]bool{}
	var rows [][]any
	for _, d := range devices {
		if held[d.ID] || mine[d.ID] {
			continue
		}
		mine[d.ID] = true
		var app qgjob.App
		if d.Installed != nil {
			app = *d.Installed
		} else if known := t.b.devices[d.ID]; known != nil && d.Kind == qgjob.TargetBrowserStack {
			app = known.app // a cloud does not tell what was uploaded: the ledger does
		}
		rows = append(rows, []any{
			d.ID, workerID, host, d.Serial, d.Kind, d.Platform, d.Model, d.OSVersion, d.State, d.Message,
			app.OrgID, app.AppVersionID, app.BuildSHA256, 0, t.now,
			d.ScreenWidth, d.ScreenHeight, d.BatteryPercent, d.FreeStorage, strings.Join(d.Tags, ","), int64(amount(d.MinutePrice)), d.ABIs,
		})
		t.b.claim(d, app, workerID)
	}
	t.b.known = nil
	if err := t.writeNow(ctx, upsertDevices, rows); err != nil {
		return nil, err
	}
	var gone [][]any
	for id, d := range t.b.devices {
		if d.worker == workerID && !mine[id] {
			gone = append(gone, []any{id})
			t.b.release(d)
		}
	}
	return refused, t.writeNow(ctx, dropDevices, gone)
}

// claim makes a device a worker's as it reports it.
func (b *board) claim(report DeviceReport, app qgjob.App, workerID string) {
	d := b.devices[report.ID]
	if d == nil {
		d = &deviceState{id: report.ID}
		b.devices[d.id] = d
	}
	if d.worker != workerID {
		d.worker, d.waitingUntil = workerID, 0
	}
	d.kind, d.state, d.app = report.Kind, report.State, app
	d.platform, d.model, d.osVersion, d.abis, d.tags = report.Platform, report.Model, report.OSVersion, report.ABIs, strings.Join(report.Tags, ",")
	d.minutePrice = amount(report.MinutePrice)
}

// release takes a device out of the fleet.
func (b *board) release(d *deviceState) {
	d.worker, d.waitingUntil = "", 0
	if d.attempt == nil {
		delete(b.devices, d.id)
	}
}

// Leave ends a worker: its open leases go back without cost, its devices leave. Leaving twice is no error.
func (s *Store) Leave(ctx context.Context, workerID string) error {
	return s.write(ctx, func(ctx context.Context, t *tx) error {
		open := t.b.attempts(func(a *attempt) bool { return a.worker == workerID })
		back := qgjob.Result{Outcome: qgjob.OutcomeCanceled, Cause: qgjob.CauseHandedBack, Message: "its worker stopped"}
		if err := t.endAll(ctx, open, func(*attempt) qgjob.Result { return back }); err != nil {
			return err
		}
		return t.forget(ctx, []string{workerID})
	})
}

// endAll ends attempts on the server's own account.
func (t *tx) endAll(ctx context.Context, attempts []*attempt, as func(*attempt) qgjob.Result) error {
	if err := t.flush(ctx); err != nil { // of an attempt that this transaction made the start comes first
		return err
	}
	for _, a := range attempts {
		if err := t.end(ctx, a, as(a), ""); err != nil {
			return fmt.Errorf("end attempt %s of job %s: %w", a.id, a.job.ID, err)
		}
	}
	return nil
}

// forget takes workers and their devices out of the fleet. When any worker was last heard of stays known.
func (t *tx) forget(ctx context.Context, workerIDs []string) error {
	for _, id := range workerIDs {
		w := t.b.workers[id]
		if w == nil {
			continue
		}
		delete(t.workers, w)
		delete(t.b.workers, id)
		var released [][]any
		for _, d := range t.b.devices {
			if d.worker == id {
				released = append(released, []any{d.id})
				t.b.release(d)
			}
		}
		if err := t.writeNow(ctx, dropDevices, released); err != nil {
			return err
		}
		if err := t.exec(ctx, `delete from workers where id = $1`, id); err != nil {
			return err
		}
		err := t.exec(ctx, `
			insert into counters (org_id, name, value) values ('', $1, $2)
			on conflict (org_id, name) do update
			set value = case when counters.value > excluded.value then counters.value else excluded.value end`, workerSeen, w.seen)
		if err != nil {
			return err
		}
		t.publish(TopicWorker(id))
	}
	return nil
}
