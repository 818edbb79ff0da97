-- Devices that take no work for the time being, and why.
create table device_holds (
  device_id text not null primary key,
  kind text not null,
  reason text not null,
  since_ms bigint not null,
  until_ms bigint not null -- 0: until it is released
) {keyed};
