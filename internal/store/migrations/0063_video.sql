alter table runs add column video text not null default ''; -- on or retain-on-failure; empty for none
