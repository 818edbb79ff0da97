-- What happens to a job is told once: its submit by its run, an attempt's begin and end by the attempt, a cancel by a row of its own. Events are made of
-- these when they are asked for. The numbers are those of the job's events; 0 is none yet.
alter table attempts add column assigned_event bigint not null default 0;
alter table attempts add column ended_event bigint not null default 0;
update attempts set
  assigned_event = coalesce((select min(seq) from events e where e.job_seq = attempts.job_seq and e.attempt = attempts.number and e.trigger = 'assign'), 0),
  ended_event = coalesce((select min(seq) from events e where e.job_seq = attempts.job_seq and e.attempt = attempts.number and e.outcome <> ''), 0);

create table cancels (
  job_seq {key},
  event bigint not null,
  attempt bigint not null, -- that it stops; 0 for none
  device_id text not null,
  cause text not null,
  at_ms bigint not null
);
insert into cancels (job_seq, event, attempt, device_id, cause, at_ms)
  select job_seq, seq, attempt, device_id, cause, at_ms from events where trigger = 'cancel';
drop table events;
