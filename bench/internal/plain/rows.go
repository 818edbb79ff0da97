// Package plain writes the rows of a submit with nothing around them: in plain batched transactions, as the
// databases' own limit, and as the group-committing backend of a bare HTTP server.
//
// The rows are those that qgjob keeps for a submit, in its own tables with their indexes: the run with its
// idempotency key, its jobs, their places in the queue, and what its lane and its organization count. What qgjob does to know them (looking up keys and
// builds, checks, decisions) is left out.
package plain

import (
	"context"
	"hash/fnv"
	"time"

	"github.com/google/uuid"

	"qgjob/bench/internal/load"
	"qgjob/bench/internal/thin"
	"qgjob/internal/api"
	"qgjob/internal/store"
)

// migrate gives a database qgjob's own tables and indexes.
func migrate(ctx context.Context, o store.Options) error {
	s, err := store.Open(ctx, o)
	if err != nil {
		return err
	}
	return s.Close()
}

// table is how rows get into one table. kinds tells the columns' types: t text, i integer.
type table struct {
	into  string
	kinds string
	rest  string // what follows the rows
}

// Places in tables.
const (
	runs = iota
	jobs
	queue
	lanes
	counters
)

var tables = []table{
	runs: {
		into:  "runs (seq, id, org_id, app_version_id, previous_id, idempotency_key, body_hash, bundle_sha256, build_sha256, project, config_path, jobs, submitted_at_ms)",
		kinds: "ittttttttttii",
	},
	jobs: {
		into:  "jobs (seq, id, run_seq, org_id, app_version_id, target, test_path, priority, state, events)",
		kinds: "itittttiti",
	},
	queue: {into: "queue (lane_id, job_seq)", kinds: "ii"},
	lanes: {into: "lanes (id, org_id, app_version_id, target, priority, prefer_device, avoid_device, queued, oldest_seq, oldest_at_ms)", kinds: "itttittiii", rest: `
		on conflict (id) do update set queued = lanes.queued + excluded.queued`},
	counters: {into: "counters (org_id, name, value)", kinds: "tti", rest: `
		on conflict (org_id, name) do update set value = counters.value + excluded.value`},
}

// writer writes batches, one at a time.
type writer interface {
	// write commits rows[i] into tables[i].
	write(ctx context.Context, rows [][][]any) error
	close() error
}

// batch collects the rows of a transaction.
type batch struct {
	rows   [][][]any
	groups map[string]*group // by app version
	jobs   int64
}

// group is the jobs of one app version in a batch.
type group struct{ lane, jobs int64 }

func newBatch() *batch {
	return &batch{rows: make([][][]any, len(tables)), groups: map[string]*group{}}
}

// laneOf numbers app versions.
func laneOf(appVersion string) int64 {
	h := fnv.New32a()
	h.Write([]byte(appVersion))
	return int64(h.Sum32())
}

func (b *batch) row(table int, values ...any) { b.rows[table] = append(b.rows[table], values) }

// add adds a submit and returns its jobs' ids. seq is the number of the first of them.
func (b *batch) add(s api.SubmitRequest, seq int64) []string {
	now := time.Now().UnixMilli()
	b.row(runs, seq, newID(), s.OrgID, s.AppVersionID, "", s.IdempotencyKey, load.BodyHash, s.BundleSHA256, s.BuildSHA256, s.Project, s.ConfigPath, int64(len(s.Jobs)), now)
	g := b.groups[s.AppVersionID]
	if g == nil {
		g = &group{lane: laneOf(s.AppVersionID)}
		b.groups[s.AppVersionID] = g
	}
	g.jobs += int64(len(s.Jobs))
	ids := make([]string, 0, len(s.Jobs))
	for i, spec := range thin.Specs(s) {
		id, job := newID(), seq+int64(i)
		ids = append(ids, id)
		b.row(jobs, job, id, seq, s.OrgID, s.AppVersionID, "any", spec.TestPath, int64(spec.Priority), "queued", int64(1))
		b.row(queue, g.lane, job)
	}
	b.jobs += int64(len(s.Jobs))
	return ids
}

// newID is a UUID of version 7, as qgjob's are: made together they lie together in the indexes.
func newID() string { return uuid.Must(uuid.NewV7()).String() }

// commit writes the batch.
func (b *batch) commit(ctx context.Context, w writer) error {
	for app, g := range b.groups {
		b.row(lanes, g.lane, "bench", app, "any", int64(1), "", "", g.jobs, int64(1), int64(1))
	}
	b.row(counters, "", "jobs", b.jobs)
	b.row(counters, "bench", "jobs/queued", b.jobs)
	return w.write(ctx, b.rows)
}
