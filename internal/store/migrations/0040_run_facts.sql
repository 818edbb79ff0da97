-- What is known of a run besides its jobs: only runs of several jobs, those that a CI submitted and those
-- that stop after some failures have a row.
create table run_facts (
  run_seq {key},
  org_id text not null,
  max_failures bigint not null, -- 0: it never stops
  ci_system text not null,
  repository text not null,
  commit_id text not null,
  branch text not null,
  pull_request text not null,
  actor text not null,
  workflow text not null,
  ci_url text not null
);
create index run_facts_of_branch on run_facts (org_id, repository, branch, run_seq);

-- Which part of a spec a job runs, as part/parts; empty: all of it.
alter table jobs add column shard text not null default '';
