CREATE TABLE attempts (
  seq               integer primary key autoincrement,
  item_id           integer not null references items (id) on delete cascade,
  epoch             integer not null,
  worker_id         integer not null,
  server_id         integer,                       -- servers.id: which one was asked, if it is known
  finished_at       integer not null,
  latency_ms        integer,
  outcome           text    not null,
  reason            text,
  error             text,
  http_status       integer,
  request_id        text,
  model             text,
  finish_reason     text,
  prompt_tokens     integer,
  completion_tokens integer,
  cached_tokens     integer,                       -- contained in prompt_tokens
  reasoning_tokens  integer,                       -- contained in completion_tokens
  cost_usd          real,                          -- null: the price is not known
  response          text,
  vector            text,                          -- JSON; an embedding's, whose response is empty
  body              text,
  constraint outcome_known        check (outcome = 'answered' or outcome = 'failed'
                                         or outcome = 'unknown'),
  constraint answered_has_text    check ((outcome = 'answered') = (response is not null)),
  constraint vector_is_no_text    check (vector is null or response = ''),
  constraint failed_has_reason    check ((outcome = 'failed') = (reason is not null)),
  constraint unknown_says_nothing check (outcome <> 'unknown' or (body is null and latency_ms is null))
) strict;

CREATE TABLE before_minutes (
  attempt_seq integer primary key,                 -- attempts.seq
  result_seq  integer not null                     -- results.seq
) strict;

CREATE TABLE calls_ahead (
  server    text    not null,                      -- a hash of its URL
  worker_id integer not null references workers (id) on delete cascade,
  calls     integer not null,
  until     integer not null,
  primary key (server, worker_id),
  constraint never_fewer_than_none check (calls >= 0)
) strict, without rowid;

CREATE TABLE calls_on_trial (
  item_id integer primary key references items (id) on delete cascade,
  epoch   integer not null,
  server  text    not null
) strict;

CREATE TABLE condemned_runs (
  server text primary key,
  run    text not null
) strict, without rowid;

CREATE TABLE counters (
  experiment_id integer not null,
  state         text    not null,
  reason        text    not null default '',
  n             integer not null,
  primary key (experiment_id, state, reason),
  constraint not_negative check (n >= 0)
) strict, without rowid;

CREATE TABLE experiments (
  id                 integer primary key autoincrement,
  name               text    not null unique check (name <> ''),
  created_at         integer not null,
  parser_id          integer not null references parsers (id),  -- the present one
  superseded_results integer not null default 0,   -- done results that are their item's no more
  overuse            real    not null default 1,   -- how many times its most a call has used (budget)
  first_id           integer references experiments (id),  -- the chain's first step; null: it is, or no step
  step               text,                         -- its name; null: an experiment without steps
  number             integer not null default 0,   -- its place in the chain
  plan_id            integer references plans (id),  -- of a first step: the present one
  followed_plan_id   integer references plans (id),  -- the one by which all that is done was followed
  gathered_by        integer references experiments (id),  -- a later step that gathers its rows
  runs_code          integer not null default 0,   -- 1: the user's function ends its rows, without a call
  constraint superseded_not_negative check (superseded_results >= 0),
  constraint overuse_from_one        check (overuse >= 1),
  constraint later_follows_first     check ((first_id is null) = (number = 0) and number >= 0),
  constraint later_has_name          check (first_id is null or step is not null),
  constraint first_has_plan          check ((plan_id is null) = (first_id is not null or step is null)),
  constraint follows_a_plan          check (followed_plan_id is null or plan_id is not null),
  constraint code_or_call            check (runs_code in (0, 1))
) strict;

CREATE TABLE exports (
  experiment_id integer not null references experiments (id) on delete cascade,
  path          text    not null,
  rows          integer not null,
  sha256        text    not null,
  result_seq    integer not null,                  -- how far results were then; -1: not comparable
  exported_at   integer not null,
  primary key (experiment_id, path)
) strict, without rowid;

CREATE TABLE failed_calls (
  experiment_id integer not null,
  reason        text    not null,
  http_status   integer not null default 0,
  n             integer not null,
  newest_error  text    not null,
  primary key (experiment_id, reason, http_status),
  constraint not_negative check (n >= 0)
) strict, without rowid;

