package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"qgjob"
	"qgjob/internal/sched"
)

// tx is one write transaction: the board as it changes, and what is to be written of that. Nothing is written
// before the commit, unless something has to be read that it would change.
type tx struct {
	w   *writer
	s   session
	b   *board
	now int64 // the database's clock when the transaction began, in milliseconds

	keys        map[orgKey]*knownKey       // of its submits
	keysSkipped bool                       // not those that were used before
	failed      map[branch]map[string]bool // specs of their branches that failed last

	newJobs  []*job
	changed  map[int64]*job  // jobs that moved, but for new ones
	enqueued map[int64]int64 // lanes by job
	dequeued map[int64]int64
	started  []*attempt
	lanes    map[*laneState]struct{} // whose counts changed
	headless map[*laneState]struct{} // of them, those whose oldest job is to be read
	workers  map[*workerState]struct{}
	devices  map[*deviceState]struct{}
	attempts map[*attempt]struct{} // open ones whose lease or log moved on
	runs     [][]any
	used     [][]any // uploads that are named
	unkeyed  [][]any // runs that lose their idempotency key to a newer one
	ends     [][]any // of attempts
	cancels  [][]any
	facts    [][]any // of new runs
	counters map[counter]int64

	environments [][]any // of new runs

	estimates map[estimateKey]struct{} // that changed
	orgs      map[*orgState]struct{}
	streaks   map[sched.Group]struct{}
	overflows map[*overflowState]struct{}

	topics map[string]struct{}
	mail   []delivery // for polls of transactions before

	failedIn    map[string]struct{} // ids of runs of which a job failed or errored
	superseding []superseding       // new runs that end older ones

	planning  bool                          // what comes up is planned in this transaction
	unplanned bool                          // something was queued or a device waits since the last plan
	idle      bool                          // the last plan found nothing queued or no device that waits
	given     int                           // attempts made
	polling   map[string]*pollingWorker     // those of the poll step, while it plans
	waiting   map[waitingDevice][]*pollCall // and the polls that it answers with what the plan gives their devices
}

func newTx(w *writer, planning bool) *tx {
	return &tx{
		w: w, s: w.session, planning: planning,
		changed: map[int64]*job{}, enqueued: map[int64]int64{}, dequeued: map[int64]int64{},
		lanes: map[*laneState]struct{}{}, headless: map[*laneState]struct{}{}, workers: map[*workerState]struct{}{},
		devices: map[*deviceState]struct{}{}, attempts: map[*attempt]struct{}{},
		estimates: map[estimateKey]struct{}{}, orgs: map[*orgState]struct{}{}, streaks: map[sched.Group]struct{}{},
		overflows: map[*overflowState]struct{}{},
		failed:    map[branch]map[string]bool{}, counters: map[counter]int64{}, topics: map[string]struct{}{}, failedIn: map[string]struct{}{},
	}
}

// counter names a count of an organization; an empty org is for what belongs to none.
type counter struct{ org, name string }

// lane is the key of a lane.
type lane struct {
	org, appVersion string
	target          qgjob.Target
	requires        string
	priority        int
	prefer, avoid   string
	runSeq          int64 // of those of a run that may overflow; 0 for all others
}

// exec runs a statement at once, after what the transaction has to write before it.
func (t *tx) exec(ctx context.Context, text string, args ...any) error {
	if err := t.flush(ctx); err != nil {
		return err
	}
	return t.s.exec(ctx, text, values(args)...)
}

// writeNow runs a bulk statement at once, after what the transaction has to write before it.
func (t *tx) writeNow(ctx context.Context, b *bulk, rows [][]any) error {
	if len(rows) == 0 {
		return nil
	}
	return t.s.write(ctx, append(t.collected(), statement{b, rows}))
}

// query reads; what the transaction has changed and not written is not seen.
func (t *tx) query(ctx context.Context, scan func(scanner) error, text string, args ...any) error {
	return t.s.query(ctx, scan, text, values(args)...)
}

// row reads one row; sql.ErrNoRows when there is none.
func (t *tx) row(ctx context.Context, scan func(scanner) error, text string, args ...any) error {
	found := false
	err := t.query(ctx, func(row scanner) error {
		found = true
		return scan(row)
	}, text, args...)
	if err == nil && !found {
		err = sql.ErrNoRows
	}
	return err
}

