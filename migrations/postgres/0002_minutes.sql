-- What was done in each minute, for plots: as in migrations/sqlite, whose comments say what the columns
-- mean. It is counted by each worker for itself, as the counters are, and the view is the sum.

-- Two JSON objects of numbers, added up by their names, in which nothing is to be escaped.
create function add_up(counted text, more text) returns text
language plpgsql immutable strict parallel safe as $$
begin
  if more = '{}' then
    return counted;
  elsif counted = '{}' then
    return more;
  end if;
  return (select '{' || string_agg('"' || key || '":' || n, ',') || '}'
            from (select key, sum(value::bigint)::text as n
                    from (select * from json_each_text(counted::json)
                          union all
                          select * from json_each_text(more::json)) each_one
                   group by key) added);
end $$;

create aggregate added_up(text) (sfunc = add_up, stype = text, initcond = '{}');

-- Where a latency or a length is counted.
create function bucket(n bigint) returns integer
language sql immutable strict parallel safe as $$
  select floor(ln(greatest(n, 1)::double precision) / ln(1.1::double precision))::integer
$$;

create table minutes_by_worker (
  experiment_id     bigint not null,
  minute            bigint not null,
  worker_id         bigint not null default 0,
  done              bigint not null default 0,
  failed            bigint not null default 0,
  calls             bigint not null default 0,
  latency_ms        bigint not null default 0,
  prompt_tokens     bigint not null default 0,
  completion_tokens bigint not null default 0,
  cached_tokens     bigint not null default 0,
  reasoning_tokens  bigint not null default 0,
  cost_usd          double precision not null default 0,
  latencies         text   not null default '{}',
  lengths           text   not null default '{}',
  reasons           text   not null default '{}',
  slowest           bigint,
  slowest_ms        bigint,
  primary key (experiment_id, minute, worker_id),
  constraint not_negative   check (done >= 0 and failed >= 0 and calls >= 0 and latency_ms >= 0),
  constraint slowest_took_some check ((slowest is null) = (slowest_ms is null))
) with (fillfactor = 50);

create index minutes_of_workers on minutes_by_worker (worker_id) where worker_id <> 0;

create view minutes as
select experiment_id, minute, sum(done)::bigint as done, sum(failed)::bigint as failed,
       sum(calls)::bigint as calls, sum(latency_ms)::bigint as latency_ms,
       sum(prompt_tokens)::bigint as prompt_tokens,
       sum(completion_tokens)::bigint as completion_tokens,
       sum(cached_tokens)::bigint as cached_tokens,
       sum(reasoning_tokens)::bigint as reasoning_tokens, sum(cost_usd) as cost_usd,
       added_up(latencies) as latencies, added_up(lengths) as lengths,
       added_up(reasons) as reasons,
       (array_agg(slowest order by slowest_ms desc nulls last, slowest))[1] as slowest,
       max(slowest_ms) as slowest_ms
  from minutes_by_worker group by experiment_id, minute;

-- What a worker has counted that has gone is nobody's. Of one that was taken for dead, and counts on,
-- some stays its own: the sum is the same.
create function take_over_minutes() returns trigger language plpgsql as $$
begin
  with gone as (
    delete from minutes_by_worker m using gone_workers w where m.worker_id = w.id returning m.*)
  insert into minutes_by_worker as m (experiment_id, minute, done, failed, calls, latency_ms,
    prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, cost_usd, latencies, lengths,
    reasons, slowest, slowest_ms)
  select experiment_id, minute, sum(done), sum(failed), sum(calls), sum(latency_ms),
         sum(prompt_tokens), sum(completion_tokens), sum(cached_tokens), sum(reasoning_tokens),
         sum(cost_usd), added_up(latencies), added_up(lengths), added_up(reasons),
         (array_agg(slowest order by slowest_ms desc nulls last, slowest))[1], max(slowest_ms)
    from gone group by experiment_id, minute
  on conflict (experiment_id, minute, worker_id) do update
     set done = m.done + excluded.done, failed = m.failed + excluded.failed,
         calls = m.calls + excluded.calls, latency_ms = m.latency_ms + excluded.latency_ms,
         prompt_tokens = m.prompt_tokens + excluded.prompt_tokens,
         completion_tokens = m.completion_tokens + excluded.completion_tokens,
         cached_tokens = m.cached_tokens + excluded.cached_tokens,
         reasoning_tokens = m.reasoning_tokens + excluded.reasoning_tokens,
         cost_usd = m.cost_usd + excluded.cost_usd,
         latencies = add_up(m.latencies, excluded.latencies),
         lengths = add_up(m.lengths, excluded.lengths),
         reasons = add_up(m.reasons, excluded.reasons),
         slowest = case when excluded.slowest_ms > coalesce(m.slowest_ms, -1) then excluded.slowest
                        else m.slowest end,
         slowest_ms = greatest(m.slowest_ms, excluded.slowest_ms);
  return null;
