-- How long a run's jobs may wait for a device, as it was submitted; 0: without end.
alter table run_facts add column queue_timeout_ms bigint not null default 0;
update run_facts set queue_timeout_ms = queue_until_ms - (select submitted_at_ms from runs where seq = run_seq) where queue_until_ms > 0;
