package store

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"

	"qgjob"
	"qgjob/internal/sched"
)

// laneLimit bounds how many lanes of each target a plan sees, the most urgent ones: a decision costs the
// same whatever waits behind them.
const laneLimit = 256

// dispatches runs after everything else of its batch, once for all who asked.
var dispatches = &step{order: dispatchStep, run: func(ctx context.Context, t *tx, _ []*call) error { return t.dispatch(ctx) }}

// Dispatch plans all waiting devices together and gives them jobs. Transactions that queue a job or let a
// device wait do so themselves; Dispatch is for what only time or a change of the fleet makes possible, and
// for what could not be planned. It touches the database unless this server knows that nothing waits. It
// returns how many attempts this store has made since the call before, whichever transaction made them.
func (s *Store) Dispatch(ctx context.Context) (int, error) {
	if !s.wakes.idle.Load() {
		if err := s.writer.do(ctx, dispatches, nil, 1); err != nil {
			return 0, err
		}
	}
	return int(s.writer.given.Swap(0)), nil
}

// plan dispatches when the transaction has something to plan, and writes what that gives.
func (t *tx) plan(ctx context.Context) error {
	if !t.unplanned || !t.planning {
		return nil
	}
	err := t.dispatch(ctx)
	if err == nil {
		err = t.flush(ctx)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errPlan, err)
	}
	return nil
}

// waitingDevice is a device that a worker lets wait.
type waitingDevice struct{ worker, id string }

// fleetDevice is a live device with its worker.
type fleetDevice struct {
	sched.Device
	worker string
	marked bool // in the database, as waiting
}

func (t *tx) dispatch(ctx context.Context) error {
	t.unplanned = false
	marks, err := t.look(ctx)
	if err != nil || t.idle {
		return err
	}
	fleet, err := t.fleet(ctx)
	if err != nil {
		return err
	}
	var free []fleetDevice
	for _, d := range fleet {
		if d.Free {
			free = append(free, d)
		}
	}
	if len(free) == 0 {
		return nil
	}
	lanes, err := t.urgentLanes(ctx, free)
	if err != nil || len(lanes) == 0 {
		return err
	}
	snapshot := sched.Snapshot{Lanes: lanes}
	devices := map[string]fleetDevice{}
	for _, d := range fleet {
		snapshot.Devices = append(snapshot.Devices, d.Device)
		devices[d.ID] = d
	}
	plan := sched.Plan(snapshot, at(t.now))
	jobs, err := t.claim(ctx, lanes, plan)
	if err != nil {
		return err
	}
	var marked [][]any
	for i, a := range plan {
		d := devices[a.DeviceID]
		if err := t.assign(jobs[i], a, d.worker); err != nil {
			return err
		}
		if d.marked {
			marked = append(marked, []any{d.ID})
		}
	}
	t.given += len(plan)
	t.idle = len(marked) == marks && t.pollsAnswered()
	return t.execAll(ctx, noWait, marked)
}

var noWait = newBulk("t", `update devices set waiting_until_ms = 0 {from} where id = {1}`)

// look finds out whether there is nothing to plan, and counts the devices that are marked as waiting. A wait
// that is over still counts: its poll ends it soon.
func (t *tx) look(ctx context.Context) (marks int, err error) {
	var queued bool
	err = t.row(ctx, `
		select (select count(*) from devices where worker_id <> '' and waiting_until_ms > 0), exists (select 1 from lanes where queued > 0)`,
	).Scan(&marks, &queued)
	t.idle = !queued || marks == 0 && len(t.waiting) == 0
	return marks, err
}

// pollsAnswered says that no device waits by a poll of this batch.
func (t *tx) pollsAnswered() bool {
	for _, polls := range t.waiting {
		if slices.ContainsFunc(polls, func(p *pollCall) bool { return !p.answered() }) {
			return false
		}
	}
	return true
}

// assign opens an attempt of a job on a device, and answers the poll with it by which the device waits when
// that is of this batch.
func (t *tx) assign(j *job, a sched.Assignment, worker string) error {
	j.Attempts++
	if j.StartedAt == nil {
		now := at(t.now)
		j.StartedAt = &now
	}
	lease := Lease{AttemptID: t.newID(), Token: newToken(j.Attempts)}
	t.attempts = append(t.attempts, []any{
		lease.AttemptID, j.seq, j.Attempts, j.OrgID, worker, a.DeviceID, lease.Token, a.Reason, t.now, t.expiry(),
	})
	t.publish(TopicWorker(worker))
	if err := t.move(j, qgjob.Assign, qgjob.Event{Attempt: j.Attempts, DeviceID: a.DeviceID, Message: a.Reason}); err != nil {
		return err
	}
	for _, p := range t.waiting[waitingDevice{worker, a.DeviceID}] {
		p.answer.Assignments = append(p.answer.Assignments, Assignment{
			Lease: lease, DeviceID: a.DeviceID, Number: j.Attempts, Reason: a.Reason, Job: j.Job,
		})
	}
	return nil
}

