-- A hard budget: before a call is sent, the most it can cost is reserved here, and settled with its
-- answer. Rows are there only while a worker runs with a budget. A call whose answer stays unknown
-- keeps what was reserved for it: `attempts.cost_usd`, and `totals.unknown_tokens`.

create table reservations (
  item_id       integer primary key,
  epoch         integer not null,
  experiment_id integer not null,
  worker_id     integer not null,
  tokens        integer not null check (tokens >= 0),
  cost_usd      real    not null check (cost_usd >= 0)
) strict;

alter table totals add column unknown_tokens integer not null default 0;
