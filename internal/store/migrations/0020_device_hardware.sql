-- What is known of a device's body; 0 for what is not known.
alter table devices add column screen_width bigint not null default 0;
alter table devices add column screen_height bigint not null default 0;
alter table devices add column battery_percent bigint not null default 0;
alter table devices add column free_storage bigint not null default 0;
