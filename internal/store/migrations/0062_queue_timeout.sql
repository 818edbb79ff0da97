-- When a run's jobs that no device has taken yet are given up; 0: never, or it has come.
alter table run_facts add column queue_until_ms bigint not null default 0;
create index run_facts_queue_until on run_facts (queue_until_ms) where queue_until_ms > 0;
