package store

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"qgjob"
	"qgjob/internal/sched"
)

// allLanes is up to how many lanes a plan sees all of. Of more it sees laneLimit of each target, the most urgent
// ones, and as many of the oldest, which age may have made as urgent: a decision costs the same whatever waits
// behind them.
const (
	allLanes  = 1024
	laneLimit = 256
)

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

// plan dispatches when the transaction has something to plan.
func (t *tx) plan(ctx context.Context) error {
	if !t.unplanned || !t.planning {
		return nil
	}
	if err := t.dispatch(ctx); err != nil {
		return fmt.Errorf("%w: %w", errPlan, err)
	}
	return nil
}

// waitingDevice is a device that a worker lets wait.
type waitingDevice struct{ worker, id string }

func (t *tx) dispatch(ctx context.Context) error {
	t.unplanned = false
	if err := t.ageHeadless(ctx); err != nil {
		return err
	}
	t.idle = len(t.b.lanes) == 0 || !t.b.marked() && len(t.waiting) == 0
	if t.idle {
		return nil
	}
	snapshot, free := t.fleet()
	if len(free) == 0 {
		return nil
	}
	if err := t.fillOverflowing(ctx, free); err != nil {
		return err
	}
	lanes := t.addLanes(&snapshot, free, nil)
	plan := sched.Plan(snapshot, at(t.now))
	wanted := map[*laneState]int{}
	for _, a := range plan {
		wanted[lanes[a.Lane]]++
	}
	if err := t.fill(ctx, wanted); err != nil {
		return err
	}
	for l, n := range wanted {
		if len(l.heads) < n {
			return fmt.Errorf("lane %v counts %d queued jobs, but only %d of the %d planned are there", l.lane, l.queued, len(l.heads), n)
		}
	}
	for _, a := range plan {
		if err := t.assign(lanes[a.Lane].heads[0], t.b.devices[a.DeviceID], a); err != nil {
			return err
		}
	}
	if err := t.ageHeadless(ctx); err != nil {
		return err
	}
	t.given += len(plan)
	t.idle = len(t.b.lanes) == 0 || !t.b.marked() && t.pollsAnswered()
	return nil
}

