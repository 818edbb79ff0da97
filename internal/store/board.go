package store

import (
	"cmp"
	"context"
	"slices"
	"time"

	"qgjob"
	"qgjob/internal/sched"
)

// A board is the writer's picture of everything that moves: what waits in which lane, who waits for work, and
// what runs where. A transaction decides on it, without asking the database, and writes what it changed.
//
// It is as of the commit that its version names. When another server has committed since, or a transaction
// has failed, it is read anew.
type board struct {
	version int64
	nextJob int64 // sequence of the next job
	nextID  int64 // of the next lane

	lanes    map[lane]*laneState // those with queued jobs
	urgent   map[qgjob.Target][]*laneState
	byApp    map[appVersion]map[*laneState]struct{}
	byPrefer map[string]map[*laneState]struct{} // of lanes that prefer a device
	heads    int                                // jobs in the lanes' heads

	workers map[string]*workerState
	devices map[string]*deviceState // those of known workers, and those that run something
	known   []qgjob.Traits          // of all that any worker ever had; nil when they were not asked for

	open     map[string]*attempt // by id
	ofJob    map[int64]*attempt
	ofWorker map[string][]*attempt

	estimates   map[estimateKey]sched.Estimate
	calibration sched.Calibration
	orgs        map[string]*orgState
	overflows   map[int64]*overflowState // by run
	streaks     map[sched.Group]*streakState
	holds       map[string]holdState // of devices that are to take no work

	builds  map[newestOf]builtFor // newest build, none for the zero value; what is not here was not asked for
	uploads map[uploadKey]int64   // when those were last used, as far as is written, that are stored; others were not asked for
}

// What a board keeps of the queued jobs themselves: the first of each lane, so that a claim asks the database
// once in so many jobs. The rest is in the table alone.
const (
	headsOfLane  = 256
	headsOfBoard = 20_000
	buildsKept   = 10_000
	uploadsKept  = 10_000
)

// nextKnown is how many of a lane's first jobs the planner sees one by one.
const nextKnown = 16

// laneState is a lane with its counts and its first jobs.
type laneState struct {
	lane
	id       int64
	queued   int
	oldest   int64 // lowest seq of its jobs
	oldestAt int64 // when that was submitted, in milliseconds
	workMS   int64 // expected run time of its jobs together
	heads    []*job
	after    int64 // every queued job that is not in heads has a higher seq
	whole    bool  // there is none: heads are all of its jobs
}

func (l *laneState) less(other *laneState) int {
	return cmp.Or(cmp.Compare(l.priority, other.priority), cmp.Compare(l.oldest, other.oldest), cmp.Compare(l.id, other.id))
}

// snapshot is the lane as the planner sees it.
func (l *laneState) snapshot(known int) sched.Lane {
	s := sched.Lane{
		Group:    sched.Group{OrgID: l.org, AppVersionID: l.appVersion, Target: l.target, Requires: l.requires},
		Priority: l.priority, Prefer: l.prefer, Avoid: l.avoid,
		Queued: l.queued, OldestSeq: l.oldest, Oldest: at(l.oldestAt), Work: time.Duration(l.workMS) * time.Millisecond,
	}
	if len(l.heads) > 0 && l.heads[0].seq == l.oldest {
		s.OldestRun = time.Duration(l.heads[0].expectedMS) * time.Millisecond
		for _, j := range l.heads[1:min(len(l.heads), known)] {
			s.Next = append(s.Next, sched.Entry{Seq: j.seq, At: j.SubmittedAt, Run: time.Duration(j.expectedMS) * time.Millisecond})
		}
	}
	return s
}

type workerState struct {
	id, host   string
	pollSeq    int64 // the newest poll's
	waitingSeq int64 // of the poll that waits; 0 when none does
	seen       int64
	saved      int64 // seen as it is in the database
}

type deviceState struct {
	id, worker   string // worker is empty while it is not part of the fleet
	kind         qgjob.Target
	state        qgjob.DeviceState
	platform     string
	model        string
	osVersion    string
	abis         string    // instruction sets, joined by commas
	tags         string    // joined by commas
	app          qgjob.App // installed; its organization is empty when nothing is known
	waitingUntil int64
	waitingSeq   int64 // the poll by which it waits
	minutePrice  money
	attempt      *attempt
	installs     int64 // since the row was read or written
	saved        int64 // installs saved, likewise
}

