package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"qgjob"
)

// tx is one write transaction. It collects what its calls change and writes it set-wise when a step ends.
type tx struct {
	w   *writer
	c   *conn
	now int64 // the database's clock when the transaction began, in milliseconds

	runs     [][]any
	jobs     [][]any        // new ones
	changed  map[int64]*job // jobs that moved
	attempts [][]any        // new ones
	ends     [][]any        // of attempts
	events   [][]any
	installs [][]any // on devices
	keys     [][]any
	counters map[counter]int64
	lanes    map[lane]*laneChange
	topics   map[string]struct{}

	planning  bool                          // what comes up is planned in this transaction
	unplanned bool                          // something was queued or a device waits since the last plan
	idle      bool                          // the last plan found nothing queued or no device that waits
	given     int                           // attempts made
	polling   map[string]*pollingWorker     // those of the poll step, while it plans
	waiting   map[waitingDevice][]*pollCall // and the polls that it answers with what the plan gives their devices
}

func newTx(w *writer, planning bool) *tx {
	return &tx{w: w, c: w.conn, planning: planning, topics: map[string]struct{}{}, changed: map[int64]*job{}, counters: map[counter]int64{}, lanes: map[lane]*laneChange{}}
}

// counter names a count of an organization; an empty org is for what belongs to none.
type counter struct{ org, name string }

// lane is the key of a lane.
type lane struct {
	org, appVersion string
	target          qgjob.Target
	priority        int
	prefer, avoid   string
}

func (l lane) columns() []any {
	return []any{l.org, l.appVersion, l.target, l.priority, l.prefer, l.avoid}
}

type laneChange struct {
	added, removed int
	oldest         int64 // lowest seq of the added
}

// start opens the transaction and reads the clock.
func (t *tx) start(ctx context.Context) error {
	if _, err := t.c.c.ExecContext(ctx, t.w.d.begin); err != nil {
		return err
	}
	if err := t.row(ctx, t.w.d.enter).Scan(&t.now); err != nil {
		return err
	}
	t.now += t.w.shift.Load()
	return nil
}

func (t *tx) exec(ctx context.Context, text string, args ...any) error {
	stmt, err := t.c.prepare(ctx, text)
	if err != nil {
		return err
	}
	if _, err = stmt.ExecContext(ctx, values(args)...); err != nil {
		return fmt.Errorf("%.60q: %w", strings.TrimSpace(text), err)
	}
	return nil
}

// scanner is a row under the cursor: *sql.Row or *sql.Rows.
type scanner interface{ Scan(dest ...any) error }

type failedRow struct{ err error }

func (r failedRow) Scan(...any) error { return r.err }

func (t *tx) row(ctx context.Context, text string, args ...any) scanner {
	stmt, err := t.c.prepare(ctx, text)
	if err != nil {
		return failedRow{err}
	}
	return stmt.QueryRowContext(ctx, values(args)...)
}

func (t *tx) query(ctx context.Context, scan func(scanner) error, text string, args ...any) error {
	stmt, err := t.c.prepare(ctx, text)
	if err != nil {
		return err
	}
	return each(scan)(stmt.QueryContext(ctx, values(args)...))
}