// fillOverflowing reads the first jobs of the lanes that may overflow now: what each is expected to cost counts.
func (t *tx) fillOverflowing(ctx context.Context, free []*deviceState) error {
	priced := func(d *deviceState) bool { return d.kind == qgjob.TargetBrowserStack && d.minutePrice > 0 }
	if len(t.b.overflows) == 0 || !slices.ContainsFunc(free, priced) {
		return nil
	}
	wanted := map[*laneState]int{}
	for _, l := range t.b.lanes { // urgentLanes has all of these
		if t.b.overflowing(l) != nil {
			wanted[l] = min(len(free)+1, l.queued, headsOfLane) // own devices take of them first
		}
	}
	return t.fill(ctx, wanted)
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
func (t *tx) assign(j *job, d *deviceState, given sched.Assignment) error {
	j.Attempts++
	if j.StartedAt == nil {
		now := at(t.now)
		j.StartedAt = &now
	}
	a := &attempt{
		id: t.newID(), token: newToken(j.Attempts), org: j.OrgID, worker: d.worker, device: d.id, reason: given.Reason, why: jsonText(given.Why),
		job: j, jobSeq: j.seq, number: j.Attempts, assigned: t.now, expires: t.expiry(), saved: t.expiry(),
	}
	if j.Attempts == 1 {
		j.first = a.id
	}
	if err := t.move(j, qgjob.Assign); err != nil {
		return err
	}
	a.assignedEvent = j.events
	t.b.start(a)
	t.started = append(t.started, a)
	if d.waitingUntil > 0 {
		t.mail = append(t.mail, delivery{d.worker, d.waitingSeq, a.assignment()})
	}
	d.waitingUntil = 0
	t.devices[d] = struct{}{}
	t.publish(TopicWorker(d.worker))
	for _, p := range t.waiting[waitingDevice{d.worker, d.id}] {
		p.answer.Assignments = append(p.answer.Assignments, a.assignment())
	}
	return nil
}

// addLanes gives a snapshot the lanes that a plan for the free devices needs, and one that is asked for, and returns
// them in its order.
func (t *tx) addLanes(s *sched.Snapshot, free []*deviceState, asked *laneState) []*laneState {
	lanes := t.b.urgentLanes(free)
	if asked != nil && !slices.Contains(lanes, asked) {
		lanes = append(lanes, asked)
	}
	for _, l := range lanes {
		known := nextKnown
		if l.runSeq != 0 {
			known = max(known, len(free)+1) // each has its price
		}
		given := l.snapshot(known)
		given.Overflow = t.overflow(l)
		s.Lanes = append(s.Lanes, given)
	}
	return lanes
}

// fleet is the devices of live workers, with what they run, those of them that wait for work, and what else a
// plan goes by but lanes. The polls of the batch count as if their devices waited already.
func (t *tx) fleet() (s sched.Snapshot, free []*deviceState) {
	lastSeen := t.now - t.w.lease.Milliseconds()
	type times struct{ install, reset time.Duration }
	expected := map[qgjob.Target]times{}
	for _, d := range t.b.devices {
		if d.worker == "" {
			continue
		}
		polling := t.polling[d.worker]
		device := sched.Device{Traits: d.traits(), MinutePrice: d.minutePrice.units()}
		switch {
		case polling == nil && t.b.workers[d.worker].seen <= lastSeen:
			device.Unavailable = "without a live worker"
		case d.state != qgjob.DeviceIdle && d.state != qgjob.DeviceBusy:
			device.Unavailable = string(d.state)
		default:
			device.Unavailable = t.b.held(d.id, t.now)
		}
		if _, known := expected[d.kind]; !known {
			expected[d.kind] = times{t.b.expectedInstall(d.kind), t.b.expectedReset(d.kind)}
		}
		device.Install, device.Reset = expected[d.kind].install, expected[d.kind].reset
		if d.app.OrgID != "" {
			device.Installed = &d.app
		}
		waits := d.waitingUntil > t.now
		if polling != nil && polling.polls {
			waits = len(t.waiting[waitingDevice{d.worker, d.id}]) > 0
		}
		if d.attempt != nil {
			g := d.attempt.job.group()
			device.Serving = &g
			device.Until = at(d.attempt.assigned + d.attempt.job.expectedMS + device.Install.Milliseconds()/2)
		} else if waits && device.Unavailable == "" {
			device.Free = true
			free = append(free, d)
		}
		s.Devices = append(s.Devices, device)
	}
	for _, o := range t.b.orgs {
		given := sched.Organization{
			ID: o.id, Weight: float64(o.weightPermille) / 1000, MaxDevices: o.maxDevices, Used: time.Duration(o.used(t.now)) * time.Millisecond,
		}
		if o.maxCost > 0 {
			committed := t.committed(func(a *attempt) bool { return a.org == o.id })
			given.Budget, given.Spent = o.maxCost.units(), (o.costIn(month(t.now)) + committed).units()
		}
		s.Organizations = append(s.Organizations, given)
	}
	for g, k := range t.b.streaks {
		s.Streaks = append(s.Streaks, sched.Streak{Group: g, Devices: len(k.devices), Last: at(k.last)})
	}
	s.Calibration = t.b.calibration
	return s, free
}

// urgentLanes are those that a plan for the free devices needs: all of them, or the most urgent of each target that
// they serve, the oldest, those that prefer one of them, and those of the apps that are on them.
func (b *board) urgentLanes(free []*deviceState) []*laneState {
	var lanes []*laneState
	if len(b.lanes) <= allLanes {
		for _, urgent := range b.urgent {
			lanes = append(lanes, urgent...)
		}
		return lanes
	}
	seen := map[*laneState]struct{}{}
	add := func(l *laneState) {
		if _, known := seen[l]; !known {
			seen[l] = struct{}{}
			lanes = append(lanes, l)
		}
	}
	kinds := map[qgjob.Target]bool{}
	for _, d := range free {
		kinds[d.kind] = true
	}
	overflow := kinds[qgjob.TargetBrowserStack] && len(b.overflows) > 0
	for target, urgent := range b.urgent {
		for kind := range kinds {
			if target.Accepts(kind) || overflow {
				for _, l := range urgent[:min(len(urgent), laneLimit)] {
					add(l)
				}
				break
			}
		}
	}
	if overflow {
		for _, l := range b.lanes {
			if b.overflowing(l) != nil {
				add(l)
			}
		}
	}
	oldest := slices.SortedFunc(maps.Values(b.lanes), func(a, b *laneState) int { return cmp.Compare(a.oldest, b.oldest) })
	for _, l := range oldest[:laneLimit] {
		add(l)
	}
	for _, d := range free {
		for l := range b.byPrefer[d.id] {
			add(l)
		}
		for l := range b.byApp[appVersion{d.app.OrgID, d.app.AppVersionID}] {
			add(l)
		}
	}
	return lanes
}
