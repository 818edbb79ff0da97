-- What the scheduler goes by. A requirement is in its one form, empty for none; expected_ms is the run time that was
-- expected of a job when it was submitted, work_ms the sum of a lane's jobs.
alter table jobs add column requires text not null default '';
alter table jobs add column expected_ms bigint not null default 0;
alter table lanes add column requires text not null default '';
alter table lanes add column work_ms bigint not null default 0;
alter table attempts add column why text not null default ''; -- JSON
alter table devices add column tags text not null default ''; -- joined by commas

-- How long things take: runs by organization and spec (of all its specs where name is empty), installs by kind of device.
create table estimates (
  kind text not null,
  org_id text not null,
  name text not null,
  value text not null, -- JSON
  primary key (kind, org_id, name)
) {keyed};

-- An organization's share and quota, and the device time that it used, of which each hour counts half.
create table organizations (
  id text not null primary key,
  weight_permille bigint not null default 1000,
  max_devices bigint not null default 0, -- 0: no limit
  used_ms bigint not null default 0,
  used_at_ms bigint not null default 0
) {keyed} {hot};

-- Groups that broke devices one after another, until one of their jobs ends well.
create table streaks (
  org_id text not null,
  app_version_id text not null,
  target text not null,
  requires text not null,
  devices text not null, -- JSON
  last_ms bigint not null,
  primary key (org_id, app_version_id, target, requires)
) {keyed};
