-- What was done in each minute, for plots: kept as the counters are, by whoever writes calls and
-- results, in the transaction that does; `batchgen verify` counts again. A percentile of latencies that
-- were counted so adds up over minutes and workers, which one that was worked out does not.

create table minutes (
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

-- Of a database that had more than 200,000 calls when this table was made, up to which calls and
-- results minute 0 has them, as to read them all would take long. Of all others there is no row.
create table before_minutes (
  attempt_seq integer primary key,                 -- attempts.seq
  result_seq  integer not null                     -- results.seq
) strict;

insert into before_minutes (attempt_seq, result_seq)
select seq, coalesce((select max(seq) from results), 0)
  from (select max(seq) as seq from attempts) where seq > 200000;

insert into minutes (experiment_id, minute, done, failed, calls, latency_ms, prompt_tokens,
  completion_tokens, cached_tokens, reasoning_tokens, cost_usd, reasons)
select t.experiment_id, 0,
       coalesce((select n from counters c where c.experiment_id = t.experiment_id
                    and c.state = 'done'), 0),
       coalesce((select sum(n) from counters c where c.experiment_id = t.experiment_id
                    and c.state = 'failed'), 0),
       t.calls - t.unknown_calls, t.latency_ms, t.prompt_tokens, t.completion_tokens,
       t.cached_tokens, t.reasoning_tokens, t.cost_usd,
       (select json_group_object(reason, n)
          from (select reason, sum(n) as n from failed_calls f
                 where f.experiment_id = t.experiment_id group by reason))
  from totals t where exists (select 1 from before_minutes);

-- `bucket` and `chars` are functions of the program: SQLite need not have logarithms, and takes a text
-- to end at its first U+0000.
insert into minutes (experiment_id, minute, done, failed, calls, latency_ms, prompt_tokens,
  completion_tokens, cached_tokens, reasoning_tokens, cost_usd, latencies, lengths, reasons, slowest,
  slowest_ms)
with known as materialized (
  select i.experiment_id, a.finished_at / 60000 as minute, a.seq, a.outcome, a.reason, a.latency_ms,
         a.prompt_tokens, a.completion_tokens, a.cached_tokens, a.reasoning_tokens, a.cost_usd,
         iif(a.outcome = 'answered', bucket(a.latency_ms), null) as latency,
         iif(a.response <> '', bucket(chars(a.response)), null) as length
    from attempts a cross join items i on i.id = a.item_id
   where not exists (select 1 from before_minutes)),
used as (
  select experiment_id, minute, sum(outcome <> 'unknown') as calls, sum(latency_ms) as latency_ms,
         sum(prompt_tokens) as prompt_tokens, sum(completion_tokens) as completion_tokens,
         sum(cached_tokens) as cached_tokens, sum(reasoning_tokens) as reasoning_tokens,
         sum(cost_usd) as cost_usd
    from known group by 1, 2),
ends as (
  select i.experiment_id, r.finished_at / 60000 as minute, sum(r.state = 'done') as done,
         sum(r.state = 'failed') as failed
    from results r cross join items i on i.id = r.item_id
   where r.reparsed = 0 and not exists (select 1 from before_minutes) group by 1, 2),
latencies as (
  select experiment_id, minute, json_group_object(cast(latency as text), n) as buckets
    from (select experiment_id, minute, latency, count(*) as n from known
           where latency is not null group by 1, 2, 3)
   group by 1, 2),
lengths as (
  select experiment_id, minute, json_group_object(cast(length as text), n) as buckets
    from (select experiment_id, minute, length, count(*) as n from known
           where length is not null group by 1, 2, 3)
   group by 1, 2),
reasons as (
  select experiment_id, minute, json_group_object(reason, n) as reasons
    from (select experiment_id, minute, reason, count(*) as n from known
           where reason is not null group by 1, 2, 3)
   group by 1, 2),
slowest as (
  select experiment_id, minute, seq, max(latency_ms) as latency_ms from known
   where latency_ms is not null group by 1, 2)
select w.experiment_id, w.minute, coalesce(e.done, 0), coalesce(e.failed, 0), coalesce(u.calls, 0),
       coalesce(u.latency_ms, 0), coalesce(u.prompt_tokens, 0), coalesce(u.completion_tokens, 0),
       coalesce(u.cached_tokens, 0), coalesce(u.reasoning_tokens, 0), coalesce(u.cost_usd, 0.0),
       coalesce(l.buckets, '{}'), coalesce(n.buckets, '{}'), coalesce(r.reasons, '{}'), s.seq,
       s.latency_ms
  from (select experiment_id, minute from used union select experiment_id, minute from ends) w
  left join used u using (experiment_id, minute)
  left join ends e using (experiment_id, minute)
  left join latencies l using (experiment_id, minute)
  left join lengths n using (experiment_id, minute)
  left join reasons r using (experiment_id, minute)
  left join slowest s using (experiment_id, minute);