func newBoard() *board {
	return &board{
		nextJob: 1, nextID: 1,
		lanes: map[lane]*laneState{}, urgent: map[qgjob.Target][]*laneState{},
		byApp: map[appVersion]map[*laneState]struct{}{}, byPrefer: map[string]map[*laneState]struct{}{},
		workers: map[string]*workerState{}, devices: map[string]*deviceState{},
		open: map[string]*attempt{}, ofJob: map[int64]*attempt{}, ofWorker: map[string][]*attempt{},
		estimates: map[estimateKey]sched.Estimate{}, orgs: map[string]*orgState{}, streaks: map[sched.Group]*streakState{},
		overflows: map[int64]*overflowState{}, holds: map[string]holdState{}, builds: map[newestOf]builtFor{}, uploads: map[uploadKey]int64{},
	}
}

// lane is that of a queued job. Those of a run that may overflow are its own.
func (b *board) lane(j *job) lane {
	l := lane{org: j.OrgID, appVersion: j.AppVersionID, target: j.Target, requires: j.Requires, priority: j.Priority, prefer: j.prefer, avoid: j.avoid}
	if b.overflows[j.runSeq] != nil {
		l.runSeq = j.runSeq
	}
	return l
}

// readBoard reads the board from the database.
func readBoard(ctx context.Context, s session) (*board, error) {
	b := newBoard()
	questions := append(b.learned(), []question{
		{`select value + 1 from counters where org_id = '' and name = '` + jobsSubmitted + `'`, func(row scanner) error { return row.Scan(&b.nextJob) }},
		{`select cast(coalesce(max(id), 0) + 1 as bigint) from lanes`, func(row scanner) error { return row.Scan(&b.nextID) }},
		{
			`select id, org_id, app_version_id, target, requires, priority, prefer_device, avoid_device, run_seq, queued, oldest_seq, oldest_at_ms, work_ms from lanes where queued > 0`,
			func(row scanner) error {
				l := &laneState{}
				err := row.Scan(&l.id, &l.org, &l.appVersion, &l.target, &l.requires, &l.priority, &l.prefer, &l.avoid, &l.runSeq, &l.queued, &l.oldest, &l.oldestAt, &l.workMS)
				l.after = l.oldest - 1
				b.addLane(l)
				return err
			},
		},
		{`select id, host, poll_seq, waiting_seq, seen_at_ms from workers`, func(row scanner) error {
			w := &workerState{}
			err := row.Scan(&w.id, &w.host, &w.pollSeq, &w.waitingSeq, &w.seen)
			w.saved = w.seen
			b.workers[w.id] = w
			return err
		}},
		{`
			select id, worker_id, kind, state, platform, model, os_version, abis, tags, installed_org_id, installed_app_version_id, installed_build_sha256, waiting_until_ms, waiting_seq, minute_price
			from devices where worker_id <> '' or attempt_id <> ''`, func(row scanner) error {
			d := &deviceState{}
			err := row.Scan(&d.id, &d.worker, &d.kind, &d.state, &d.platform, &d.model, &d.osVersion, &d.abis, &d.tags, &d.app.OrgID, &d.app.AppVersionID, &d.app.BuildSHA256, &d.waitingUntil, &d.waitingSeq, (*int64)(&d.minutePrice))
			b.devices[d.id] = d
			return err
		}},
		{selectOpen, func(row scanner) error {
			a := &attempt{}
			j, err := scanJob(row, a.columns()...)
			if err == nil {
				a.job, a.saved = j, a.expires
				b.start(a)
			}
			return err
		}},
		{selectLiveOverflows, b.scanOverflow},
		{`select device_id, kind, until_ms from device_holds`, func(row scanner) error {
			var id string
			var h holdState
			err := row.Scan(&id, &h.kind, &h.until)
			b.holds[id] = h
			return err
		}},
	}...)
	if err := s.ask(ctx, questions); err != nil {
		return nil, err
	}
	for _, lanes := range b.urgent {
		slices.SortFunc(lanes, (*laneState).less)
	}
	return b, nil
}

// addLane makes a lane known; urgent is left unsorted.
func (b *board) addLane(l *laneState) {
	b.lanes[l.lane] = l
	b.urgent[l.target] = append(b.urgent[l.target], l)
	app := appVersion{l.org, l.appVersion}
	if b.byApp[app] == nil {
		b.byApp[app] = map[*laneState]struct{}{}
	}
	b.byApp[app][l] = struct{}{}
	if l.prefer != "" {
		if b.byPrefer[l.prefer] == nil {
			b.byPrefer[l.prefer] = map[*laneState]struct{}{}
		}
		b.byPrefer[l.prefer][l] = struct{}{}
	}
}