// queryAll runs a bulk select over rows.
func (t *tx) queryAll(ctx context.Context, b *bulk, rows [][]any, scan func(scanner) error) error {
	return queryBulk(ctx, t.s, read{b: b, rows: rows, scan: scan})
}

func (t *tx) count(org, name string, n int64) { t.counters[counter{org, name}] += n }

func (t *tx) publish(topic string) { t.topics[topic] = struct{}{} }

// unplan notes that something was queued or a device waits.
func (t *tx) unplan() {
	t.unplanned = true
	t.publish(TopicQueue)
}

func (t *tx) topicList() []string { return slices.Sorted(maps.Keys(t.topics)) }

// enqueue puts a job into its lane.
func (t *tx) enqueue(j *job) {
	l := t.b.lanes[t.b.lane(j)]
	submitted := j.SubmittedAt.UnixMilli()
	if l == nil {
		l = t.b.newLane(t.b.lane(j), j.seq, submitted)
	} else if j.seq < l.oldest {
		t.b.age(l, j.seq, submitted)
	}
	l.queued++
	l.workMS += j.expectedMS
	t.b.head(l, j)
	t.lanes[l] = struct{}{}
	t.enqueued[j.seq] = l.id
	t.unplan()
}

// dequeue takes a job out of its lane.
func (t *tx) dequeue(j *job) error {
	l := t.b.lanes[t.b.lane(j)]
	if l == nil {
		return fmt.Errorf("job %s is queued, but its lane %v is empty", j.ID, t.b.lane(j))
	}
	t.b.unhead(l, j.seq)
	l.queued--
	l.workMS -= j.expectedMS
	t.lanes[l] = struct{}{}
	if _, fresh := t.enqueued[j.seq]; fresh {
		delete(t.enqueued, j.seq)
	} else {
		t.dequeued[j.seq] = l.id
	}
	switch {
	case l.queued == 0:
		t.b.dropLane(l)
		delete(t.headless, l)
	case j.seq != l.oldest:
	case len(l.heads) > 0:
		t.b.age(l, l.heads[0].seq, l.heads[0].SubmittedAt.UnixMilli())
	default:
		t.headless[l] = struct{}{}
	}
	return nil
}

// The first jobs of lanes after a sequence. A limit keeps the planner from looking for them elsewhere than in the queue's own order.
var selectHeads = newBulk("iii", `
	select q.lane_id, `+jobColumns+`
	{from,} {lateral} (select lane_id, job_seq from queue where lane_id = {1} and job_seq > {2} order by job_seq limit {3}) as q, jobs j, runs r
	where j.seq = q.job_seq and r.seq = j.run_seq`)

// fill reads on in lanes, until each has so many of its first jobs or all of them.
func (t *tx) fill(ctx context.Context, lanes map[*laneState]int) error {
	var rows [][]any
	byID := map[int64]*laneState{}
	ahead := min(headsOfLane, headsOfBoard/max(1, len(lanes)))
	for l, n := range lanes {
		if l.whole || len(l.heads) >= n {
			continue
		}
		byID[l.id] = l
		rows = append(rows, []any{l.id, l.after, max(n, ahead) - len(l.heads)})
	}
	if len(rows) == 0 {
		return nil
	}
	if err := t.flush(ctx); err != nil { // what it takes out of the lanes is not to be found
		return err
	}
	found := map[*laneState]int{}
	err := t.queryAll(ctx, selectHeads, rows, func(row scanner) error {
		var id int64
		j, err := scanJob(row, &id)
		if err != nil {
			return err
		}
		l := byID[id]
		l.heads = append(l.heads, j)
		t.b.heads++
		found[l]++
		return nil
	})
	if err != nil {
		return err
	}
	for _, row := range rows {
		l := byID[row[0].(int64)]
		l.whole = found[l] < row[2].(int)
		slices.SortFunc(l.heads, func(a, b *job) int { return cmp.Compare(a.seq, b.seq) })
		if n := len(l.heads); n > 0 {
			l.after = l.heads[n-1].seq
		}
	}
	return nil
}