// each scans every row of a query's answer.
func each(scan func(scanner) error) func(*sql.Rows, error) error {
	return func(rows *sql.Rows, err error) error {
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := scan(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	}
}

// execAll runs a bulk statement over rows.
func (t *tx) execAll(ctx context.Context, b *bulk, rows [][]any) error {
	return t.all(b, rows, func(text string, args []any) error {
		stmt, err := t.c.prepare(ctx, text)
		if err == nil {
			_, err = stmt.ExecContext(ctx, args...)
		}
		return err
	})
}

// queryAll runs a bulk select over rows.
func (t *tx) queryAll(ctx context.Context, b *bulk, rows [][]any, scan func(scanner) error) error {
	return t.all(b, rows, func(text string, args []any) error {
		stmt, err := t.c.prepare(ctx, text)
		if err != nil {
			return err
		}
		return each(scan)(stmt.QueryContext(ctx, args...))
	})
}

func (t *tx) all(b *bulk, rows [][]any, run func(text string, args []any) error) error {
	if len(rows) == 0 {
		return nil
	}
	text := b.sql(t.w.d)
	if t.w.d.setwise {
		if err := run(text, b.arrays(rows)); err != nil {
			return fmt.Errorf("%.60q: %w", strings.TrimSpace(text), err)
		}
		return nil
	}
	for _, row := range rows {
		if err := run(text, values(row)); err != nil {
			return fmt.Errorf("%.60q: %w", strings.TrimSpace(text), err)
		}
	}
	return nil
}

func (t *tx) count(org, name string, n int64) { t.counters[counter{org, name}] += n }

func (t *tx) publish(topic string) { t.topics[topic] = struct{}{} }

// unplan notes that something was queued or a device waits.
func (t *tx) unplan() {
	t.unplanned = true
	t.publish(TopicQueue)
}

func (t *tx) topicList() []string { return slices.Sorted(maps.Keys(t.topics)) }

func (t *tx) lane(l lane) *laneChange {
	c := t.lanes[l]
	if c == nil {
		c = &laneChange{}
		t.lanes[l] = c
	}
	return c
}

var (
	insertRuns = newBulk("ittttttttii", `
		insert into runs (seq, id, org_id, app_version_id, previous_id, bundle_sha256, build_sha256, project, config_path, jobs, submitted_at_ms)
		{values}`)
	insertJobs = newBulk("itittttiti", `
		insert into jobs (seq, id, run_seq, org_id, app_version_id, target, test_path, priority, state, events)
		{values}`)
	updateJobs = newBulk("itttbiiittiii", `
		update jobs set state = {2}, cause = {3}, message = {4}, flaky = {5}, attempts = {6}, test_failures = {7}, infra_errors = {8},
			prefer_device = {9}, avoid_device = {10}, events = {11}, started_at_ms = {12}, ended_at_ms = {13}
		{from} where seq = {1}`)
	insertAttempts = newBulk("tiitttttii", `
		insert into attempts (id, job_seq, number, org_id, worker_id, device_id, token, reason, assigned_at_ms, expires_at_ms)
		{values}`)
	endAttempts = newBulk("tttttttii", `
		update attempts set outcome = {2}, cause = {3}, message = {4}, report = {5}, result_hash = {6}, trigger = {7}, retry = {8}, ended_at_ms = {9}
		{from} where id = {1}`)
	insertEvents = newBulk("iitttitttti", `
		insert into events (job_seq, seq, org_id, trigger, state, attempt, device_id, outcome, cause, message, at_ms)
		{values}`)
	upsertKeys = newBulk("tttii", `
		insert into idempotency_keys (org_id, key, body_hash, run_seq, created_at_ms)
		{values}
		on conflict (org_id, key) do update
		set body_hash = excluded.body_hash, run_seq = excluded.run_seq, created_at_ms = excluded.created_at_ms`)
	addCounters = newBulk("tti", `
		insert into counters (org_id, name, value)
		{values}
		on conflict (org_id, name) do update set value = counters.value + excluded.value`)
	growLanes = newBulk("tttittii", `
		insert into lanes (org_id, app_version_id, target, priority, prefer_device, avoid_device, queued, oldest_seq)
		{values}
		on conflict (org_id, app_version_id, target, priority, prefer_device, avoid_device) do update
		set queued = lanes.queued + excluded.queued,
			oldest_seq = case when lanes.queued > 0 and lanes.oldest_seq < excluded.oldest_seq then lanes.oldest_seq else excluded.oldest_seq end`)
	// What is left of a lane begins where the lane began, or later: the dead index entries of the jobs
	// before are not passed again.
	shrinkLanes = newBulk("tttitti", `
		update lanes set queued = queued - {7},
			oldest_seq = coalesce((
				select j.seq from jobs j
				where j.org_id = lanes.org_id and j.app_version_id = lanes.app_version_id and j.target = lanes.target and j.priority = lanes.priority
					and j.prefer_device = lanes.prefer_device and j.avoid_device = lanes.avoid_device and j.state = 'queued' and j.seq + 0 >= lanes.oldest_seq
				order by j.seq + 0 limit 1), 0)
		{from}
		where org_id = {1} and app_version_id = {2} and target = {3} and priority = {4} and prefer_device = {5} and avoid_device = {6}`)
)

// flush writes what has been collected.
func (t *tx) flush(ctx context.Context) error {
	var jobs [][]any
	for _, seq := range slices.Sorted(maps.Keys(t.changed)) {
		jobs = append(jobs, t.changed[seq].mutable())
	}
	var grown, shrunk, counts [][]any
	for l, c := range t.lanes {
		if c.added > 0 {
			grown = append(grown, append(l.columns(), c.added, c.oldest))
		}
		if c.removed > 0 {
			shrunk = append(shrunk, append(l.columns(), c.removed))
		}
	}
	for c, n := range t.counters {
		if n != 0 {
			counts = append(counts, []any{c.org, c.name, n})
		}
	}
	for _, w := range []struct {
		b    *bulk
		rows [][]any
	}{
		{insertRuns, t.runs},
		{insertJobs, t.jobs},
		{updateJobs, jobs},
		{endAttempts, t.ends},
		{insertAttempts, t.attempts},
		{insertEvents, t.events},
		{growLanes, grown},
		{shrinkLanes, shrunk},
		{addCounters, counts},
		{countInstalls, t.installs},
		{upsertKeys, t.keys},
	} {
		if err := t.execAll(ctx, w.b, w.rows); err != nil {
			return err
		}
	}
	t.runs, t.jobs, t.attempts, t.ends, t.events, t.installs, t.keys = nil, nil, nil, nil, nil, nil, nil
	clear(t.changed)
	clear(t.lanes)
	clear(t.counters)
	return nil
}

// next takes n numbers of a sequence and returns the first. Sequences are counters of no organization.
func (t *tx) next(ctx context.Context, name string, n int) (int64, error) {
	var last int64
	err := t.row(ctx, `
		insert into counters (org_id, name, value) values ('', $1, $2)
		on conflict (org_id, name) do update set value = counters.value + excluded.value
		returning value`, name, n).Scan(&last)
	return last - int64(n) + 1, err
}

// newID makes a UUID of version 7: ids that are made together lie together in the database's indexes.
func (t *tx) newID() string {
	var b [16]byte
	rand.Read(b[6:])
	for i := range 6 {
		b[i] = byte(t.now >> (40 - 8*i))
	}
	b[6] = b[6]&0x0f | 0x70
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
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

// execArray runs a statement whose one parameter is an array of texts.
func (c *conn) execArray(ctx context.Context, query string, array []string) error {
	stmt, err := c.prepare(ctx, query)
	if err == nil {
		_, err = stmt.ExecContext(ctx, array)
	}
	return err
}
