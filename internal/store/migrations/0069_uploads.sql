-- Bundles and builds in the blob store, from the beginning of their upload on, and when somebody last needed them.
create table uploads (
  org_id text not null,
  kind text not null, -- bundle or build
  sha256 text not null,
  copy text not null, -- tells the file from an earlier one of the same bytes that was removed
  stored boolean not null, -- the file is whole
  used_at_ms bigint not null,
  primary key (org_id, kind, sha256)
) {keyed};
create index uploads_by_use on uploads (used_at_ms);
create index builds_by_file on builds (org_id, sha256);
-- Files of forgotten uploads that are still to be removed from the blob store. Nobody reads or writes them any more.
create table removed_uploads (
  org_id text not null,
  kind text not null,
  sha256 text not null,
  copy text not null,
  primary key (org_id, kind, sha256, copy)
) {keyed};
insert into uploads (org_id, kind, sha256, copy, stored, used_at_ms)
  select org_id, 'bundle', bundle_sha256, '', true, max(submitted_at_ms) from runs where bundle_sha256 <> '' group by org_id, bundle_sha256;
insert into uploads (org_id, kind, sha256, copy, stored, used_at_ms)
  select b.org_id, 'build', b.sha256, '', true, max(coalesce(r.submitted_at_ms, b.added_at_ms))
  from builds b left join runs r on r.org_id = b.org_id and r.build_sha256 = b.sha256 group by b.org_id, b.sha256;