// ageHeadless finds the oldest job of the lanes that lost theirs.
func (t *tx) ageHeadless(ctx context.Context) error {
	if len(t.headless) == 0 {
		return nil
	}
	lanes := map[*laneState]int{}
	for l := range t.headless {
		lanes[l] = 1
	}
	clear(t.headless)
	if err := t.fill(ctx, lanes); err != nil {
		return err
	}
	for l := range lanes {
		if len(l.heads) == 0 {
			return fmt.Errorf("lane %v counts %d queued jobs, but none is there", l.lane, l.queued)
		}
		t.b.age(l, l.heads[0].seq, l.heads[0].SubmittedAt.UnixMilli())
		t.lanes[l] = struct{}{}
	}
	return nil
}

var (
	insertRuns = newBulk("ittttttttttiibt", `
		insert into runs (seq, id, org_id, app_version_id, previous_id, idempotency_key, body_hash,
			bundle_sha256, build_sha256, project, config_path, jobs, submitted_at_ms, environment, video)
		{values}`)
	unkeyRuns  = newBulk("i", `update runs set idempotency_key = '' {from} where seq = {1}`)
	insertJobs = newBulk("ititttittttbiiittiiittit", `
		insert into jobs (seq, id, run_seq, org_id, app_version_id, target, priority, test_path,
			state, cause, message, flaky, attempts, test_failures, infra_errors, prefer_device, avoid_device, events, started_at_ms, ended_at_ms, shard, requires, expected_ms, first_attempt)
		{values}`)
	updateJobs = newBulk("itttbiiittiiiit", `
		update jobs set state = {2}, cause = {3}, message = {4}, flaky = {5}, attempts = {6}, test_failures = {7}, infra_errors = {8},
			prefer_device = {9}, avoid_device = {10}, events = {11}, started_at_ms = {12}, ended_at_ms = {13}, quarantined = {14}, first_attempt = {15}
		{from} where seq = {1}`)
	insertQueued   = newBulk("ii", `insert into queue (lane_id, job_seq) {values}`)
	deleteQueued   = newBulk("ii", `delete from queue {using} where lane_id = {1} and job_seq = {2}`)
	insertAttempts = newBulk("tiittttttiii", `
		insert into attempts (id, job_seq, number, org_id, worker_id, device_id, token, reason, why, assigned_at_ms, expires_at_ms, assigned_event)
		{values}`)
	saveAttempts = newBulk("tbbii", `
		update attempts set acknowledged = {2}, cancel_told = {3}, expires_at_ms = {4}, log_received = {5} {from} where id = {1}`)
	endAttempts = newBulk("tttttttiii", `
		update attempts set outcome = {2}, cause = {3}, message = {4}, report = {5}, result_hash = {6}, trigger = {7}, retry = {8}, ended_at_ms = {9}, ended_event = {10}
		{from} where id = {1}`)
	insertCancels = newBulk("iiitti", `insert into cancels (job_seq, event, attempt, device_id, cause, at_ms) {values}`)
	addCounters   = newBulk("tti", `
		insert into counters (org_id, name, value)
		{values}
		on conflict (org_id, name) do update set value = counters.value + excluded.value`)
	saveLanes = newBulk("ittttittiiiii", `
		insert into lanes (id, org_id, app_version_id, target, requires, priority, prefer_device, avoid_device, run_seq, queued, oldest_seq, oldest_at_ms, work_ms)
		{values}
		on conflict (id) do update set queued = excluded.queued, oldest_seq = excluded.oldest_seq, oldest_at_ms = excluded.oldest_at_ms, work_ms = excluded.work_ms`)
	saveWorkers = newBulk("tiii", `update workers set poll_seq = {2}, waiting_seq = {3}, seen_at_ms = {4} {from} where id = {1}`)
	saveDevices = newBulk("tiitttiit", `
		update devices set installs = installs + {2}, installs_saved = installs_saved + {3},
			installed_org_id = {4}, installed_app_version_id = {5}, installed_build_sha256 = {6}, waiting_until_ms = {7}, waiting_seq = {8}, attempt_id = {9}
		{from} where id = {1}`)
)

// flush writes what has been collected.
func (t *tx) flush(ctx context.Context) error {
	statements := t.collected()
	if len(statements) == 0 {
		return nil
	}
	return t.s.write(ctx, statements)
}

