-- What all workers together may send (batchgen/limits/buckets.py): one row, once anything was
-- limited. The levels of the buckets were so at `at`; below zero, tokens are owed. The rest is for all
-- to wait as long as the server asks, and what --adaptive has learned (limits/adaptive.py). It takes
-- the place of counting the requests of the last minute by second, which let them all out at once.

drop table sent_requests;

create table sending (
  id           integer primary key,
  at           integer not null,
  requests     real    not null,
  tokens       real    not null,
  paused_until integer not null,
  ceiling      real,                               -- calls a second; null: no 429 yet
  depth        real    not null,
  grown_s      real    not null,
  cut_at       integer not null,
  felt_at      integer not null,
  taken        integer not null,
  constraint one_row          check (id = 1),
  constraint ceiling_positive check (ceiling > 0),
  constraint never_shrinks    check (grown_s >= 0 and taken >= 0)
) strict;
