-- What is at providers: files of requests that they answer within a day. A batch is a worker without a
-- process: a row of `workers` that holds its rows as claims, which nobody takes for dead, and that goes
-- when all of them have ended.
alter table workers add column kind text not null default 'caller'
  constraint kind_known check (kind in ('caller', 'sender', 'batch'));

-- Each was sealed here, with its rows, before the provider was asked to make it: so whoever finds one
-- that is `creating` asks the provider first whether it has it.
create table provider_batches (
  id                integer primary key autoincrement,
  worker_id         integer not null unique,       -- workers.id while it is not closed; attempts name it for good
  experiment_id     integer not null references experiments (id) on delete cascade,
  recipe_id         integer not null references recipes (id),
  server            text    not null,              -- a hash of its URL
  base_url          text    not null,              -- for people, without secrets
  endpoint          text    not null,
  model             text    not null,
  token             text    not null unique,       -- in the file's name, and in what the provider keeps with it
  state             text    not null,
  requests          integer not null,
  settled           integer not null default 0,    -- of these, whose claims have ended
  bytes             integer not null,
  tokens            integer not null,              -- of its prompts, estimated
  reserved_tokens   integer not null default 0,    -- the most that it can use: a budget holds back the
  reserved_cost_usd real    not null default 0,    -- share of those that are not settled
  input_file        text    not null,
  absent            integer not null default 0,    -- 1: somebody has looked, and the provider does not have it
  batch_id          text,                          -- the provider's
  output_file       text,
  error_file        text,
  status            text,                          -- as the provider last said, as the next two
  answered          integer not null default 0,
  failed            integer not null default 0,
  error             text,                          -- why it ended or was closed, if not in order
  sealed_at         integer not null,
  created_at        integer,                       -- the provider's, as the next
  expires_at        integer,
  ended_at          integer,
  closed_at         integer,
  files_gone        integer not null default 0,    -- 1: the provider's files of it are deleted
  constraint state_known          check (state in ('creating', 'open', 'ended', 'closed')),
  constraint token_is_hex         check (length(token) = 32),
  constraint has_some             check (requests > 0),
  constraint settled_of_all       check (settled between 0 and requests),
  constraint closed_holds_nothing check (state <> 'closed' or settled = requests),
  constraint created_has_id       check (batch_id is not null or state in ('creating', 'closed')),
  constraint creating_has_none    check (batch_id is null or state <> 'creating'),
  constraint ended_some_time      check ((ended_at is not null or state <> 'ended')
                                         and (ended_at is null or state in ('ended', 'closed'))),
  constraint closed_some_time     check ((closed_at is not null) = (state = 'closed')),
  constraint not_negative         check (bytes >= 0 and tokens >= 0 and reserved_tokens >= 0
                                         and reserved_cost_usd >= 0 and answered >= 0 and failed >= 0),
  constraint absent_while_creating check (absent = 0 or (absent = 1 and state = 'creating')),
  constraint gone_when_closed     check (files_gone = 0 or (files_gone = 1 and state = 'closed')),
  unique (server, batch_id)
) strict;

create index provider_batches_unclosed on provider_batches (id) where state <> 'closed';
create index provider_batches_with_files on provider_batches (id)
  where state = 'closed' and files_gone = 0;
create index provider_batches_of_recipe on provider_batches (experiment_id, recipe_id);

-- As they are told of.
create view batches as
select b.id as number, b.worker_id, b.experiment_id, b.recipe_id, b.server, b.base_url, b.endpoint,
       b.model, b.token, b.state, b.requests, b.settled, b.bytes, b.tokens, b.reserved_tokens,
       b.reserved_cost_usd, b.input_file, b.sealed_at, b.batch_id, b.output_file, b.error_file,
       b.status, b.answered, b.failed, b.error, b.created_at, b.expires_at, b.ended_at, b.closed_at,
       b.files_gone, b.absent, e.name as experiment
  from provider_batches b join experiments e on e.id = b.experiment_id;
