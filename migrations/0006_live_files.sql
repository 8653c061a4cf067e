-- Files that `work -o` and `export --follow` keep up to date: the results that are done, in
-- finishing order. A row says up to which result its file was written, durably, and what the file
-- was then; what a crash left behind that is cut off.

create table live_files (
  path          text    primary key,
  experiment_id integer not null references experiments (id) on delete cascade,
  result_seq    integer not null,                  -- written up to this one
  rows          integer not null,
  size_bytes    integer not null,
  tail_sha256   text    not null,                  -- of the last 4096 bytes
  superseded    integer not null,                  -- that of the experiment, at that time
  constraint absolute_path   check (path like '/%'),
  constraint sha256_is_hex   check (length(tail_sha256) = 64),
  constraint not_negative    check (result_seq >= 0 and rows >= 0 and superseded >= 0),
  constraint a_line_has_size check (size_bytes >= rows)
) strict, without rowid;

-- How many results that were done are not their item's result any more (`retry --done`, `reparse`):
-- where that moves on, lines of a live file are out of date.
alter table experiments add column superseded integer not null default 0
  constraint superseded_not_negative check (superseded >= 0);