// collected takes what is to be written, in the order in which that is possible.
func (t *tx) collected() []statement {
	var statements []statement
	add := func(b *bulk, rows [][]any) {
		if len(rows) > 0 {
			statements = append(statements, statement{b, rows})
		}
	}
	add(useUploads, t.used)
	add(unkeyRuns, t.unkeyed)
	add(insertRuns, t.runs)
	add(insertFacts, t.facts)
	add(insertEnvironments, t.environments)
	add(insertJobs, rowsOf(t.newJobs, func(j *job) []any {
		j.fresh = false
		return j.row()
	}))
	add(updateJobs, rowsOf(inOrder(t.changed), (*job).mutable))
	add(deleteQueued, queueRows(t.dequeued))
	add(insertQueued, queueRows(t.enqueued))
	add(endAttempts, t.ends)
	add(insertAttempts, rowsOf(t.started, func(a *attempt) []any {
		return []any{a.id, a.jobSeq, a.number, a.org, a.worker, a.device, a.token, a.reason, a.why, a.assigned, a.expires, a.assignedEvent}
	}))
	add(saveAttempts, rowsOfSet(t.attempts, func(a *attempt) []any {
		a.saved = a.expires
		return []any{a.id, a.acknowledged, a.cancelTold, a.expires, a.logReceived}
	}))
	add(insertCancels, t.cancels)
	add(saveLanes, rowsOfSet(t.lanes, func(l *laneState) []any {
		return []any{l.id, l.org, l.appVersion, l.target, l.requires, l.priority, l.prefer, l.avoid, l.runSeq, l.queued, l.oldest, l.oldestAt, l.workMS}
	}))
	add(saveDevices, rowsOfSet(t.devices, func(d *deviceState) []any {
		row := []any{d.id, d.installs, d.saved, d.app.OrgID, d.app.AppVersionID, d.app.BuildSHA256, d.waitingUntil, d.waitingSeq, ""}
		if d.attempt != nil {
			row[len(row)-1] = d.attempt.id
		}
		d.installs, d.saved = 0, 0
		return row
	}))
	add(saveWorkers, rowsOfSet(t.workers, func(w *workerState) []any {
		w.saved = w.seen
		return []any{w.id, w.pollSeq, w.waitingSeq, w.seen}
	}))
	var counts [][]any
	for c, n := range t.counters {
		if n != 0 {
			counts = append(counts, []any{c.org, c.name, n})
		}
	}
	add(addCounters, counts)
	statements = append(statements, t.learned()...)
	t.used, t.unkeyed, t.runs, t.newJobs, t.ends, t.started, t.cancels = nil, nil, nil, nil, nil, nil, nil
	t.facts, t.environments = nil, nil
	clear(t.changed)
	clear(t.enqueued)
	clear(t.dequeued)
	clear(t.attempts)
	clear(t.lanes)
	clear(t.devices)
	clear(t.workers)
	clear(t.counters)
	return statements
}

func rowsOf[T any](of []T, row func(T) []any) [][]any {
	rows := make([][]any, len(of))
	for i, v := range of {
		rows[i] = row(v)
	}
	return rows
}

func rowsOfSet[T comparable](of map[T]struct{}, row func(T) []any) [][]any {
	rows := make([][]any, 0, len(of))
	for v := range of {
		rows = append(rows, row(v))
	}
	return rows
}

// inOrder lists jobs by sequence: rows that lie together are written together.
func inOrder(jobs map[int64]*job) []*job {
	list := make([]*job, 0, len(jobs))
	for _, seq := range slices.Sorted(maps.Keys(jobs)) {
		list = append(list, jobs[seq])
	}
	return list
}

func queueRows(lanes map[int64]int64) [][]any {
	rows := make([][]any, 0, len(lanes))
	for _, seq := range slices.Sorted(maps.Keys(lanes)) {
		rows = append(rows, []any{lanes[seq], seq})
	}
	return rows
}

// newID makes a UUID of version 7: ids that are made together lie together in the database's indexes.
func (t *tx) newID() string {
	var id uuid.UUID
	rand.Read(id[6:])
	for i := range 6 {
		id[i] = byte(t.now >> (40 - 8*i))
	}
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id.String()
}

// newToken makes the fencing token of an attempt: its number and 128 random bits.
func newToken(number int) string {
	var b [16]byte
	rand.Read(b[:])
	return fmt.Sprintf("%d.%s", number, hex.EncodeToString(b[:]))
}

func at(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

func atOrNil(ms int64) *time.Time {
	if ms == 0 {
		return nil
	}
	when := at(ms)
	return &when
}

func millis(when *time.Time) int64 {
	if when == nil {
		return 0
	}
	return when.UnixMilli()
}