end $$;

create trigger minutes_of_gone after delete on workers
  referencing old table as gone_workers for each statement execute function take_over_minutes();

-- Of a database that had more than 200,000 calls when this table was made, up to which calls and
-- results minute 0 has them. Of all others there is no row.
create table before_minutes (
  attempt_seq bigint primary key,
  result_seq  bigint not null
);

insert into before_minutes (attempt_seq, result_seq)
select seq, coalesce((select max(r.seq) from results r), 0)
  from (select max(seq) as seq from attempts) newest where seq > 200000;

insert into minutes_by_worker (experiment_id, minute, done, failed, calls, latency_ms, prompt_tokens,
  completion_tokens, cached_tokens, reasoning_tokens, cost_usd, reasons)
select t.experiment_id, 0,
       coalesce((select sum(n) from counters c where c.experiment_id = t.experiment_id
                    and c.state = 'done'), 0),
       coalesce((select sum(n) from counters c where c.experiment_id = t.experiment_id
                    and c.state = 'failed'), 0),
       t.calls - t.unknown_calls, t.latency_ms, t.prompt_tokens, t.completion_tokens,
       t.cached_tokens, t.reasoning_tokens, t.cost_usd,
       coalesce((select '{' || string_agg('"' || reason || '":' || n, ',') || '}'
                   from (select reason, sum(f.n)::text as n from failed_calls f
                          where f.experiment_id = t.experiment_id group by reason) why), '{}')
  from totals t where exists (select from before_minutes);

insert into minutes_by_worker (experiment_id, minute, done, failed, calls, latency_ms, prompt_tokens,
  completion_tokens, cached_tokens, reasoning_tokens, cost_usd, latencies, lengths, reasons, slowest,
  slowest_ms)
with known as materialized (
  select i.experiment_id, a.finished_at / 60000 as minute, a.seq, a.outcome, a.reason, a.latency_ms,
         a.prompt_tokens, a.completion_tokens, a.cached_tokens, a.reasoning_tokens, a.cost_usd,
         case when a.outcome = 'answered' then bucket(a.latency_ms) end as latency,
         case when a.response <> '' then bucket(length(a.response)) end as length
    from attempts a join items i on i.id = a.item_id
   where not exists (select from before_minutes)),
used as (
  select experiment_id, minute, count(*) filter (where outcome <> 'unknown') as calls,
         sum(latency_ms) as latency_ms, sum(prompt_tokens) as prompt_tokens,
         sum(completion_tokens) as completion_tokens, sum(cached_tokens) as cached_tokens,
         sum(reasoning_tokens) as reasoning_tokens, sum(cost_usd) as cost_usd,
         (array_agg(seq order by latency_ms desc, seq) filter (where latency_ms is not null))[1]
         as slowest,
         max(latency_ms) as slowest_ms
    from known group by 1, 2),
ends as (
  select i.experiment_id, r.finished_at / 60000 as minute,
         count(*) filter (where r.state = 'done') as done,
         count(*) filter (where r.state = 'failed') as failed
    from results r join items i on i.id = r.item_id
   where r.reparsed = 0 and not exists (select from before_minutes) group by 1, 2),
latencies as (
  select experiment_id, minute, '{' || string_agg('"' || latency || '":' || n, ',') || '}' as buckets
    from (select experiment_id, minute, latency, count(*) as n from known
           where latency is not null group by 1, 2, 3) one
   group by 1, 2),
lengths as (
  select experiment_id, minute, '{' || string_agg('"' || length || '":' || n, ',') || '}' as buckets
    from (select experiment_id, minute, length, count(*) as n from known
           where length is not null group by 1, 2, 3) one
   group by 1, 2),
reasons as (
  select experiment_id, minute, '{' || string_agg('"' || reason || '":' || n, ',') || '}' as reasons
    from (select experiment_id, minute, reason, count(*) as n from known
           where reason is not null group by 1, 2, 3) one
   group by 1, 2)
select experiment_id, minute, coalesce(e.done, 0), coalesce(e.failed, 0), coalesce(u.calls, 0),
       coalesce(u.latency_ms, 0), coalesce(u.prompt_tokens, 0), coalesce(u.completion_tokens, 0),
       coalesce(u.cached_tokens, 0), coalesce(u.reasoning_tokens, 0), coalesce(u.cost_usd, 0),
       coalesce(l.buckets, '{}'), coalesce(n.buckets, '{}'), coalesce(r.reasons, '{}'), u.slowest,
       u.slowest_ms
  from used u
  full join ends e using (experiment_id, minute)
  left join latencies l using (experiment_id, minute)
  left join lengths n using (experiment_id, minute)
  left join reasons r using (experiment_id, minute);
