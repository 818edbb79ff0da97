package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

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
		var host string
		err := t.row(ctx, `update workers set seen_at_ms = $2 where id = $1 returning host`, workerID, t.now).Scan(&host)
		if errors.Is(err, sql.ErrNoRows) {
			return noWorker(workerID)
		}
		if err != nil {
			return err
		}
		if answer.Refused, err = t.claimDevices(ctx, workerID, host, devices); err != nil {
			return err
		}
		rows := make([][]any, len(leases))
		for i, l := range leases {
			rows[i] = []any{l.AttemptID, l.Token, workerID, t.expiry()}
		}
		if err := t.execAll(ctx, renewLeases, rows); err != nil {
			return err
		}
		var open []Lease
		err = t.queryAll(ctx, selectOpen, [][]any{{workerID}}, func(row scanner) error {
			o, err := scanOpen(row)
			open = append(open, o.Lease)
			if o.Job.State == qgjob.Canceling {
				answer.Cancel = append(answer.Cancel, o.AttemptID)
			}
			return err
		})
		for _, l := range leases {
			if !slices.Contains(open, l) {
				answer.Lost = append(answer.Lost, l.AttemptID)
			}
		}
		return err
	})
	return answer, err
}

var (
	selectOwners = newBulk("t", `
		select d.id, d.worker_id, w.host, w.seen_at_ms {from,} devices d, workers w
		where d.id = {1} and d.worker_id <> '' and w.id = d.worker_id`)
	upsertDevices = newBulk("tttttttttttttii", `
		insert into devices (id, worker_id, host, serial, kind, platform, model, os_version, state, message,
			installed_org_id, installed_app_version_id, installed_build_sha256, waiting_until_ms, seen_at_ms)
		{values}
		on conflict (id) do update
		set worker_id = excluded.worker_id, host = excluded.host, serial = excluded.serial, kind = excluded.kind, platform = excluded.platform,
			model = excluded.model, os_version = excluded.os_version, state = excluded.state, message = excluded.message,
			installed_org_id = excluded.installed_org_id, installed_app_version_id = excluded.installed_app_version_id,
			installed_build_sha256 = excluded.installed_build_sha256, seen_at_ms = excluded.seen_at_ms,
			waiting_until_ms = case when devices.worker_id = excluded.worker_id then devices.waiting_until_ms else 0 end`)
	dropDevices = newBulk("t", `update devices set worker_id = '', waiting_until_ms = 0 {from} where id = {1}`)
)

// claimDevices makes the reported devices the worker's, and lets go those that it reports no more. A device
// of another worker whose lease has not run out is refused.
func (t *tx) claimDevices(ctx context.Context, workerID, host string, devices []DeviceReport) ([]Refusal, error) {
	var refused []Refusal
	ids := make([][]any, len(devices))
	for i, d := range devices {
		ids[i] = []any{d.ID}
	}
	held := map[string]bool{} // by another live worker
	err := t.queryAll(ctx, selectOwners, ids, func(row scanner) error {
		var id, owner, ownerHost string
		var seen int64
		if err := row.Scan(&id, &owner, &ownerHost, &seen); err != nil {
			return err
		}
		if owner != workerID && seen+t.w.lease.Milliseconds() > t.now {
			held[id] = true
			refused = append(refused, Refusal{DeviceID: id, Message: fmt.Sprintf(
				"device %s belongs to worker %s on %s: stop that worker, or leave the device to it", id, owner, ownerHost)})
		}
		return nil
	})
	if err != nil {
		return nil, err
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
		}
		rows = append(rows, []any{
			d.ID, workerID, host, d.Serial, d.Kind, d.Platform, d.Model, d.OSVersion, d.State, d.Message,
			app.OrgID, app.AppVersionID, app.BuildSHA256, 0, t.now,
		})
	}
	if err := t.execAll(ctx, upsertDevices, rows); err != nil {
		return nil, err
	}
	var gone [][]any
	err = t.query(ctx, func(row scanner) error {
		var id string
		err := row.Scan(&id)
		if !mine[id] {
			gone = append(gone, []any{id})
		}
		return err
	}, `select id from devices where worker_id = $1 and worker_id <> ''`, workerID)
	if err != nil {
		return nil, err
	}
	return refused, t.execAll(ctx, dropDevices, gone)
}

// Leave ends a worker: its open leases go back without cost, its devices leave. Leaving twice is no error.
func (s *Store) Leave(ctx context.Context, workerID string) error {
	return s.write(ctx, func(ctx context.Context, t *tx) error {
		var open []*attempt
		err := t.query(ctx, collectAttempts(&open), `select `+attemptColumns+` from attempts a where a.worker_id = $1 and a.outcome = ''`, workerID)
		if err != nil {
			return err
		}
		back := qgjob.Result{Outcome: qgjob.OutcomeCanceled, Cause: qgjob.CauseHandedBack, Message: "its worker stopped"}
		if err := t.endAll(ctx, open, func(*attempt) qgjob.Result { return back }); err != nil {
			return err
		}
		return t.forget(ctx, []string{workerID})
	})
}

func collectAttempts(to *[]*attempt) func(scanner) error {
	return func(row scanner) error {
		a, err := scanAttempt(row)
		*to = append(*to, a)
		return err
	}
}

// endAll ends attempts on the server's own account.
func (t *tx) endAll(ctx context.Context, attempts []*attempt, as func(*attempt) qgjob.Result) error {
	seqs := make([]int64, len(attempts))
	for i, a := range attempts {
		seqs[i] = a.jobSeq
	}
	jobs, err := t.load(ctx, seqs)
	if err != nil {
		return err
	}
	for _, a := range attempts {
		if err := t.end(a, jobs[a.jobSeq], as(a), ""); err != nil {
			return fmt.Errorf("end attempt %s of job %s: %w", a.id, jobs[a.jobSeq].ID, err)
		}
	}
	return nil
}

// forget takes workers and their devices out of the fleet. When any worker was last heard of stays known.
func (t *tx) forget(ctx context.Context, workerIDs []string) error {
	for _, id := range workerIDs {
		if err := t.exec(ctx, `
			insert into counters (org_id, name, value) select '', $2, seen_at_ms from workers where id = $1
			on conflict (org_id, name) do update
			set value = case when counters.value > excluded.value then counters.value else excluded.value end`, id, workerSeen); err != nil {
			return err
		}
		for _, text := range []string{
			`update devices set worker_id = '', waiting_until_ms = 0 where worker_id = $1 and worker_id <> ''`,
			`delete from workers where id = $1`,
		} {
			if err := t.exec(ctx, text, id); err != nil {
				return err
			}
		}
		t.publish(TopicWorker(id))
	}
	return nil
}
