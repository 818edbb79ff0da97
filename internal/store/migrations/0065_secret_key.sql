-- Which key the secrets of new runs are sealed with: that of the server that started last. At most one row.
create table secret_key (name text not null);
