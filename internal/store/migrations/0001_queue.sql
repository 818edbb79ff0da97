-- The durable queue. {key}, {bytes}, {keyed} and {hot} are replaced by what each database calls an integer row
-- key, a byte string, a table stored in its primary key's order, and one whose rows change soon after they are
-- made. Times are milliseconds since 1970, ids text; an absent time is 0, an absent text empty. Rows are tied by
-- job sequence, the order of submission.

create table counters (
  org_id text not null, -- empty for what belongs to no organization
  name text not null,
  value bigint not null,
  primary key (org_id, name)
) {keyed};

create table runs (
  seq {key}, -- that of its first job; its jobs follow without a gap
  id text not null unique,
  org_id text not null,
  app_version_id text not null,
  previous_id text not null,
  idempotency_key text not null, -- empty: none, or a newer run has it
  body_hash text not null, -- of the request under the key
  bundle_sha256 text not null,
  build_sha256 text not null,
  project text not null,
  config_path text not null,
  jobs bigint not null,
  submitted_at_ms bigint not null
);
create unique index runs_by_key on runs (org_id, idempotency_key) where idempotency_key <> '';

create table jobs (
  seq {key},
  id text not null unique,
  run_seq bigint not null,
  org_id text not null,
  app_version_id text not null,
  target text not null,
  priority bigint not null,
  test_path text not null,
  state text not null,
  cause text not null default '',
  message text not null default '',
  flaky boolean not null default false,
  attempts bigint not null default 0,
  test_failures bigint not null default 0,
  infra_errors bigint not null default 0,
  prefer_device text not null default '',
  avoid_device text not null default '',
  events bigint not null, -- number of the newest
  started_at_ms bigint not null default 0,
  ended_at_ms bigint not null default 0
) {hot};
-- Nothing that changes in a job's life is in an index, so that a move costs its row and no more. Each of these
-- indexes orders by an expression of its own, and the statements made for it ask for that order. So no planner
-- can take another one, least of all the primary key, and walk through a million rows of other organizations
-- or versions in search of a few, because its statistics make that look as good.
create index jobs_of_organization on jobs (org_id, (-seq));
create index jobs_of_app_version on jobs (org_id, app_version_id, (0 - seq));

-- The jobs that are queued, by the lane that each waits in.
create table queue (
  lane_id bigint not null,
  job_seq bigint not null,
  primary key (lane_id, job_seq)
) {keyed};

create table events (
  job_seq bigint not null,
  seq bigint not null,
  org_id text not null,
  trigger text not null,
  state text not null,
  attempt bigint not null,
  device_id text not null,
  outcome text not null,
  cause text not null,
  message text not null,
  at_ms bigint not null,
  primary key (job_seq, seq)
) {keyed};

-- A lane counts the queued jobs of one group, priority and preference. Queued is the number of rows that queue
-- has for it; oldest_seq, while any are queued, is the lowest of their job_seq, and oldest_at_ms when that job was
-- submitted.
create table lanes (
  id {key},
  org_id text not null,
  app_version_id text not null,
  target text not null,
  priority bigint not null,
  prefer_device text not null,
  avoid_device text not null,
  queued bigint not null check (queued >= 0),
  oldest_seq bigint not null,
  oldest_at_ms bigint not null
) {hot};

create table builds (
  org_id text not null,
  app_version_id text not null,
  sha256 text not null,
  number bigint not null, -- order of upload within the app version
  platform text not null,
  package text not null,
  version_name text not null,
  version_code bigint not null,
  size_bytes bigint not null,
  added_at_ms bigint not null,
  primary key (org_id, app_version_id, sha256)
) {keyed};
create unique index builds_by_number on builds (org_id, app_version_id, number);

create table workers (
  id text not null primary key,
  host text not null,
  version text not null,
  registered_at_ms bigint not null,
  seen_at_ms bigint not null,
  poll_seq bigint not null default 0,    -- the newest poll's
  waiting_seq bigint not null default 0  -- of the poll that waits; 0 when none does
) {keyed};

-- A device outlives its worker: its counters stay. worker_id is empty while it is not part of the fleet.
create table devices (
  id text not null primary key,
  worker_id text not null,
  host text not null,
  serial text not null,
  kind text not null,
  platform text not null,
  model text not null,
  os_version text not null,
  state text not null,
  message text not null,
  installed_org_id text not null,
  installed_app_version_id text not null,
  installed_build_sha256 text not null,
  installs bigint not null default 0,
  installs_saved bigint not null default 0,
  waiting_until_ms bigint not null default 0,
  waiting_seq bigint not null default 0, -- the poll by which it waits
  attempt_id text not null default '', -- what it runs; empty while it runs nothing
  seen_at_ms bigint not null
) {keyed};
create index devices_of_worker on devices (worker_id) where worker_id <> '';

create table attempts (
  id text not null primary key,
  job_seq bigint not null,
  number bigint not null,
  org_id text not null,
  worker_id text not null,
  device_id text not null,
  token text not null,
  reason text not null,
  outcome text not null default '', -- empty while it is open
  cause text not null default '',
  message text not null default '',
  report text not null default '', -- JSON
  result_hash text not null default '', -- of the result that ended it; empty when the server ended it
  trigger text not null default '', -- what its end did to the job
  retry bigint not null default 0,
  acknowledged boolean not null default false, -- its worker has named it
  cancel_told boolean not null default false, -- a poll's answer carried its cancel
  log_received bigint not null default 0, -- bytes of log that the worker has sent
  assigned_at_ms bigint not null,
  expires_at_ms bigint not null,
  ended_at_ms bigint not null default 0,
  unique (job_seq, number)
) {keyed} {hot};

create table log_chunks (
  attempt_id text not null,
  start_byte bigint not null,
  org_id text not null,
  data {bytes} not null,
  primary key (attempt_id, start_byte)
);
