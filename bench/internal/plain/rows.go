// Package plain writes the rows of a submit with nothing around them: in plain batched transactions, as the
// databases' own limit, and as the group-committing backend of a bare HTTP server.
//
// The rows, keys and indexes are those that qgjob keeps for a submit: the run, its jobs, their first events, the
// idempotency key, and what its lane and its organization count. What qgjob does to know them (looking up keys and
// builds, checks, decisions) is left out.
package plain

import (
	"context"
	"strings"
	"time"

	"github.com/google/uuid"

	"qgjob/bench/internal/thin"
	"qgjob/internal/api"
)

// schema holds for both databases but for the words in braces, as qgjob's own does.
const schema = `
create table counters (org_id text not null, name text not null, value bigint not null, primary key (org_id, name)) {keyed};
create table runs (
	seq {key}, id text not null unique, org_id text not null, app_version_id text not null, previous_id text not null,
	bundle_sha256 text not null, build_sha256 text not null, project text not null, config_path text not null,
	jobs bigint not null, submitted_at_ms bigint not null);
create table jobs (
	seq {key}, id text not null unique, run_seq bigint not null, org_id text not null, app_version_id text not null,
	target text not null, priority bigint not null, test_path text not null, state text not null,
	cause text not null default '', message text not null default '', flaky boolean not null default false,
	attempts bigint not null default 0, test_failures bigint not null default 0, infra_errors bigint not null default 0,
	prefer_device text not null default '', avoid_device text not null default '', events bigint not null,
	started_at_ms bigint not null default 0, ended_at_ms bigint not null default 0);
create index jobs_in_lane on jobs (org_id, app_version_id, target, priority, prefer_device, avoid_device, seq) where state = 'queued';
create index jobs_of_organization on jobs (org_id, target, state, seq);
create index jobs_of_app_version on jobs (org_id, app_version_id, target, state, seq);
create table events (
	job_seq bigint not null, seq bigint not null, org_id text not null, trigger text not null, state text not null,
	attempt bigint not null, device_id text not null, outcome text not null, cause text not null, message text not null,
	at_ms bigint not null, primary key (job_seq, seq)) {keyed};
create table lanes (
	org_id text not null, app_version_id text not null, target text not null, priority bigint not null,
	prefer_device text not null, avoid_device text not null, queued bigint not null, oldest_seq bigint not null,
	primary key (org_id, app_version_id, target, priority, prefer_device, avoid_device)) {keyed};
create index lanes_by_urgency on lanes (target, priority, oldest_seq) where queued > 0;
create table idempotency_keys (
	org_id text not null, key text not null, body_hash text not null, run_seq bigint not null, created_at_ms bigint not null,
	primary key (org_id, key)) {keyed};
create index idempotency_keys_by_age on idempotency_keys (created_at_ms);
`

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
	events
	keys
	lanes
	counters
)

var tables = []table{
	runs: {into: "runs", kinds: "itttttttt" + "ii"},
	jobs: {
		into:  "jobs (seq, id, run_seq, org_id, app_version_id, target, test_path, priority, state, events)",
		kinds: "itittttiti",
	},
	events: {into: "events", kinds: "iitttitttti"},
	keys:   {into: "idempotency_keys", kinds: "tttii"},
	lanes: {into: "lanes", kinds: "tttittii", rest: `
		on conflict (org_id, app_version_id, target, priority, prefer_device, avoid_device)
		do update set queued = lanes.queued + excluded.queued`},
	counters: {into: "counters", kinds: "tti", rest: `
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
	groups map[string]int64 // jobs of each app version
	jobs   int64
}

func newBatch() *batch {
	return &batch{rows: make([][][]any, len(tables)), groups: map[string]int64{}}
}

func (b *batch) row(table int, values ...any) { b.rows[table] = append(b.rows[table], values) }

// add adds a submit and returns its jobs' ids. seq is the number of the first of them.
func (b *batch) add(s api.SubmitRequest, seq int64) []string {
	now := time.Now().UnixMilli()
	b.row(runs, seq, newID(), s.OrgID, s.AppVersionID, "", s.BundleSHA256, s.BuildSHA256, s.Project, s.ConfigPath, int64(len(s.Jobs)), now)
	b.row(keys, s.OrgID, s.IdempotencyKey, bodyHash, seq, now)
	ids := make([]string, 0, len(s.Jobs))
	for i, spec := range thin.Specs(s) {
		id, job := newID(), seq+int64(i)
		ids = append(ids, id)
		b.row(jobs, job, id, seq, s.OrgID, s.AppVersionID, "any", spec.TestPath, int64(spec.Priority), "queued", int64(1))
		b.row(events, job, int64(1), s.OrgID, "submit", "queued", int64(0), "", "", "", "", now)
	}
	b.groups[s.AppVersionID] += int64(len(s.Jobs))
	b.jobs += int64(len(s.Jobs))
	return ids
}

// bodyHash is as long as a SHA-256 of a request is.
var bodyHash = strings.Repeat("0", 64)

// newID is a UUID of version 7, as qgjob's are: made together they lie together in the indexes.
func newID() string { return uuid.Must(uuid.NewV7()).String() }

// commit writes the batch.
func (b *batch) commit(ctx context.Context, w writer) error {
	for group, n := range b.groups {
		b.row(lanes, "bench", group, "any", int64(1), "", "", n, int64(1))
	}
	b.row(counters, "", "jobs", b.jobs)
	b.row(counters, "bench", "jobs/queued", b.jobs)
	return w.write(ctx, b.rows)
}
