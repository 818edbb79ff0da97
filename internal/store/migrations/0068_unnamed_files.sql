-- Artifacts' files in the blob store that may have no name: those that are being uploaded, and those whose last artifact was forgotten.
create table unnamed_files (
  org_id text not null,
  sha256 text not null,
  since_ms bigint not null,
  primary key (org_id, sha256)
) {keyed};
create index unnamed_files_by_age on unnamed_files (since_ms);
create index artifacts_by_age on artifacts (added_at_ms);
insert into counters (org_id, name, value) select org_id, 'artifact_bytes', sum(size_bytes) from artifacts group by org_id;
