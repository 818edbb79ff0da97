-- Almost every job has one attempt: it knows that by its id, and only the others are in an index by job. One of all was written in as many places as
-- there were lanes that jobs came from.

{postgresql} -- A server of the schema before may go on meanwhile. The first lock is its writer's; the others come in the order in which reads take them.
select pg_advisory_xact_lock(7104001);
lock table attempts, jobs in access exclusive mode;
{/postgresql}
alter table jobs add column first_attempt text not null default ''; -- id; empty while it has none
update jobs set first_attempt = a.id from attempts a where a.job_seq = jobs.seq and a.number = 1;

{postgresql}
alter table attempts drop constraint attempts_job_seq_number_key;
-- A row doubles when the attempt ends. Where there is room for that on its page no index has to hear of it.
alter table attempts set (fillfactor = 50);
-- A server of the schema before does not know the column: it is refused rather than makes attempts that nobody finds.
alter table jobs add constraint jobs_first_attempt check ((attempts = 0) = (first_attempt = ''));
{/postgresql}
{sqlite} -- It drops no constraint of a table that is there.
create table attempts_anew (
  id text not null primary key,
  job_seq bigint not null,
  number bigint not null,
  org_id text not null,
  worker_id text not null,
  device_id text not null,
  token text not null,
  reason text not null,
  outcome text not null default '',
  cause text not null default '',
  message text not null default '',
  report text not null default '',
  result_hash text not null default '',
  trigger text not null default '',
  retry bigint not null default 0,
  acknowledged boolean not null default false,
  cancel_told boolean not null default false,
  log_received bigint not null default 0,
  assigned_at_ms bigint not null,
  expires_at_ms bigint not null,
  ended_at_ms bigint not null default 0,
  why text not null default '',
  assigned_event bigint not null default 0,
  ended_event bigint not null default 0
) {keyed} {hot};
insert into attempts_anew select * from attempts;
drop table attempts;
alter table attempts_anew rename to attempts;
{/sqlite}
create unique index attempts_again on attempts (job_seq, number) where number > 1;
