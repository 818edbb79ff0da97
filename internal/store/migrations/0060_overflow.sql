-- Money is in millionths of the unit that prices are told in.

-- Runs with a deadline, whose jobs may run on a cloud's devices when their own would be late.
create table overflows (
  run_seq {key},
  org_id text not null,
  deadline_ms bigint not null,
  max_cost bigint not null, -- 0: it has no budget of its own
  spent bigint not null,
  live bigint not null,     -- jobs that have no verdict
  closed text not null      -- why it overflows no more; empty while it may
) {hot};
create index overflows_live on overflows (run_seq) where live > 0;
alter table lanes add column run_seq bigint not null default 0; -- of those that may overflow

alter table devices add column minute_price bigint not null default 0;

-- What an organization's jobs cost in a month (2026-11, UTC), and may cost that overflow.
alter table organizations add column max_cost bigint not null default 0; -- 0: no budget
alter table organizations add column cost bigint not null default 0;
alter table organizations add column cost_month text not null default '';
