-- What a build asks of devices.
alter table builds add column min_os text not null default ''; -- the oldest system that the build runs on; empty for any that is driven
alter table builds add column kind text not null default ''; -- the only kind of own device that takes it; empty for all
