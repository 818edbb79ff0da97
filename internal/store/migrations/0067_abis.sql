-- Instruction sets, joined by commas: those of which a build needs one, empty for any; and those that a device runs, empty when unknown.
alter table builds add column abis text not null default '';
alter table devices add column abis text not null default '';
