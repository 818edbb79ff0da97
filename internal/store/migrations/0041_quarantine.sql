-- Tests that run and do not count: by hand, or by the rule for flaky ones.
create table quarantine (
  org_id text not null,
  test_path text not null,
  title text not null,
  by_rule boolean not null,
  reason text not null,
  since_ms bigint not null,
  primary key (org_id, test_path, title)
) {keyed};

-- How many tests of a job failed without counting.
alter table jobs add column quarantined bigint not null default 0;