// fleet reads the devices of live workers, with what they run. The polls of the batch count as if they were
// written already.
func (t *tx) fleet(ctx context.Context) ([]fleetDevice, error) {
	var fleet []fleetDevice
	lastSeen := t.now - t.w.lease.Milliseconds()
	err := t.query(ctx, func(row scanner) error {
		var d fleetDevice
		var app qgjob.App
		var seen, waitingUntil int64
		var org, version, target sql.NullString
		err := row.Scan(&d.ID, &d.Kind, &d.worker, &seen, &app.OrgID, &app.AppVersionID, &app.BuildSHA256, &waitingUntil, &org, &version, &target)
		polling := t.polling[d.worker]
		if seen <= lastSeen && polling == nil {
			return err
		}
		if app.OrgID != "" {
			d.Installed = &app
		}
		if org.Valid {
			d.Serving = &sched.Group{OrgID: org.String, AppVersionID: version.String, Target: qgjob.Target(target.String)}
		}
		d.marked = waitingUntil > 0
		waits := waitingUntil > t.now
		if polling != nil && polling.polls {
			waits = len(t.waiting[waitingDevice{d.worker, d.ID}]) > 0
		}
		d.Free = waits && d.Serving == nil
		fleet = append(fleet, d)
		return err
	}, `
		select d.id, d.kind, d.worker_id, w.seen_at_ms, d.installed_org_id, d.installed_app_version_id, d.installed_build_sha256, d.waiting_until_ms,
			j.org_id, j.app_version_id, j.target
		from devices d
		join workers w on w.id = d.worker_id
		left join attempts a on a.device_id = d.id and a.outcome = ''
		left join jobs j on j.seq = a.job_seq
		where d.worker_id <> '' and d.state in ('idle', 'busy')`)
	return fleet, err
}

const laneColumns = `l.org_id, l.app_version_id, l.target, l.priority, l.prefer_device, l.avoid_device, l.queued, l.oldest_seq,
	(select r.submitted_at_ms from jobs j, runs r where j.seq = l.oldest_seq and r.seq = j.run_seq)`

var (
	selectPreferring = newBulk("t", `
		select `+laneColumns+` {from,} lanes l where l.prefer_device = {1} and l.prefer_device <> '' and l.queued > 0`)
	selectInstalled = newBulk("tt", `
		select `+laneColumns+` {from,} lanes l where l.org_id = {1} and l.app_version_id = {2} and l.queued > 0`)
)

// urgentLanes reads the lanes that a plan for the free devices needs: the most urgent of each target that they
// serve, those that prefer one of them, and those of the apps that are on them.
func (t *tx) urgentLanes(ctx context.Context, free []fleetDevice) ([]sched.Lane, error) {
	found := map[lane]sched.Lane{}
	add := func(row scanner) error {
		var l sched.Lane
		var oldest int64
		err := row.Scan(&l.OrgID, &l.AppVersionID, &l.Target, &l.Priority, &l.Prefer, &l.Avoid, &l.Queued, &l.OldestSeq, &oldest)
		l.Oldest = at(oldest)
		found[laneKey(l)] = l
		return err
	}
	kinds := map[qgjob.Target]bool{}
	apps := map[qgjob.App]bool{}
	var devices, installed [][]any
	for _, d := range free {
		kinds[d.Kind] = true
		devices = append(devices, []any{d.ID})
		if d.Installed != nil && !apps[*d.Installed] {
			apps[*d.Installed] = true
			installed = append(installed, []any{d.Installed.OrgID, d.Installed.AppVersionID})
		}
	}
	for _, target := range qgjob.Targets {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(kinds)), target.Accepts) {
			continue
		}
		err := t.query(ctx, add, `
			select `+laneColumns+` from lanes l where l.target = $1 and l.queued > 0
			order by l.priority, l.oldest_seq limit $2`, target, laneLimit)
		if err != nil {
			return nil, err
		}
	}
	if err := t.queryAll(ctx, selectPreferring, devices, add); err != nil {
		return nil, err
	}
	if err := t.queryAll(ctx, selectInstalled, installed, add); err != nil {
		return nil, err
	}
	return slices.Collect(maps.Values(found)), nil
}

func laneKey(l sched.Lane) lane {
	return lane{org: l.OrgID, appVersion: l.AppVersionID, target: l.Target, priority: l.Priority, prefer: l.Prefer, avoid: l.Avoid}
}

// claim reads the job of each assignment of a plan: the lanes' oldest, in the plan's order.
func (t *tx) claim(ctx context.Context, lanes []sched.Lane, plan []sched.Assignment) ([]*job, error) {
	takers := map[int][]int{} // of a lane: indexes in plan
	for i, a := range plan {
		takers[a.Lane] = append(takers[a.Lane], i)
	}
	var rows [][]any
	for n, of := range takers {
		row := append([]any{n}, laneKey(lanes[n]).columns()...)
		rows = append(rows, append(row, lanes[n].OldestSeq, len(of)))
	}
	oldest := map[int][]int64{}
	err := t.queryAll(ctx, t.w.d.claim, rows, func(row scanner) error {
		var n int
		var seq int64
		err := row.Scan(&n, &seq)
		oldest[n] = append(oldest[n], seq)
		return err
	})
	if err != nil {
		return nil, err
	}
	seqs := make([]int64, len(plan))
	for n, of := range takers {
		slices.Sort(oldest[n])
		if len(oldest[n]) < len(of) {
			return nil, fmt.Errorf("lane %v counts %d queued jobs, but only %d of the %d planned are there", laneKey(lanes[n]), lanes[n].Queued, len(oldest[n]), len(of))
		}
		for i, taker := range of {
			seqs[taker] = oldest[n][i]
		}
	}
	loaded, err := t.load(ctx, seqs)
	if err != nil {
		return nil, err
	}
	jobs := make([]*job, len(plan))
	for i, seq := range seqs {
		jobs[i] = loaded[seq]
	}
	return jobs, nil
}