CREATE TABLE item_keys (
  key     blob    primary key check (length(key) = 16),
  item_id integer not null
) strict, without rowid;

CREATE TABLE items (
  id            integer primary key autoincrement,
  experiment_id integer not null references experiments (id),
  variant       integer not null default 1,
  recipe_id     integer not null references recipes (id),  -- with which it is, or was, asked
  base_recipe_id integer references recipes (id),          -- the one before `retry --set`; or null
  custom_id     text,                              -- the user's own id
  input         text    not null,                  -- JSON on one line, mostly just as it came
  sample        integer,                           -- from 1; null: an ordinary item
  sample_of     integer references items (id),     -- the first sample; null: it is the first
  parent_id     integer references items (id),     -- the row of an earlier step that it was made of
  parent_result integer,                           -- results.seq: what it is made of; null: of nothing more
  element       integer not null default 0,        -- its place in the list that was made rows of
  gathered      text,                              -- JSON: results.seq of the rows that it gathers
  constraint sample_from_one check (sample >= 1),
  constraint first_of_none   check ((sample_of is null) = (coalesce(sample, 1) = 1)),
  constraint of_another      check (sample_of <> id),
  constraint parent_is_older check (parent_id < id),
  constraint made_of_parent  check (parent_id is not null
                                    or (parent_result is null and element = 0 and gathered is null)),
  constraint gathers_a_list  check (gathered is null
                                    or (parent_result is null and json_type(gathered) = 'array')),
  constraint element_from_0  check (element >= 0)
) strict;

CREATE TABLE known_files (
  path text primary key,
  use  text not null,
  constraint absolute_path check (path like '/%'),
  constraint use_known     check (use in ('read', 'written'))
) strict, without rowid;

CREATE TABLE live_files (
  path               text    primary key,
  experiment_id      integer not null references experiments (id) on delete cascade,
  result_seq         integer not null,
  rows               integer not null,
  size_bytes         integer not null,
  sha256             text    not null,             -- of all these bytes
  superseded_results integer not null,             -- the experiment's then; more: lines are out of date
  constraint absolute_path   check (path like '/%'),
  constraint sha256_is_hex   check (length(sha256) = 64),
  constraint not_negative    check (result_seq >= 0 and rows >= 0 and superseded_results >= 0),
  constraint a_line_has_size check (size_bytes >= rows)
) strict, without rowid;

CREATE TABLE minutes (
  experiment_id     integer not null,
  minute            integer not null,              -- since 1970, UTC; 0: all before minutes were kept
  done              integer not null default 0,    -- rows that ended so, but for those parsed again
  failed            integer not null default 0,
  calls             integer not null default 0,    -- by the time at which they ended; no unknown ones
  latency_ms        integer not null default 0,
  prompt_tokens     integer not null default 0,
  completion_tokens integer not null default 0,
  cached_tokens     integer not null default 0,
  reasoning_tokens  integer not null default 0,
  cost_usd          real    not null default 0,    -- also what a budget has booked for unknown calls
  -- JSON, each {bucket: how many}: bucket b has what is at least 1.1^b, and less than 1.1^(b + 1).
  latencies         text    not null default '{}', -- ms, of calls that were answered
  lengths           text    not null default '{}', -- characters, of answers that have a text
  reasons           text    not null default '{}', -- JSON: calls that failed, by why
  slowest           integer,                       -- attempts.seq: the call that took longest
  slowest_ms        integer,
  primary key (experiment_id, minute),
  constraint not_negative   check (done >= 0 and failed >= 0 and calls >= 0 and latency_ms >= 0),
  constraint slowest_took_some check ((slowest is null) = (slowest_ms is null))
) strict, without rowid;

CREATE TABLE moves (
  id       text    primary key,
  other    text    not null,                       -- the other end, without its password
  went     integer not null,                       -- 1: from here to there
  moved_at integer not null,
  constraint went_or_came check (went in (0, 1))
) strict, without rowid;

CREATE TABLE new_item_keys (
  item_id integer primary key,
  key     blob    not null check (length(key) = 16)
) strict;

CREATE TABLE parser_counters (
  experiment_id integer not null,
  parser_id     integer not null,
  n             integer not null,
  primary key (experiment_id, parser_id),
  constraint not_negative check (n >= 0)
) strict, without rowid;

