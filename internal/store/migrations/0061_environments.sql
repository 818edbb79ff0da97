-- The variables that a run has for its tests.
create table environments (
  run_seq {key},
  org_id text not null,
  variables text not null,    -- JSON object
  secret_names text not null, -- JSON list
  secrets text not null       -- sealed by the server; empty for none, and when they were forgotten
);
create index environments_sealed on environments (run_seq) where secrets <> '';
alter table runs add column environment boolean not null default false; -- it has a row there
