create table webhooks (
  id text not null primary key,
  org_id text not null,
  url text not null,
  format text not null,
  secret text not null,
  after_seq bigint not null, -- it was told of every run up to here
  created_at_ms bigint not null
) {keyed};

-- The outbox, and what became of it.
create table webhook_deliveries (
  id text not null primary key,
  webhook_id text not null,
  run_seq bigint not null,
  tries bigint not null default 0,
  status bigint not null default 0,
  error text not null default '',
  created_at_ms bigint not null,
  delivered_at_ms bigint not null default 0,
  next_at_ms bigint not null, -- 0: it was delivered or given up
  unique (webhook_id, run_seq)
) {keyed};
create index webhook_deliveries_due on webhook_deliveries (next_at_ms) where next_at_ms > 0;