// newLane makes a lane for its first job.
func (b *board) newLane(key lane, oldest, oldestAt int64) *laneState {
	l := &laneState{lane: key, id: b.nextID, oldest: oldest, oldestAt: oldestAt, whole: true}
	b.nextID++
	b.addLane(l)
	lanes := b.urgent[l.target]
	lanes = lanes[:len(lanes)-1]
	i, _ := slices.BinarySearchFunc(lanes, l, (*laneState).less)
	b.urgent[l.target] = slices.Insert(lanes, i, l)
	return l
}

// age gives a lane another oldest job, and the place that goes with it.
func (b *board) age(l *laneState, oldest, oldestAt int64) {
	lanes := b.urgent[l.target]
	from, _ := slices.BinarySearchFunc(lanes, l, (*laneState).less)
	lanes = slices.Delete(lanes, from, from+1)
	l.oldest, l.oldestAt = oldest, oldestAt
	to, _ := slices.BinarySearchFunc(lanes, l, (*laneState).less)
	b.urgent[l.target] = slices.Insert(lanes, to, l)
}

// dropLane forgets a lane that is empty.
func (b *board) dropLane(l *laneState) {
	delete(b.lanes, l.lane)
	lanes := b.urgent[l.target]
	i, _ := slices.BinarySearchFunc(lanes, l, (*laneState).less)
	b.urgent[l.target] = slices.Delete(lanes, i, i+1)
	app := appVersion{l.org, l.appVersion}
	if delete(b.byApp[app], l); len(b.byApp[app]) == 0 {
		delete(b.byApp, app)
	}
	if l.prefer != "" {
		if delete(b.byPrefer[l.prefer], l); len(b.byPrefer[l.prefer]) == 0 {
			delete(b.byPrefer, l.prefer)
		}
	}
}

// head puts a queued job among its lane's first ones, if that is where it belongs and there is room.
func (b *board) head(l *laneState, j *job) {
	if !l.whole && j.seq > l.after {
		return
	}
	i, _ := slices.BinarySearchFunc(l.heads, j.seq, func(h *job, seq int64) int { return cmp.Compare(h.seq, seq) })
	l.heads = slices.Insert(l.heads, i, j)
	b.heads++
	if n := len(l.heads); n > headsOfLane || b.heads > headsOfBoard {
		l.after, l.whole = l.heads[n-1].seq-1, false
		l.heads = l.heads[:n-1]
		b.heads--
	}
}

// unhead takes a job from among its lane's first ones, where it may not be.
func (b *board) unhead(l *laneState, seq int64) {
	i, found := slices.BinarySearchFunc(l.heads, seq, func(h *job, seq int64) int { return cmp.Compare(h.seq, seq) })
	if found {
		l.heads = slices.Delete(l.heads, i, i+1)
		b.heads--
	}
}

// queuedJob is a queued job among the heads of its lane; nil when it is not there.
func (b *board) queuedJob(l *laneState, seq int64) *job {
	if l == nil {
		return nil
	}
	i, found := slices.BinarySearchFunc(l.heads, seq, func(h *job, seq int64) int { return cmp.Compare(h.seq, seq) })
	if !found {
		return nil
	}
	return l.heads[i]
}

// start makes an attempt known as open.
func (b *board) start(a *attempt) {
	b.open[a.id] = a
	b.ofJob[a.jobSeq] = a
	b.devices[a.device].attempt = a
	b.ofWorker[a.worker] = append(b.ofWorker[a.worker], a)
}

// end forgets an attempt.
func (b *board) end(a *attempt) {
	delete(b.open, a.id)
	delete(b.ofJob, a.jobSeq)
	d := b.devices[a.device]
	if d.attempt = nil; d.worker == "" {
		delete(b.devices, d.id)
	}
	of := slices.DeleteFunc(b.ofWorker[a.worker], func(o *attempt) bool { return o == a })
	if b.ofWorker[a.worker] = of; len(of) == 0 {
		delete(b.ofWorker, a.worker)
	}
}

// marked says whether any device waits, be it by a poll that is over and about to end.
func (b *board) marked() bool {
	for _, d := range b.devices {
		if d.waitingUntil > 0 {
			return true
		}
	}
	return false
}

// attempts are the open ones that a condition selects, those that expire first before the others.
func (b *board) attempts(which func(*attempt) bool) []*attempt {
	var found []*attempt
	for _, a := range b.open {
		if which(a) {
			found = append(found, a)
		}
	}
	slices.SortFunc(found, func(a, b *attempt) int { return cmp.Or(cmp.Compare(a.expires, b.expires), cmp.Compare(a.id, b.id)) })
	return found
}
