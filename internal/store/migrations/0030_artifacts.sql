-- What attempts left: files of the blob store, by the attempt and a name.
create table artifacts (
  attempt_id text not null,
  name text not null,
  org_id text not null,
  job_id text not null,
  number bigint not null, -- of the attempt
  sha256 text not null,
  size_bytes bigint not null,
  added_at_ms bigint not null,
  primary key (attempt_id, name)
) {keyed};
create index artifacts_of_job on artifacts (job_id, number, name);
create index artifacts_of_organization on artifacts (org_id, added_at_ms);
create index artifacts_by_file on artifacts (org_id, sha256);