CREATE TABLE parsers (
  id          integer primary key,
  spec        text    not null check (spec <> ''), -- as the config names it
  fingerprint text    not null,                    -- of the code behind the spec; '': it says all
  sources     text    not null check (json_valid(sources)),  -- that code's files: {path: SHA-256}
  created_at  integer not null,
  unique (spec, fingerprint)
) strict;

CREATE TABLE plans (
  id         integer primary key,
  digest     blob    not null unique check (length(digest) = 32),
  body       text    not null check (json_valid(body)),
  created_at integer not null
) strict;

CREATE TABLE proven_recipes (
  server       text    not null,                   -- a hash of its URL
  recipe_id    integer not null references recipes (id),
  proven_until integer,                            -- attempts.seq: in earlier runs; null: now
  primary key (server, recipe_id)
) strict, without rowid;

CREATE TABLE provider_batches (
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

CREATE TABLE recipes (
  id         integer primary key,
  digest     blob    not null unique check (length(digest) = 32),
  body       text    not null check (json_valid(body)),
  created_at integer not null
) strict;

CREATE TABLE reparsing (
  item_id   integer primary key references items (id) on delete cascade,
  parser_id integer not null references parsers (id),
  alone     integer not null,                      -- 1: a suspect, parsed while nothing else was
  constraint alone_or_not check (alone in (0, 1))
) strict;

CREATE TABLE reservations (
  item_id       integer primary key,
  epoch         integer not null,
  experiment_id integer not null,
  worker_id     integer not null,
  asked         integer not null check (asked >= 0),
  tokens        integer not null check (tokens >= 0),
  cost_usd      real    not null check (cost_usd >= 0)
) strict;

CREATE TABLE results (
  seq         integer primary key autoincrement,
  item_id     integer not null,
  attempt_seq integer,
  state       text    not null check (state in ('done', 'failed')),
  reason      text,
  error       text,
  parsed      text,
  spans       text,                                -- in its place, where it is pieces of the answer
  parser_id   integer references parsers (id),     -- which read the answer; null: there was none to read
  reparsed    integer not null default 0,          -- 1: of an answer that had been read before
  finished_at integer not null,
  made_of     blob,                                -- hash of all that it was made of; null: of an item
  children    integer,                             -- rows made of it; null: nothing follows, or did not yet
  passed_over integer,                             -- steps after it that were
  passed_on   blob,                                -- hash of all that rows made of it see
  constraint done_has_answer   check (attempt_seq is not null or state <> 'done' or parsed is not null),
  constraint done_has_parser   check (state <> 'done' or parser_id is not null),
  constraint parser_has_answer check (attempt_seq is not null or parser_id is null
                                      or parsed is not null or reason in ('parse', 'crash')),
  constraint followed_whole    check ((children is null and passed_over is null and passed_on is null)
                                      or (state = 'done' and coalesce(children, -1) >= 0
                                          and coalesce(passed_over, -1) >= 0
                                          and coalesce(length(passed_on), 0) = 8)),
  constraint hash_of_8_bytes   check (made_of is null or length(made_of) = 8),
  constraint reparsed_or_not   check (reparsed in (0, 1)),
  constraint failed_has_reason check ((state = 'failed') = (reason is not null)
                                      and (reason is null) = (error is null)),
  constraint parsed_once       check (parsed is null or spans is null),
  constraint spans_is_json     check (spans is null or json_valid(spans)),
  constraint failed_not_parsed check (state = 'done' or (parsed is null and spans is null))
) strict;

CREATE TABLE reviews (
  item_id     integer primary key references items (id) on delete cascade,
  result_seq  integer not null,                    -- results.seq: what was looked at
  verdict     text,                                -- null: none yet
  note        text,
  edited      text,                                -- JSON, in place of the parsed value
  before      text,                                -- JSON: these three before the last change; null: none
  reviewed_at integer not null,
  constraint verdict_known    check (verdict = 'accepted' or verdict = 'rejected'),
  constraint says_something   check (coalesce(verdict, note, edited) is not null),
  constraint note_has_text    check (note <> ''),
  constraint edited_is_json   check (edited is null or json_valid(edited)),
  constraint before_is_object check (before is null or json_type(before) = 'object')
) strict;

CREATE TABLE selections (
  id            integer primary key autoincrement,
  experiment_id integer not null references experiments (id) on delete cascade,
  begun_at      integer not null,
  done_before   integer not null,
  failed_before integer not null,
  constraint counts_not_negative check (done_before >= 0 and failed_before >= 0)
) strict;

CREATE TABLE servers (
  id            integer primary key,
  key           text    not null unique,           -- a hash of its URL
  name          text    not null,                  -- for people: its host
  calls_at_once integer,                           -- null: no more than were sent were ever refused
  found_at      integer,
  failed_rises  integer not null default 0,        -- of the newest tries to send more, how many failed
  constraint takes_some  check (calls_at_once > 0),
  constraint found_some_time check ((calls_at_once is null) = (found_at is null)),
  constraint rises_not_negative check (failed_rises >= 0)
) strict;

CREATE TABLE shared_rates (
  server           text    primary key,            -- a hash of its URL
  updated_at       integer not null,
  requests         real    not null,
  tokens           real    not null,
  paused_until     integer not null,               -- the server has asked to wait until then
  ceiling_per_s    real,                           -- calls that the server takes; null: no 429 yet
  cut_share        real    not null,               -- how far below it the last cut set the rate
  limited_s        real    not null,               -- how long the rate has held calls back since then
  cut_at           integer not null,
  cut_effective_at integer not null,               -- until then calls went out that did not know of it
  taken_since_cut  integer not null,               -- calls since then that were not refused
  tested_share     real    not null,               -- of refusals that may be strays; 0: no test
  stray_share          real not null,              -- of all calls, refused whatever the rate is
  stray_known_calls    real not null,              -- that have shown it
  stray_recent_calls   real not null,              -- the newest, of which the next were refused
  stray_recent_refused real not null,
  constraint ceiling_positive check (ceiling_per_s > 0),
  constraint never_shrinks    check (limited_s >= 0 and taken_since_cut >= 0),
  constraint strays_are_a_share  check (stray_share >= 0 and stray_share < 1
                                        and tested_share >= 0 and tested_share < 1),
  constraint calls_not_negative  check (stray_known_calls >= 0 and stray_recent_calls >= 0
                                        and stray_recent_refused >= 0)
) strict, without rowid;

CREATE TABLE shares (
  server    text    not null,                      -- a hash of its URL
  worker_id integer not null references workers (id) on delete cascade,
  share     integer not null,
  held      integer not null,
  needs     integer not null,                      -- so many it could use
  served_at integer not null,                      -- when the server last answered it, about; 0: never
  primary key (server, worker_id),
  constraint holds_its_share check (share >= 0 and held >= share),
  constraint needs_not_negative check (needs >= 0)
) strict, without rowid;

CREATE TABLE sole_askers (
  server    text    primary key,
  worker_id integer not null,
  asks_from integer not null                       -- when it took the place of one that has gone
) strict;

CREATE TABLE step_counters (
  experiment_id integer primary key,
  ended         integer not null default 0,
  passed_over   integer not null default 0,
  constraint not_negative check (ended >= 0 and passed_over >= 0)
) strict;

CREATE TABLE suspects (
  item_id       integer primary key references items (id) on delete cascade,
  experiment_id integer not null,
  recipe_id     integer not null references recipes (id),
  server        text    not null,
  alike         text    not null,                  -- by what it is compared with the others
  probe         integer not null,                  -- 1: its call was a probe
  attempt_seq   integer,
  reason        text,                              -- of its failure; null: it is to be asked again
  error         text    not null,
  available_at  integer,                           -- then from this time on
  sent_at       integer not null,                  -- its call
  ended_at      integer not null,
  halt          text,                              -- why no request would work, if it says so
  constraint probe_or_not    check (probe in (0, 1)),
  constraint fails_or_waits  check ((reason is null) = (available_at is not null))
) strict;

CREATE TABLE totals (
  experiment_id     integer primary key,
  calls             integer not null default 0,
  unknown_calls     integer not null default 0,    -- sent, answer unknown
  latency_ms        integer not null default 0,
  prompt_tokens     integer not null default 0,
  completion_tokens integer not null default 0,
  cached_tokens     integer not null default 0,
  reasoning_tokens  integer not null default 0,
  unknown_tokens    integer not null default 0,    -- the most that unknown calls can have used
  cost_usd          real    not null default 0,
  retried           integer not null default 0     -- calls after which their item was asked again
) strict;

CREATE TABLE variants (
  experiment_id integer not null references experiments (id) on delete cascade,
  number        integer not null,
  recipe_id     integer not null references recipes (id),
  added_at      integer not null,                  -- when it got this recipe
  primary key (experiment_id, number),
  constraint number_from_one check (number >= 1)
) strict, without rowid;

CREATE TABLE work (
  item_id        integer primary key references items (id) on delete cascade,
  experiment_id  integer not null,
  state          text    not null default 'pending',
  priority       integer not null default 0,       -- higher is claimed first
  available_at   integer,                          -- a retry: not before this; null: at once
  epoch          integer not null default 0,       -- fencing token: +1 at every claim and reset
  worker_id      integer,
  second_call    integer not null default 0,       -- 1: a second call is under way beside the first
  tries          integer not null default 0,       -- those used up
  crashes        integer not null default 0,       -- times its worker died
  parse_failures integer not null default 0,
  selection      integer,                          -- selections.id: a run that is about chosen items
  answer_seq     integer,                          -- attempts.seq: an answer not parsed yet
  result_seq     integer,                          -- results.seq: how it ended
  gathering      integer,                          -- items.id, at the root of those that are gathered with it
  outdated       integer not null default 0,       -- 1: what it was made of is being replaced; 2: it has been
  runs_code      integer not null default 0,       -- 1: as its experiment
  constraint state_known           check (state = 'pending' or state = 'running' or state = 'done'
                                          or state = 'failed' or state = 'stale'),
  constraint claimed_iff_running   check ((state = 'running') = (worker_id is not null)),
  constraint finished_iff_terminal check (state = 'stale'
                                          or (state in ('done', 'failed')) = (result_seq is not null)),
  constraint waits_only_if_pending check (available_at is null or state = 'pending'),
  constraint two_calls_at_most     check (second_call = 0 or (second_call = 1 and state = 'running')),
  constraint counts_not_negative   check (tries >= 0 and crashes >= 0 and parse_failures >= 0),
  constraint outdated_runs         check (outdated = 0 or (outdated in (1, 2) and state = 'running')),
  constraint code_or_call          check (runs_code in (0, 1))
) strict;

CREATE TABLE workers (
  id                  integer primary key autoincrement,
  host                text    not null,            -- a name for people
  boot_id             text    not null,            -- tells machines apart: OS locks count on one only
  pid                 integer not null,
  started_at          integer not null,
  lease_until         integer not null,
  servers             text    not null default '[]', -- JSON: the keys of those that it asks
  slots               integer not null,            -- an order, as the next ones
  paused              integer not null default 0,
  rpm                 integer,                     -- requests a minute; 0: no limit, as in the next
  tpm                 integer,                     -- tokens a minute
  stop                text,                        -- drain: finish the calls under way; now: do not
  report              text, kind text not null default 'caller'
  constraint kind_known check (kind in ('caller', 'sender', 'batch')),                        -- JSON: what the worker tells of itself
  constraint paused_or_not         check (paused in (0, 1)),
  constraint requests_not_negative check (rpm >= 0),
  constraint tokens_not_negative   check (tpm >= 0),
  constraint stop_known            check (stop in ('drain', 'now')),
  constraint report_is_json        check (report is null or json_valid(report)),
  constraint servers_are_a_list    check (json_type(servers) = 'array')
) strict;

CREATE INDEX attempts_by_item on attempts (item_id);

CREATE INDEX attempts_unknown on attempts (seq) where outcome = 'unknown';

CREATE VIEW batches as
select b.id as number, b.worker_id, b.experiment_id, b.recipe_id, b.server, b.base_url, b.endpoint,
       b.model, b.token, b.state, b.requests, b.settled, b.bytes, b.tokens, b.reserved_tokens,
       b.reserved_cost_usd, b.input_file, b.sealed_at, b.batch_id, b.output_file, b.error_file,
       b.status, b.answered, b.failed, b.error, b.created_at, b.expires_at, b.ended_at, b.closed_at,
       b.files_gone, b.absent, e.name as experiment
  from provider_batches b join experiments e on e.id = b.experiment_id;

CREATE INDEX calls_ahead_of_worker on calls_ahead (worker_id);

CREATE UNIQUE INDEX experiments_by_step on experiments (first_id, number) where first_id is not null;

CREATE INDEX experiments_gathered on experiments (gathered_by) where gathered_by is not null;

CREATE VIEW item_overview as
select e.name as experiment, i.id, i.custom_id, i.sample, w.state, r.reason, r.error, w.tries,
       i.input, a.response,
       case when w.state = 'done' then coalesce(r.parsed, a.vector, json_quote(a.response)) end as parsed,
       a.model, a.finish_reason, a.prompt_tokens, a.completion_tokens, a.cost_usd, a.latency_ms,
       r.finished_at
  from work w
  join items i on i.id = w.item_id
  join experiments e on e.id = w.experiment_id
  left join result_values r on r.seq = w.result_seq
  left join attempts a on a.seq = coalesce(r.attempt_seq, w.answer_seq);

CREATE VIEW item_results as
select w.item_id as id, i.custom_id, i.input, json_quote(a.response) as response,
       coalesce(r.parsed, a.vector) as parsed,
       -- Of one path SQLite makes a value of its own: another number, or no true; of two a list, in
       -- which each stands as it was given. An item is no list, so the second is null.
       iif(instr(i.input, '"metadata"'),
           substr(json_extract(i.input, '$.metadata', '$[0]'), 2,
                  length(json_extract(i.input, '$.metadata', '$[0]')) - length('[,null]')), null)
       as metadata,
       a.model, a.finish_reason, a.prompt_tokens, a.completion_tokens, a.cached_tokens,
       a.reasoning_tokens,
       -- Of all its calls that came to an end; most items had one.
       iif(w.epoch = 1, a.cost_usd, (select sum(cost_usd) from attempts
                                      where item_id = w.item_id and outcome <> 'unknown'))
       as cost_usd,
       w.tries, r.finished_at, i.sample, r.reason, r.error, w.experiment_id, w.state, w.result_seq,
       i.variant
  from work w
  cross join result_values r on r.seq = w.result_seq
  left join attempts a on a.seq = r.attempt_seq
  cross join items i on i.id = w.item_id
 where w.state <> 'stale';

CREATE INDEX items_by_sample on items (sample_of, sample) where sample_of is not null;

CREATE UNIQUE INDEX items_children on items (parent_id, experiment_id, element)
  where parent_id is not null;

CREATE INDEX provider_batches_of_recipe on provider_batches (experiment_id, recipe_id);

CREATE INDEX provider_batches_unclosed on provider_batches (id) where state <> 'closed';

CREATE INDEX provider_batches_with_files on provider_batches (id)
  where state = 'closed' and files_gone = 0;

CREATE VIEW result_values as
select r.seq, r.item_id, r.attempt_seq, r.state, r.reason, r.error, r.parser_id, r.reparsed,
       r.finished_at, r.children, r.passed_on,
       case when r.spans is null then r.parsed
            else (select '[' || group_concat(json_quote(substr(a.response,
                           json_extract(span.value, '$[0]'), json_extract(span.value, '$[1]'))),
                           ', ') || ']'
                    from json_each(r.spans) span, attempts a where a.seq = r.attempt_seq) end
       as parsed
  from results r;

CREATE INDEX results_of_item on results (item_id);

CREATE INDEX shares_of_worker on shares (worker_id);

CREATE INDEX work_claimed  on work (worker_id)              where state = 'running';

CREATE INDEX work_crashed  on work (experiment_id, item_id)
  where state = 'pending' and crashes > 0 and (answer_seq is not null or runs_code = 1);

CREATE INDEX work_failed   on work (experiment_id, item_id) where state = 'failed';

CREATE INDEX work_fresh    on work (experiment_id, priority desc, item_id)
  where state = 'pending' and available_at is null
    and (crashes = 0 or (answer_seq is null and runs_code = 0));

CREATE INDEX work_gathering on work (gathering)
  where gathering is not null and state in ('pending', 'running');

CREATE INDEX work_selected on work (selection, experiment_id, state, available_at, priority desc,
                                    item_id)
  where selection is not null;

CREATE INDEX work_stale    on work (experiment_id, item_id) where state = 'stale';

CREATE INDEX work_waiting  on work (experiment_id, available_at, item_id)
  where state = 'pending' and available_at is not null;

