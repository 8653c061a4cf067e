-- What PostgreSQL spells its own way, by name; what all engines take as it is stands in
-- transactions/common.sql, whose order this has. A statement that is run for many rows has them as
-- `:rows`. Lists are arrays, by `numbers`, never joined as JSON: see migrations/postgres.
-- States are literals so that the partial indexes apply; time is always a parameter.

------------------------------------------------------------------------------- enqueueing

-- name: rows_to_ask
-- Those of a variant that are asked with another recipe, by `:choice`. not_done: the ones without an
-- answer, also one that waits for its parser; all: but those that are done with it; other: those
-- that have another one, when the variant has it already, and not by a retry with other parameters.
-- `:ids`: of these rows alone. Of whole tables.
select w.state, coalesce(r.reason, '') as reason, r.parser_id, count(*) as n, r.children,
       r.passed_over
  from work w
  join items i on i.id = w.item_id and i.variant = :number
  left join results r on r.seq = w.result_seq
 where w.experiment_id = :experiment_id
   and w.state <> 'stale'
   and case :choice when 'not_done' then w.state <> 'done' and w.answer_seq is null
                    when 'all' then w.state <> 'done' or i.recipe_id <> :recipe_id
                    else :recipe_id not in (i.recipe_id, coalesce(i.base_recipe_id, 0)) end
   and (:ids::text is null or w.item_id = any(numbers(:ids)))
 group by w.state, r.reason, r.parser_id, r.children, r.passed_over;

-- name: ask_rows
-- The same, back to pending with all tries. Before they get their recipe.
update work
   set state = 'pending', available_at = null, epoch = epoch + 1, tries = 0, crashes = 0,
       parse_failures = 0, answer_seq = null, result_seq = null
 where experiment_id = :experiment_id and state <> 'running'
   and item_id in (
     select w.item_id from work w join items i on i.id = w.item_id and i.variant = :number
      where w.experiment_id = :experiment_id
        and w.state <> 'stale'
        and case :choice when 'not_done' then w.state <> 'done' and w.answer_seq is null
                         when 'all' then w.state <> 'done' or i.recipe_id <> :recipe_id
                         else :recipe_id not in (i.recipe_id, coalesce(i.base_recipe_id, 0)) end
        and (:ids::text is null or w.item_id = any(numbers(:ids))));

-- name: give_recipe
-- They are pending now, without an answer.
update items set recipe_id = :recipe_id, base_recipe_id = null
 where variant = :number and (:choice <> 'other' or base_recipe_id is distinct from :recipe_id)
   and id in (select item_id from work
               where experiment_id = :experiment_id and state = 'pending' and answer_seq is null);

-- name: changed_inputs
-- The places of those whose text is another; `pairs` has for each its item and the span of its text,
-- `texts` and spans are as packed.py makes them.
with given as materialized (select translate(:pairs, '[]', '{}')::bigint[] as pairs)
select coalesce(json_agg(place), '[]')
  from given, generate_series(0, cardinality(pairs) / 2 - 1) place
  join lateral (select input from items where id = pairs[place + 1][1] offset 0) i on true
 where i.input <> convert_from(substr(:texts::bytea, (pairs[place + 1][2] >> 32)::integer,
                                      (pairs[place + 1][2] & 4294967295)::integer), 'UTF8');

-- name: move_counter
-- In the worker's own row. A row for each that moves.
insert into counters_by_worker as c (experiment_id, state, reason, worker_id, n)
select r.experiment_id, r.state, r.reason, :this_worker::bigint, r.delta
  from json_to_recordset(:rows::json)
    as r (experiment_id bigint, state text, reason text, delta bigint)
on conflict (experiment_id, state, reason, worker_id) do update set n = c.n + excluded.n;

-- name: move_parser_counter
insert into parser_counters_by_worker as c (experiment_id, parser_id, worker_id, n)
select r.experiment_id, r.parser_id, :this_worker::bigint, r.delta
  from json_to_recordset(:rows::json) as r (experiment_id bigint, parser_id bigint, delta bigint)
on conflict (experiment_id, parser_id, worker_id) do update set n = c.n + excluded.n;

------------------------------------------------------------------------------- chains

-- name: chain
select f.id, f.plan_id, p.body, f.followed_plan_id is not distinct from f.plan_id
  from experiments e
  join experiments f on f.id = coalesce(e.first_id, e.id)
  join plans p on p.id = f.plan_id
 where e.id = :experiment_id;

-- name: set_plan
-- Where nothing is there yet, nothing is to be followed. By another plan lines of files are others.
update experiments
   set superseded_results = superseded_results + coalesce((plan_id <> :plan_id)::integer, 0),
       step = :step, runs_code = :runs_code, plan_id = :plan_id,
       followed_plan_id = case when :is_followed::bigint = 1 then :plan_id
                               else followed_plan_id end
 where id = :first_id;

-- name: rows_to_stale
-- Those of a step of which the parent is not done any more, or whose gathering is not complete.
select w.state, coalesce(r.reason, '') as reason, r.parser_id, count(*) as n, r.children,
       r.passed_over
  from work w
  join items i on i.id = w.item_id
  join lateral (select state from work where item_id = i.parent_id offset 0) p on true
  left join results r on r.seq = w.result_seq
 where w.experiment_id = :experiment_id and w.state <> 'stale'
   and case when i.gathered is null then p.state <> 'done' else is_open(i.parent_id) end
 group by w.state, r.reason, r.parser_id, r.children, r.passed_over;

-- name: stale_rows
-- The same. One that runs ends so.
update work
   set state = case when state = 'running' then state else 'stale' end,
       outdated = case when state = 'running' then greatest(outdated, 1) else 0 end,
       available_at = null, epoch = epoch + (state <> 'running')::integer
 where item_id = any(array(
   select w.item_id
     from work w
     join items i on i.id = w.item_id
     join lateral (select state from work where item_id = i.parent_id offset 0) p on true
    where w.experiment_id = :experiment_id and w.state <> 'stale'
      and case when i.gathered is null then p.state <> 'done' else is_open(i.parent_id) end));

-- name: rows_to_follow
-- Done rows of a step, in the order of their numbers.
select w.item_id, w.experiment_id, e.number, i.custom_id, i.input as input_json, w.result_seq,
       coalesce(r.parsed, a.vector) as parsed_json, a.response
  from work w
  join experiments e on e.id = w.experiment_id
  join result_values r on r.seq = w.result_seq
  join items i on i.id = w.item_id
  left join attempts a on a.seq = r.attempt_seq
 where w.item_id > :after and w.experiment_id = :experiment_id and w.state = 'done'
 order by w.item_id limit :limit;

-- name: gatherings_without_row
-- Of whole tables.
select distinct w.gathering as root
  from work w join items root on root.id = w.gathering
 where w.gathering is not null
   and (:ids::text is null or w.experiment_id = any(numbers(:ids)))
   and not is_open(w.gathering)
   and not exists (select 1 from items g
                    where g.parent_id = w.gathering and g.gathered is not null)
 limit :limit;

-- name: stale_page
select item_id from work
 where state = 'stale' and experiment_id = :experiment_id and item_id > :after
 order by item_id limit :limit;

-- name: parents_done
-- Of rows, those whose parent is done with the result that they are to be made of; and of those that
-- gather, where nothing is open any more.
select i.id
  from unnest(numbers(:ids)) with ordinality chosen (value, place)
  join items i on i.id = chosen.value
  join lateral (select state, result_seq from work where item_id = i.parent_id offset 0) p on true
 where case when i.gathered is null
            then p.state = 'done' and p.result_seq is not distinct from i.parent_result
            else i.gathered <> '[]' and not is_open(i.parent_id) end
 order by chosen.place;

-- name: unmade
-- Of rows, those that are made of nothing more, or of such.
with recursive up (row, parent_id, is_unmade) as (
  select i.id, i.parent_id,
         i.parent_id is not null and i.parent_result is null and i.gathered is null
    from items i where i.id = any(numbers(:ids))
  union all
  select up.row, i.parent_id, i.is_unmade
    from up
    join lateral (
      select parent_id, parent_id is not null and parent_result is null and gathered is null
             as is_unmade
        from items where id = up.parent_id offset 0) i on true)
select distinct up.row from up where is_unmade;

-- name: count_unmade
-- Of the first stale rows of an experiment.
with recursive stale (id) as (
  select item_id from work
   where state = 'stale' and experiment_id = :experiment_id order by item_id limit :limit),
up (row, parent_id, is_unmade) as (
  select i.id, i.parent_id, i.is_unmade
    from stale
    join lateral (
      select id, parent_id, parent_id is not null and parent_result is null and gathered is null
             as is_unmade
        from items where id = stale.id offset 0) i on true
  union all
  select up.row, i.parent_id, i.is_unmade
    from up
    join lateral (
      select parent_id, parent_id is not null and parent_result is null and gathered is null
             as is_unmade
        from items where id = up.parent_id offset 0) i on true)
select count(distinct up.row) from up where is_unmade;

-- name: stale_to_ask
-- Of experiments (null: of all), those with stale rows that are not `unmade`.
select e.id from experiments e
 where (:ids::text is null or e.id = any(numbers(:ids)))
   and exists (
     select 1 from work w
      where w.state = 'stale' and w.experiment_id = e.id
        and not exists (
          with recursive up (parent_id, is_unmade) as (
            select i.parent_id,
                   i.parent_id is not null and i.parent_result is null and i.gathered is null
              from items i where i.id = w.item_id
            union all
            select i.parent_id, i.is_unmade
              from up
              join lateral (
                select parent_id, parent_id is not null and parent_result is null
                       and gathered is null as is_unmade
                  from items where id = up.parent_id offset 0) i on true)
          select 1 from up where is_unmade));

-- name: give_present_recipe
-- To those that are asked anew, unless a retry has changed the present one for it.
with given as materialized (
  select * from json_to_recordset(:rows::json) as r (item_id bigint))
update items i set recipe_id = v.recipe_id, base_recipe_id = null
  from variants v
 where i.id = any(array(select item_id from given))
   and v.experiment_id = i.experiment_id and v.number = i.variant
   and i.base_recipe_id is distinct from v.recipe_id;

-- name: forget_ended
-- Its chains go on.
update step_counters_by_worker set ended = 0 where experiment_id = :experiment_id;

------------------------------------------------------------------------------- chosen items

-- name: with_rows_below
-- Items, and all that was made of them.
with recursive below (id) as (
  select unnest(numbers(:ids))
  union all
  select i.id
    from below b
    join lateral (select id from items where parent_id = b.id offset 0) i on true)
select coalesce(json_agg(id), '[]')::text from below;

-- name: count_chosen
-- The chosen items by state.
select w.state, count(*)
  from unnest(numbers(:ids)) chosen (value) join work w on w.item_id = chosen.value
 group by w.state;

-- name: count_chosen_ended
-- Of chosen rows, those at which a chain has ended.
select count(*)
  from unnest(numbers(:ids)) chosen (value)
  join work w on w.item_id = chosen.value and w.state = 'done'
  join experiments e on e.id = w.experiment_id and e.gathered_by is null
  join results r on r.seq = w.result_seq and r.children = 0;

-- name: count_selected_ended
-- The same of those of a selection that were open, by a look at each that is done.
select count(*)
  from work w
  join experiments e on e.id = w.experiment_id and e.gathered_by is null
  join lateral (select children from results where seq = w.result_seq offset 0) r
       on r.children = 0
 where w.selection = :selection and w.state = 'done';

-- name: select_open
update work set selection = :selection
 where item_id = any(numbers(:ids)) and state in ('pending', 'running');

-- name: selection_counts
-- A scan of the index over the selection.
select state, count(*) as n from work
 where selection = :selection group by state
union all
select 'done', done_before from selections where id = :selection
union all
select 'failed', failed_before from selections where id = :selection;

------------------------------------------------------------------------------- workers

-- name: change_orders
-- Null leaves a thing as it is. A stop is never taken back, and only becomes more urgent.
update workers
   set slots = coalesce(:slots, slots), paused = coalesce(:paused, paused),
       rpm = coalesce(:rpm, rpm), tpm = coalesce(:tpm, tpm),
       stop = case when stop = 'now' then stop else coalesce(:stop, stop) end
 where id = :worker_id;

-- name: workers
-- Those with a process. `calls`: those that may be in flight, or may have been when the worker died.
select id, host, boot_id, pid, slots, started_at, lease_until, paused, stop, report, servers,
       kind,
       (select coalesce(sum(1 + second_call), 0) from work
         where state = 'running' and worker_id = workers.id and answer_seq is null
           and runs_code = 0 and workers.kind = 'caller') as calls
  from workers where kind <> 'batch' order by id;

-- name: write_share
insert into shares (server, worker_id, share, held, needs, served_at)
select server, worker_id, share, held, needs, served_at
  from json_to_recordset(:rows::json)
    as r (server text, worker_id bigint, share bigint, held bigint, needs bigint,
          served_at bigint)
on conflict (server, worker_id) do update
   set share = excluded.share, held = excluded.held, needs = excluded.needs,
       served_at = excluded.served_at;

-- name: claims_of_worker
select w.item_id, w.experiment_id, w.epoch, w.answer_seq, e.parser_id, w.gathering, w.crashes,
       w.second_call, w.outdated, w.runs_code
  from work w
  join experiments e on e.id = w.experiment_id
 where w.state = 'running' and w.worker_id = :worker_id;

-- name: some_claims_of_worker
-- The same of so many.
select w.item_id, w.experiment_id, w.epoch, w.answer_seq, e.parser_id, w.gathering, w.crashes,
       w.second_call, w.outdated, w.runs_code
  from work w
  join experiments e on e.id = w.experiment_id
 where w.state = 'running' and w.worker_id = :worker_id limit :limit;

-- name: take_back
-- What a dead worker was working on goes back to the others.
with given as materialized (
  select * from json_to_recordset(:rows::json) as r (item_id bigint, crashed integer))
update work w
   set state = case when w.outdated > 0 then 'stale' else 'pending' end, worker_id = null,
       epoch = w.epoch + 1, second_call = 0, crashes = w.crashes + g.crashed,
       answer_seq = case when w.outdated = 2 then null else w.answer_seq end, outdated = 0
  from given g
 where w.item_id = any(array(select item_id from given)) and w.item_id = g.item_id
   and w.worker_id is not null;

-- name: charge
-- One more try used up, whoever has the item by now.
with given as materialized (
  select item_id, count(*)::integer as n
    from json_to_recordset(:rows::json) as r (item_id bigint) group by item_id)
update work w set tries = w.tries + g.n
  from given g
 where w.item_id = any(array(select item_id from given)) and w.item_id = g.item_id;

------------------------------------------------------------------------------- provider batches

-- name: seal_claims
-- Of claims ([item, epoch]) those that a sender holds are a batch's from now on.
with given as materialized (
  select (claim ->> 0)::bigint as item_id, (claim ->> 1)::integer as epoch
    from json_array_elements(:claims::json) claim)
update work w set worker_id = :batch
  from given g
 where w.item_id = any(array(select item_id from given)) and w.item_id = g.item_id
   and w.epoch = g.epoch and w.worker_id = :sender;

-- name: held_by_batch
-- Of rows those that it holds, with the answers that wait for their parser.
select item_id, epoch, answer_seq from work
 where item_id = any(numbers(:ids)) and worker_id = :worker_id;

-- name: page_of_batch
-- The next rows that it holds.
with held as materialized (
  select item_id from work where state = 'running' and worker_id = :worker_id)
select item_id from held where item_id > :after order by item_id limit :limit;

-- name: page_of_batch_before
-- The same backwards.
with held as materialized (
  select item_id from work where state = 'running' and worker_id = :worker_id)
select item_id from held where item_id < :before order by item_id desc limit :limit;

-- name: holders_of_batches
-- Of some experiments.
select worker_id from provider_batches
 where state <> 'closed' and experiment_id = any(numbers(:experiment_ids));

------------------------------------------------------------------------------- budget

-- name: note_overuse
update experiments e set overuse = greatest(e.overuse, r.overuse)
  from json_to_recordset(:rows::json) as r (experiment_id bigint, overuse double precision)
 where e.id = r.experiment_id;

-- name: reservations_of
select r.item_id, r.epoch, r.asked, r.tokens, r.cost_usd
  from unnest(numbers(:ids)) claim (value) join reservations r on r.item_id = claim.value;

-- name: reserve
-- For claims that hold.
insert into reservations (item_id, epoch, experiment_id, worker_id, asked, tokens, cost_usd)
select item_id, epoch, experiment_id, worker_id, asked, tokens, cost_usd
  from json_to_recordset(:rows::json)
    as r (item_id bigint, epoch integer, experiment_id bigint, worker_id bigint, asked bigint,
          tokens bigint, cost_usd double precision)
on conflict (item_id) do update
   set epoch = excluded.epoch, worker_id = excluded.worker_id, asked = excluded.asked,
       tokens = excluded.tokens, cost_usd = excluded.cost_usd;

-- name: settle_reservation
delete from reservations
 using json_to_recordset(:rows::json) as r (item_id bigint, epoch integer)
 where reservations.item_id = r.item_id and reservations.epoch = r.epoch;

------------------------------------------------------------------------------- exchange: finish

-- name: claims_not_as_usual
-- Of claims ([item, epoch]) those that do not hold, as their items are not running by them; and those
-- that do, but what their items were made of is being replaced, or has been.
with given as materialized (
  select (claim ->> 0)::bigint as item_id, (claim ->> 1)::bigint as epoch
    from json_array_elements(:claims::json) claim),
running as materialized (
  select item_id, epoch, outdated from work
   where item_id = any(array(select item_id from given)) and worker_id is not null)
select g.item_id, g.epoch, case when w.epoch = g.epoch then w.outdated end
  from given g left join running w on w.item_id = g.item_id
 where w.epoch is distinct from g.epoch or w.outdated <> 0;

-- name: begin_second_calls
-- Of claims by item, with their epochs: each is about to be sent once more. Fenced as `settle`.
with given as materialized (
  select key::bigint as item_id, value::integer as epoch from json_each_text(:claims::json))
update work w set second_call = 1
  from given g
 where w.item_id = any(array(select item_id from given)) and w.item_id = g.item_id
   and w.epoch = g.epoch and w.worker_id is not null
returning w.item_id;

-- name: settle
-- The end of claims. Fenced: changes nothing of an item that was taken back meanwhile. That it runs is
-- asked by its worker: by its state, all that run would be read.
with given as materialized (
  select * from json_to_recordset(:rows::json)
    as r (item_id bigint, epoch integer, state text, available_at bigint, charged boolean,
          parse_failed boolean, answer_seq bigint, result_seq bigint))
update work w
   set state = g.state, available_at = g.available_at, worker_id = null, second_call = 0,
       outdated = 0, tries = w.tries + g.charged::integer,
       parse_failures = w.parse_failures + g.parse_failed::integer,
       answer_seq = g.answer_seq, result_seq = g.result_seq
  from given g
 where w.item_id = any(array(select item_id from given)) and w.item_id = g.item_id
   and w.epoch = g.epoch and w.worker_id is not null;

-- name: add_to_totals
insert into totals_by_worker as t (experiment_id, worker_id, calls, unknown_calls, unknown_tokens,
  latency_ms, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, cost_usd, retried)
select experiment_id, :this_worker::bigint, calls, unknown_calls, unknown_tokens, latency_ms,
       prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, cost_usd, retried
  from json_to_recordset(:rows::json)
    as r (experiment_id bigint, calls bigint, unknown_calls bigint, unknown_tokens bigint,
          latency_ms bigint, prompt_tokens bigint, completion_tokens bigint, cached_tokens bigint,
          reasoning_tokens bigint, cost_usd double precision, retried bigint)
on conflict (experiment_id, worker_id) do update
   set calls = t.calls + excluded.calls, unknown_calls = t.unknown_calls + excluded.unknown_calls,
       unknown_tokens = t.unknown_tokens + excluded.unknown_tokens,
       latency_ms = t.latency_ms + excluded.latency_ms,
       prompt_tokens = t.prompt_tokens + excluded.prompt_tokens,
       completion_tokens = t.completion_tokens + excluded.completion_tokens,
       cached_tokens = t.cached_tokens + excluded.cached_tokens,
       reasoning_tokens = t.reasoning_tokens + excluded.reasoning_tokens,
       cost_usd = t.cost_usd + excluded.cost_usd, retried = t.retried + excluded.retried;

-- name: count_steps
insert into step_counters_by_worker as c (experiment_id, worker_id, ended, passed_over)
select experiment_id, :this_worker::bigint, ended, passed_over
  from json_to_recordset(:rows::json) as r (experiment_id bigint, ended bigint, passed_over bigint)
on conflict (experiment_id, worker_id) do update
   set ended = c.ended + excluded.ended, passed_over = c.passed_over + excluded.passed_over;

-- name: add_failed_calls
insert into failed_calls_by_worker as c (experiment_id, reason, http_status, worker_id, n,
  newest_error, newest_at)
select experiment_id, reason, http_status, :this_worker::bigint, n, newest_error,
       (extract(epoch from clock_timestamp()) * 1000)::bigint
  from json_to_recordset(:rows::json)
    as r (experiment_id bigint, reason text, http_status bigint, n bigint, newest_error text)
on conflict (experiment_id, reason, http_status, worker_id) do update
   set n = c.n + excluded.n, newest_error = excluded.newest_error, newest_at = excluded.newest_at;

-- name: add_to_minutes
insert into minutes_by_worker as m (experiment_id, minute, worker_id, done, failed, calls,
  latency_ms, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, cost_usd,
  latencies, lengths, reasons, slowest, slowest_ms)
select experiment_id, minute, :this_worker::bigint, done, failed, calls, latency_ms, prompt_tokens,
       completion_tokens, cached_tokens, reasoning_tokens, cost_usd, latencies, lengths, reasons,
       slowest, slowest_ms
  from json_to_recordset(:rows::json)
    as r (experiment_id bigint, minute bigint, done bigint, failed bigint, calls bigint,
          latency_ms bigint, prompt_tokens bigint, completion_tokens bigint, cached_tokens bigint,
          reasoning_tokens bigint, cost_usd double precision, latencies text, lengths text,
          reasons text, slowest bigint, slowest_ms bigint)
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

-- name: remove_unknown_attempt
-- Of a worker that was taken for dead: what came after all takes its place, of two calls of a claim
-- both. What a budget has counted for it stays.
with given as materialized (
  select item_id, epoch, count(*) as n
    from json_to_recordset(:rows::json) as r (item_id bigint, epoch integer)
   group by item_id, epoch)
delete from attempts
 where seq = any(array(
   select a.seq
     from given g
     join lateral (
       select seq from (select seq, epoch, outcome, cost_usd from attempts
                         where item_id = g.item_id offset 0) of_item
        where epoch = g.epoch and outcome = 'unknown' and cost_usd is null
        order by seq desc limit g.n) a on true));

-- name: append_attempt
-- `response` and `body` are spans of `:texts`, as packed.py makes them: what is JSON is looked through
-- twice.
insert into attempts (seq, item_id, epoch, worker_id, server_id, finished_at, latency_ms, outcome,
  reason, error, http_status, request_id, model, finish_reason, prompt_tokens, completion_tokens,
  cached_tokens, reasoning_tokens, cost_usd, response, vector, body)
select seq, item_id, epoch, worker_id, server_id, finished_at, latency_ms, outcome, reason, error,
       http_status, request_id, model, finish_reason, prompt_tokens, completion_tokens,
       cached_tokens, reasoning_tokens, cost_usd,
       convert_from(substr(:texts::bytea, (response >> 32)::integer,
                           (response & 4294967295)::integer), 'UTF8'),
       vector,
       convert_from(substr(:texts::bytea, (body >> 32)::integer,
                           (body & 4294967295)::integer), 'UTF8')
  from json_to_recordset(:rows::json)
    as r (seq bigint, item_id bigint, epoch integer, worker_id bigint, server_id bigint,
          finished_at bigint, latency_ms bigint, outcome text, reason text, error text,
          http_status bigint, request_id text, model text, finish_reason text,
          prompt_tokens bigint, completion_tokens bigint, cached_tokens bigint,
          reasoning_tokens bigint, cost_usd double precision, response bigint,
          vector text, body bigint);

-- name: note_parse_error
-- Of answers that were kept before they were parsed.
with given as materialized (
  select * from json_to_recordset(:rows::json) as r (seq bigint, error text))
update attempts a set error = g.error
  from given g where a.seq = any(array(select seq from given)) and a.seq = g.seq;

-- name: append_result
insert into results (seq, item_id, attempt_seq, state, reason, error, parsed, spans, parser_id,
  reparsed, finished_at)
select seq, item_id, attempt_seq, state, reason, error, parsed, spans, parser_id,
       reparsed::integer, finished_at
  from json_to_recordset(:rows::json)
    as r (seq bigint, item_id bigint, attempt_seq bigint, state text, reason text, error text,
          parsed text, spans text, parser_id bigint, reparsed boolean, finished_at bigint);

-- name: append_result_of_step
insert into results (seq, item_id, attempt_seq, state, reason, error, parsed, spans, parser_id,
  reparsed, finished_at, made_of, children, passed_over, passed_on)
select seq, item_id, attempt_seq, state, reason, error, parsed, spans, parser_id,
       reparsed::integer, finished_at, decode(made_of, 'base64'), children, passed_over,
       decode(passed_on, 'base64')
  from json_to_recordset(:rows::json)
    as r (seq bigint, item_id bigint, attempt_seq bigint, state text, reason text, error text,
          parsed text, spans text, parser_id bigint, reparsed boolean, finished_at bigint,
          made_of text, children bigint, passed_over bigint, passed_on text);

-- name: keep_answer
-- The answers are durable; the items stay claimed until they are parsed. Fenced as `settle`.
with given as materialized (
  select * from json_to_recordset(:rows::json)
    as r (item_id bigint, epoch integer, answer_seq bigint))
update work w set answer_seq = g.answer_seq, second_call = 0
  from given g
 where w.item_id = any(array(select item_id from given)) and w.item_id = g.item_id
   and w.epoch = g.epoch and w.worker_id is not null;

------------------------------------------------------------------------------- exchange: steps

-- name: steps_of
-- All steps of the chains to which some experiments belong, and the recipes of their new rows.
select distinct f.id as first_id, f.plan_id, s.id as experiment_id, s.number, v.recipe_id,
       s.runs_code, s.gathered_by
  from unnest(numbers(:ids)) wanted (value)
  join experiments e on e.id = wanted.value and e.step is not null
  join experiments f on f.id = coalesce(e.first_id, e.id)
  join experiments s on s.id = f.id or s.first_id = f.id
  join variants v on v.experiment_id = s.id and v.number = 1;

-- name: add_work_of_children
-- Of the items from `first` to `last`, which were made in the same transaction. Each is as urgent as
-- its parent, and chosen with it.
insert into work (item_id, experiment_id, priority, selection, gathering, runs_code)
select i.id, i.experiment_id, p.priority, p.selection, p.gathering, e.runs_code
  from items i
  join experiments e on e.id = i.experiment_id
  join work p on p.item_id = i.parent_id
 where i.id between :first and :last;

-- name: standing
-- In the order of the list.
select i.id as item_id, i.experiment_id, i.parent_id, i.element, i.input, i.parent_result,
       i.gathered, i.sample, w.state, w.outdated, w.gathering, w.answer_seq, w.result_seq,
       r.state as result_state, r.reason, r.parser_id, r.attempt_seq, r.made_of, r.children,
       r.passed_over, r.passed_on, p.passed_on as stands_for
  from unnest(numbers(:ids)) with ordinality wanted (value, place)
  join items i on i.id = wanted.value
  join work w on w.item_id = i.id
  left join results r on r.seq = w.result_seq
  left join results p on p.seq = i.parent_result
 order by wanted.place;

-- name: children_of
-- But for what gathers.
select i.id from items i
 where i.parent_id = any(numbers(:ids)) and i.gathered is null
 order by i.parent_id, i.experiment_id, i.element;

-- name: rows_below
-- All that was made of some rows, and of these in turn, or gathers them.
with recursive below (id, is_given) as (
  select id, true from unnest(numbers(:ids)) id
  union
  select n.id, false
    from below b
    join lateral (select gathering from work where item_id = b.id offset 0) w on true
    join lateral (
      select i.id from items i where i.parent_id = b.id
      union all
      select g.id from items g where g.parent_id = w.gathering and g.gathered is not null) n
      on true)
select distinct id from below where not is_given order by id;

-- name: make_stale
-- One that runs ends so.
with given as materialized (
  select * from json_to_recordset(:rows::json) as r (item_id bigint))
update work
   set state = case when state = 'running' then state else 'stale' end,
       outdated = (state = 'running')::integer,
       available_at = null, epoch = epoch + (state <> 'running')::integer
 where item_id = any(array(select item_id from given));

-- name: restore
-- One that ended while it was outdated is to be parsed again, as nobody has followed it.
with given as materialized (
  select * from json_to_recordset(:rows::json) as r (item_id bigint)),
was as materialized (
  select w.item_id, w.answer_seq, r.seq, r.state, r.attempt_seq,
         r.state = 'done' and r.children is null as parse_again
    from work w left join results r on r.seq = w.result_seq
   where w.item_id = any(array(select item_id from given)))
update work w
   set state = case when was.seq is null or was.parse_again then 'pending' else was.state end,
       answer_seq = case when was.parse_again then was.attempt_seq else was.answer_seq end,
       result_seq = case when was.parse_again then null else was.seq end,
       epoch = w.epoch + 1
  from was
 where w.item_id = any(array(select item_id from given)) and w.item_id = was.item_id
   and w.state = 'stale';

-- name: present_of
-- What rows would be made of by now, and whether all of that is there.
select i.id,
       case when i.gathered is null then i.parent_result is not null and p.state = 'done'
            else not is_open(i.parent_id) end,
       i.input, i.gathered, r.passed_on
  from unnest(numbers(:ids)) with ordinality claim (value, place)
  join items i on i.id = claim.value
  join work p on p.item_id = i.parent_id
  left join results r on r.seq = i.parent_result
 order by claim.place;

-- name: gatherings_of
select distinct w.gathering
  from unnest(numbers(:ids)) chosen (value) join work w on w.item_id = chosen.value
 where w.gathering is not null;

-- name: complete_gatherings
select root.value from unnest(numbers(:ids)) with ordinality root (value, place)
 where not is_open(root.value) order by root.place;

-- name: rows_of_gatherings
-- By the roots: these, their other samples, and all that was made of them but for what gathers.
with recursive inside (root, id) as (
  select value, value from unnest(numbers(:ids)) value
  union all
  (select s.sample_of, s.id from items s
    where s.sample_of = any(numbers(:ids)) order by s.sample_of, s.sample)
  union all
  select n.root, i.id
    from inside n
    join lateral (select id from items where parent_id = n.id and gathered is null offset 0) i
      on true)
select root, id from inside;

-- name: gathering_rows
select g.parent_id, g.id from items g
 where g.parent_id = any(numbers(:ids)) and g.gathered is not null;

-- name: passed_on
select seq, passed_on from unnest(numbers(:seqs)) wanted (value) join results on seq = wanted.value;

-- name: add_child
insert into items (id, experiment_id, recipe_id, input, parent_id, parent_result, element)
select id, experiment_id, recipe_id, input, parent_id, parent_result, element
  from json_to_recordset(:rows::json)
    as r (id bigint, experiment_id bigint, recipe_id bigint, input text, parent_id bigint,
          parent_result bigint, element bigint);

-- name: make_of
with given as materialized (
  select * from json_to_recordset(:rows::json)
    as r (item_id bigint, parent_result bigint, input text))
update items i set parent_result = g.parent_result, input = g.input
  from given g where i.id = any(array(select item_id from given)) and i.id = g.item_id;

-- name: set_outdated
with given as materialized (
  select * from json_to_recordset(:rows::json) as r (item_id bigint, outdated smallint))
update work w set outdated = g.outdated
  from given g
 where w.item_id = any(array(select item_id from given)) and w.item_id = g.item_id
   and w.worker_id is not null;

-- name: ask_anew
-- What it was not asked before.
with given as materialized (
  select * from json_to_recordset(:rows::json) as r (item_id bigint))
update work
   set state = 'pending', available_at = null, epoch = epoch + 1, tries = 0, crashes = 0,
       parse_failures = 0, answer_seq = null, result_seq = null
 where item_id = any(array(select item_id from given)) and state <> 'running';

------------------------------------------------------------------------------- exchange: claim

-- name: open_experiments
-- Experiments with something to claim at a server: later steps first, then the oldest.
select c.experiment_id
  from counters c join experiments e on e.id = c.experiment_id and e.runs_code = 0
 where c.state = 'pending' and c.n > 0
 group by c.experiment_id, e.number order by e.number desc, c.experiment_id;

-- name: parsed_alone
-- How many claims a worker has, two at most; whether one of these has lost a worker while it was
-- parsed; and whether any item waits that has.
select count(*), coalesce(bool_or(is_suspect), false),
       exists (select 1 from work
                where state = 'pending' and crashes > 0
                  and (answer_seq is not null or runs_code = 1))
  from (select crashes > 0 and (answer_seq is not null or runs_code = 1) as is_suspect from work
         where state = 'running' and worker_id = :worker_id limit 2) claims;

-- name: claim_crashed
-- One whose worker died while its answer was being parsed.
update work
   set state = 'running', worker_id = :worker_id, epoch = epoch + 1
 where item_id = (select item_id from work
                   where state = 'pending' and crashes > 0
                     and (answer_seq is not null or runs_code = 1)
                     and experiment_id = :experiment_id
                     and (:selection::bigint is null or selection = :selection)
                   order by item_id limit 1 for no key update skip locked)
returning item_id;

-- name: selected_chains_begun
-- As `chains_begun`, of a selection: by a look at each of its rows; what was done before is not counted.
select e.id, e.number, e.step,
       count(r.seq) filter (where r.children = 0 and e.gathered_by is null) as ended,
       count(*) filter (where w.state = 'done') as done,
       count(*) filter (where w.state = 'running') as running,
       count(*) filter (where w.state = 'pending') as pending,
       (select count(*) from suspects x
          join work s on s.item_id = x.item_id and s.selection = :selection
         where x.experiment_id = e.id
           and x.server not in (select server from condemned_runs)) as suspects
  from work w
  join experiments e on e.id = w.experiment_id
  left join lateral (select seq, children from results where seq = w.result_seq offset 0) r
       on w.state = 'done'
 where w.selection = :selection
 group by e.id;

-- name: due_items
-- Retries whose time has come, longest due first. What others are claiming just now is passed over.
select coalesce(json_agg(item_id), '[]')::text
  from (select item_id from work
         where state = 'pending' and available_at is not null
           and experiment_id = :experiment_id and available_at <= :now
         order by available_at, item_id limit :want for no key update skip locked) found;

-- name: claim_items
-- Those that were found, in the same transaction.
update work
   set state = 'running', worker_id = :worker_id, epoch = epoch + 1, available_at = null
 where item_id = any(numbers(:ids));

-- name: due_and_fresh_items
-- The same, and then items never tried, highest priority first, then in the order of the pool.
with due as materialized (
  select item_id from work
   where state = 'pending' and available_at is not null
     and experiment_id = :experiment_id and available_at <= :now
   order by available_at, item_id limit :want for no key update skip locked),
fresh as materialized (
  select item_id from work
   where state = 'pending' and available_at is null
     and (crashes = 0 or (answer_seq is null and runs_code = 0))
     and experiment_id = :experiment_id
   order by -priority, item_id limit (select :want - count(*) from due)
     for no key update skip locked)
select coalesce(json_agg(item_id), '[]')::text
  from (select item_id from due union all select item_id from fresh) found;

-- name: selected_due_items
-- The same two of a selection.
select coalesce(json_agg(item_id), '[]')::text
  from (select item_id from work
         where selection = :selection and experiment_id = :experiment_id and state = 'pending'
           and available_at is not null and available_at <= :now
         order by available_at, -priority, item_id limit :want for no key update skip locked) found;

-- name: selected_due_and_fresh_items
with due as materialized (
  select item_id from work
   where selection = :selection and experiment_id = :experiment_id and state = 'pending'
     and available_at is not null and available_at <= :now
   order by available_at, -priority, item_id limit :want for no key update skip locked),
fresh as materialized (
  select item_id from work
   where selection = :selection and experiment_id = :experiment_id and state = 'pending'
     and available_at is null and (crashes = 0 or (answer_seq is null and runs_code = 0))
   order by -priority, item_id limit (select :want - count(*) from due)
     for no key update skip locked)
select coalesce(json_agg(item_id), '[]')::text
  from (select item_id from due union all select item_id from fresh) found;

-- name: fresh_span
-- Of the items never tried that come last by priority: the first and the last one.
with last as (
  select priority, item_id from work
   where state = 'pending' and available_at is null
     and (crashes = 0 or (answer_seq is null and runs_code = 0))
     and experiment_id = :experiment_id
   order by -priority desc, item_id desc limit 1)
select priority, (select item_id from work
                   where state = 'pending' and available_at is null
                     and (crashes = 0 or (answer_seq is null and runs_code = 0))
                     and experiment_id = :experiment_id and -priority = -last.priority
                   order by item_id limit 1), item_id
  from last;

-- name: claim_fresh_from
-- One of these: while the server answers nobody, they tell whether those that failed are like all
-- the others.
update work
   set state = 'running', worker_id = :worker_id, epoch = epoch + 1
 where item_id = (select item_id from work
                   where state = 'pending' and available_at is null
                     and (crashes = 0 or (answer_seq is null and runs_code = 0))
                     and experiment_id = :experiment_id and -priority = -(:priority::bigint)
                     and item_id >= :first
                   order by item_id limit 1 for no key update skip locked)
returning item_id;

-- name: selected_fresh_span
with last as (
  select priority, item_id from work
   where selection = :selection and experiment_id = :experiment_id and state = 'pending'
     and available_at is null and (crashes = 0 or (answer_seq is null and runs_code = 0))
   order by -priority desc, item_id desc limit 1)
select priority, (select item_id from work
                   where selection = :selection and experiment_id = :experiment_id
                     and state = 'pending' and available_at is null
                     and (crashes = 0 or (answer_seq is null and runs_code = 0))
                     and -priority = -last.priority
                   order by item_id limit 1), item_id
  from last;

-- name: claim_selected_fresh_from
update work
   set state = 'running', worker_id = :worker_id, epoch = epoch + 1
 where item_id = (select item_id from work
                   where selection = :selection and experiment_id = :experiment_id
                     and state = 'pending' and available_at is null
                     and (crashes = 0 or (answer_seq is null and runs_code = 0))
                     and -priority = -(:priority::bigint) and item_id >= :first
                   order by item_id limit 1 for no key update skip locked)
returning item_id;

-- name: claimed_items
-- In the order of the claims.
select i.id, w.epoch, w.experiment_id, i.recipe_id, i.custom_id, i.input as input_json,
       w.tries, w.parse_failures, i.sample, w.answer_seq, a.response as answer_text, e.parser_id,
       claimed.server, i.parent_id, w.gathering, w.runs_code,
       case when e.first_id is null then e.plan_id
            else (select plan_id from experiments f where f.id = e.first_id) end as plan_id
  from (select array_agg(key::bigint order by place) as ids,
               array_agg(value order by place) as servers
          from json_each_text(:claimed::json) with ordinality one (key, value, place)) given
  join lateral unnest(given.ids, given.servers) with ordinality claimed (item_id, server, place)
       on true
  join work w on w.item_id = claimed.item_id
  join experiments e on e.id = w.experiment_id
  join items i on i.id = w.item_id
  left join attempts a on a.seq = w.answer_seq
 order by claimed.place;

-- name: parents_of
-- Of rows that were made of others: each one's parent, by which of its results, and whether it
-- gathers.
select i.id, i.parent_id, i.parent_result, i.gathered is not null
  from unnest(numbers(:ids)) made (value) join items i on i.id = made.value
 where i.parent_id is not null;

-- name: links_above
-- Of rows that were made of others: each one's parent, with what it is made of; no result, where it is
-- the root of those that it gathers.
select i.id as made, i.gathered, p.parent_id as above, p.id, p.experiment_id, e.number, p.recipe_id,
       coalesce(r.seq, 0), p.input, coalesce(r.parsed, a.vector), a.response, r.passed_on, p.sample,
       p.custom_id
  from unnest(numbers(:ids)) made (value)
  join items i on i.id = made.value
  join items p on p.id = i.parent_id
  join experiments e on e.id = p.experiment_id
  left join result_values r on r.seq = i.parent_result
  left join attempts a on a.seq = r.attempt_seq;

-- name: links_gathered
-- The same columns of those that are gathered, by their results.
select r.seq as made, p.gathered, p.parent_id as above, p.id, p.experiment_id, e.number, p.recipe_id,
       r.seq, p.input, coalesce(r.parsed, a.vector), a.response, r.passed_on, p.sample,
       p.custom_id
  from unnest(numbers(:seqs)) wanted (value)
  join result_values r on r.seq = wanted.value
  join items p on p.id = r.item_id
  join experiments e on e.id = p.experiment_id
  left join attempts a on a.seq = r.attempt_seq;

-- name: next_available_at
select min(available_at) from work
 where state = 'pending' and available_at is not null and experiment_id = :experiment_id;

-- name: next_selected_at
select min(available_at) from work
 where selection = :selection and experiment_id = :experiment_id
                      and state = 'pending' and available_at is not null;

------------------------------------------------------------------------------- exchange: trials

-- name: calls_on_trial
-- Calls in flight at a server, of anybody, whose recipe has not been answered yet.
select count(*)
  from calls_on_trial t
  join work w on w.item_id = t.item_id and w.epoch = t.epoch
  join items i on i.id = w.item_id
 where t.server = :server and w.state = 'running' and w.answer_seq is null
   and not exists (select 1 from proven_recipes p
                    where p.server = :server and p.recipe_id = i.recipe_id
                      and p.proven_until is null);

-- name: add_call_on_trial
insert into calls_on_trial (item_id, epoch, server) values (:item_id, :epoch, :server)
on conflict (item_id) do update set epoch = excluded.epoch, server = excluded.server;

-- name: calls_in_flight
-- Of the workers that ask this server and no other.
select count(*)
  from workers k join work w on w.worker_id = k.id
 where json_array_length(k.servers::json) = 1 and k.servers::json ->> 0 = :server
   and w.state = 'running' and w.answer_seq is null and w.runs_code = 0;

-- name: add_suspect
insert into suspects (item_id, experiment_id, recipe_id, server, alike, probe, attempt_seq, reason,
  error, available_at, sent_at, ended_at, halt)
values (:item_id, :experiment_id, :recipe_id, :server, :alike, :probe, :attempt_seq, :reason,
  :error, :available_at, :sent_at, :ended_at, :halt)
on conflict (item_id) do update
   set experiment_id = excluded.experiment_id, recipe_id = excluded.recipe_id,
       server = excluded.server, alike = excluded.alike, probe = excluded.probe,
       attempt_seq = excluded.attempt_seq, reason = excluded.reason, error = excluded.error,
       available_at = excluded.available_at, sent_at = excluded.sent_at,
       ended_at = excluded.ended_at, halt = excluded.halt;

-- name: forget_suspect
delete from suspects
 where item_id = any(array(
   select item_id from json_to_recordset(:rows::json) as r (item_id bigint)));

-- name: condemn_run
insert into condemned_runs (server, run) values (:server, :run)
on conflict (server) do update set run = excluded.run;

-- name: lengths_of_items
select length(i.input)
  from unnest(numbers(:items)) chosen (value) join items i on i.id = chosen.value;

-- name: lengths_answered
-- Of the newest items that were, as far as they are not hidden behind very many that failed.
select length(i.input)
  from results r
  join items i on i.id = r.item_id
 where r.state = 'done' and i.recipe_id = :recipe_id
   and r.seq > (select coalesce(max(seq), 0) from results) - 100000
 order by r.seq desc limit 500;

-- name: failed_alike_before
-- Whether a call of the item failed in the same way in an earlier run, when others were answered.
select 1 from attempts a cross join proven_recipes p
 where a.item_id = :item_id and a.reason = :reason and a.http_status is not distinct from :http_status
   and p.server = :server and p.recipe_id = :recipe_id and a.seq <= p.proven_until
 limit 1;

-- name: servers_of_worker
select asked from workers w, json_array_elements_text(w.servers::json) asked
 where w.id = :worker_id;

-- name: count_workers_of_server
select count(*) from workers w, json_array_elements_text(w.servers::json) asked
 where asked = :server;

------------------------------------------------------------------------------- operator

-- name: failed_items
-- Failed items in the order of the pool, a page at a time.
select w.item_id, w.experiment_id, r.reason, r.error, r.parser_id
  from work w join results r on r.seq = w.result_seq
 where w.state = 'failed' and w.experiment_id = :experiment_id and w.item_id > :after
   and (:reason::text is null or r.reason = :reason)
 order by w.item_id limit :limit;

-- name: ended_items
-- Those of some items that are done or failed.
select w.item_id, w.experiment_id, r.reason, r.error, r.parser_id
  from unnest(numbers(:ids)) with ordinality chosen (value, place)
  join work w on w.item_id = chosen.value
  join results r on r.seq = w.result_seq
 where w.state in ('done', 'failed') order by chosen.place;

-- name: items_with_own
-- Those whose own params, or body as in a line of an OpenAI batch, have one of these names.
select i.id
  from items i
 where i.id = any(numbers(:ids))
   and (exists (select 1 from names_in(member(i.input, 'params')) name
                 where name = any(array(select json_array_elements_text(:names::json))))
        or (member(i.input, 'custom_id') is not null
            and exists (select 1 from names_in(member(i.input, 'body')) name
                         where name = any(array(select json_array_elements_text(:names::json))))));

-- name: recipes_of_items
select i.id, i.recipe_id
  from unnest(numbers(:ids)) chosen (value) join items i on i.id = chosen.value;

-- name: unparsed_answers
-- Items that failed at their parser, with the answers that it could not use, in the order of the pool.
-- `:cut_off_too`: also those of which it would have needed the whole.
select w.item_id, w.experiment_id, i.custom_id, w.result_seq, a.seq as attempt_seq, r.reason,
       r.error, r.parsed, r.parser_id, i.input, a.response, a.finish_reason,
       a.vector is not null as is_vector
  from work w
  join result_values r on r.seq = w.result_seq
       and (r.reason in ('parse', 'crash')
            or (:cut_off_too::bigint = 1 and r.reason = 'truncated'))
  join attempts a on a.seq = r.attempt_seq and a.outcome = 'answered'
  join items i on i.id = w.item_id
 where w.state = 'failed' and w.experiment_id = :experiment_id and w.item_id > :after
 order by w.item_id limit :limit;

-- name: all_answers
-- The same and the done ones.
select w.item_id, w.experiment_id, i.custom_id, w.result_seq, a.seq as attempt_seq, r.reason,
       r.error, r.parsed, r.parser_id, i.input, a.response, a.finish_reason,
       a.vector is not null as is_vector
  from work w
  join result_values r on r.seq = w.result_seq
       and (r.state = 'done' or r.reason in ('parse', 'crash')
            or (:cut_off_too::bigint = 1 and r.reason = 'truncated'))
  join attempts a on a.seq = r.attempt_seq and a.outcome = 'answered'
  join items i on i.id = w.item_id
 where w.item_id > :after and w.experiment_id = :experiment_id
   and w.state in ('done', 'failed')
 order by w.item_id limit :limit;

-- name: answers_of_other_parsers
-- What the present parser has not read yet, in the order of the pool.
select w.item_id, w.experiment_id, i.custom_id, w.result_seq, a.seq as attempt_seq, r.reason,
       r.error, r.parsed, r.parser_id, i.input, a.response, a.finish_reason,
       a.vector is not null as is_vector
  from work w
  join lateral (select * from result_values where seq = w.result_seq offset 0) r
    on r.parser_id <> :parser_id
  join attempts a on a.seq = r.attempt_seq
  join items i on i.id = w.item_id
 where w.item_id > :after and w.experiment_id = :experiment_id
   and w.state in ('done', 'failed')
 order by w.item_id limit :limit;

-- name: ended_by_other_functions
-- Rows of a step that runs code, which the present function has not ended yet.
select w.item_id, w.experiment_id, r.reason, r.error, r.parser_id
  from work w
  join lateral (select * from results where seq = w.result_seq offset 0) r
    on r.parser_id <> :parser_id
 where w.item_id > :after and w.experiment_id = :experiment_id
   and w.state in ('done', 'failed')
 order by w.item_id limit :limit;

-- name: begin_reparsing
insert into reparsing (item_id, parser_id, alone)
select id, :parser_id::bigint, :alone::bigint from unnest(numbers(:ids)) id
on conflict (item_id) do update set parser_id = excluded.parser_id, alone = excluded.alone;

-- name: end_reparsing
delete from reparsing where item_id = any(numbers(:ids));

-- name: results_of_items
-- The results by which some items have ended.
select w.item_id, w.result_seq
  from unnest(numbers(:ids)) chosen (value) join work w on w.item_id = chosen.value
 where w.state in ('done', 'failed');

-- name: reopen
-- Back to pending with all tries; the attempts made stay, and the results.
with given as materialized (
  select * from json_to_recordset(:rows::json) as r (item_id bigint))
update work
   set state = 'pending', epoch = epoch + 1, tries = 0, crashes = 0, parse_failures = 0,
       answer_seq = null, result_seq = null
 where item_id = any(array(select item_id from given)) and state in ('done', 'failed');

-- name: count_superseded
-- So many done results are their items' no more; live files that hold them are written anew.
update experiments e set superseded_results = e.superseded_results + r.n
  from json_to_recordset(:rows::json) as r (experiment_id bigint, n bigint)
 where e.id = r.experiment_id;

-- name: set_recipe
-- After `retry --set`. With other parameters once more, the base is still that of the first time.
with given as materialized (
  select * from json_to_recordset(:rows::json) as r (item_id bigint, recipe_id bigint))
update items i
   set recipe_id = g.recipe_id, base_recipe_id = coalesce(i.base_recipe_id, i.recipe_id)
  from given g where i.id = any(array(select item_id from given)) and i.id = g.item_id;

-- name: replace_result
-- Another result from the same answer; the earlier one stays in `results`.
with given as materialized (
  select * from json_to_recordset(:rows::json)
    as r (item_id bigint, state text, result_seq bigint, new_result_seq bigint))
update work w set state = g.state, result_seq = g.new_result_seq
  from given g
 where w.item_id = any(array(select item_id from given)) and w.item_id = g.item_id
   and w.result_seq = g.result_seq;

-- name: set_parser_of_result
-- Another parser makes the same of the answer.
with given as materialized (
  select * from json_to_recordset(:rows::json) as r (seq bigint, parser_id bigint))
update results r set parser_id = g.parser_id
  from given g where r.seq = any(array(select seq from given)) and r.seq = g.seq;

-- name: delete_keys_not_sorted
-- There are none: a key is in its table at once.
delete from item_keys where item_id = :experiment_id and false;

-- name: delete_items
-- Work and attempts go with them.
with gone as (
  delete from items where experiment_id = :experiment_id returning id),
no_work as (
  delete from work where item_id in (select id from gone))
delete from attempts where item_id in (select id from gone);

-- name: delete_counters
delete from counters_by_worker where experiment_id = :experiment_id;

-- name: delete_parser_counters
delete from parser_counters_by_worker where experiment_id = :experiment_id;

-- name: delete_step_counters
delete from step_counters_by_worker where experiment_id = :experiment_id;

-- name: delete_totals
delete from totals_by_worker where experiment_id = :experiment_id;

-- name: delete_failed_calls
delete from failed_calls_by_worker where experiment_id = :experiment_id;

-- name: delete_minutes
delete from minutes_by_worker where experiment_id = :experiment_id;

-- name: record_export
insert into exports (experiment_id, machine, path, rows, sha256, result_seq, exported_at)
values (:experiment_id, :this_machine, :path, :rows, :sha256, :result_seq, :now)
on conflict (experiment_id, machine, path) do update
   set rows = excluded.rows, sha256 = excluded.sha256, result_seq = excluded.result_seq,
       exported_at = excluded.exported_at;

------------------------------------------------------------------------------- reading

-- name: change_mark
-- Another one after each transaction of the server that wrote something, also of other databases.
select pg_current_snapshot()::text as mark;

-- name: experiments
-- With the endpoints that their present recipes are for.
select e.id, e.name, e.created_at,
       (select coalesce(string_agg(distinct r.body::json ->> 'endpoint', ','), '')
          from variants v join recipes r on r.id = v.recipe_id
         where v.experiment_id = e.id) as endpoint, e.first_id, e.step, e.number, e.runs_code
  from experiments e order by e.id;

-- name: unknown_calls
-- Sent, answer unknown, oldest first. `booked_usd` is what a budget has counted for it.
select a.seq, i.id as item_id, e.name as experiment, i.recipe_id, i.input,
       a.cost_usd as booked_usd
  from attempts a
  join items i on i.id = a.item_id
  join experiments e on e.id = i.experiment_id
 where a.outcome = 'unknown' and a.seq > :after
   and (:experiment_id::bigint is null or i.experiment_id = :experiment_id)
 order by a.seq limit :limit;

-- name: calls_of_worker
-- Those that it had in flight, when it has died; two where a second call was.
select 0 as seq, i.id as item_id, e.name as experiment, i.recipe_id, i.input,
       r.cost_usd as booked_usd
  from work w
  cross join generate_series(1, 1 + w.second_call)
  join items i on i.id = w.item_id
  join experiments e on e.id = i.experiment_id
  left join reservations r on r.item_id = w.item_id and r.epoch = w.epoch
 where w.state = 'running' and w.worker_id = :worker_id and w.answer_seq is null
   and w.runs_code = 0 limit :limit;

-- name: recent_finishes
-- Items that a call finished since :since, counted back from the newest; at most :limit are looked at.
-- An answer that was parsed once more was finished by its call, and counts once.
select count(*), min(r.finished_at)
  from (select item_id, attempt_seq, reparsed, finished_at from results
         order by seq desc limit :limit) r
  join lateral (select experiment_id from work where item_id = r.item_id offset 0) w on true
 where r.finished_at >= :since and r.attempt_seq is not null and r.reparsed = 0
   and (:experiment_id::bigint is null or w.experiment_id = :experiment_id);

-- name: recent_latencies
-- Of the newest calls only: where nothing was ever answered, the search would not end. A line of a
-- provider batch has none.
select a.latency_ms
  from (select item_id, latency_ms, outcome from attempts where seq > :after
         order by seq desc limit :limit) a
  join work w on w.item_id = a.item_id
 where a.outcome = 'answered' and a.latency_ms is not null
   and (:experiment_ids::text is null
        or w.experiment_id = any(numbers(:experiment_ids)));

-- name: recent_usage
-- Of the newest calls only, as above; oldest first.
select octet_length(i.input), a.prompt_tokens + a.completion_tokens
  from (select item_id, seq, prompt_tokens, completion_tokens from attempts
         order by seq desc limit :limit) a
  join lateral (select input from items where id = a.item_id offset 0) i on true
 where a.prompt_tokens + a.completion_tokens is not null order by a.seq;

-- name: failures_by_message
-- Each message with how many items have it, the most frequent first.
select r.reason, r.error, count(*) as n, min(w.item_id) as example
  from work w join results r on r.seq = w.result_seq
 where w.state = 'failed' and w.experiment_id = :experiment_id
   and (:reason::text is null or r.reason = :reason)
 group by r.reason, r.error order by n desc, r.reason, r.error;

-- name: last_failures_by_message
-- The same of the last failed items before :before in the order of the pool: so many are read, whatever
-- there are. The inner limit is for the planner, which would take them for a tenth of all, and read all
-- results.
select r.reason, r.error, count(*) as n, min(w.item_id) as example
  from (select item_id, result_seq from work
         where state = 'failed' and experiment_id = :experiment_id and item_id < :before
         order by item_id desc limit :most) w
 cross join lateral (select f.reason, f.error from results f
                      where f.seq = w.result_seq limit 1) r
 group by r.reason, r.error order by n desc, r.reason, r.error;

-- name: any_samples
select 1 from items
 where sample_of is not null and experiment_id = :experiment_id limit 1;

-- name: attempts_of_item
-- With the server, where several have been asked, and the provider batch that it was in.
select a.seq, a.finished_at, a.latency_ms, a.outcome, a.reason, a.error, a.http_status,
       a.request_id, a.model, a.finish_reason, a.prompt_tokens, a.completion_tokens, a.cost_usd,
       a.response, a.body,
       case when (select count(*) from servers) > 1 then s.name end as server, b.id as batch
  from attempts a
  left join servers s on s.id = a.server_id
  left join provider_batches b on b.worker_id = a.worker_id
 where a.item_id = :item_id
 order by a.seq;

-- name: done_rows
-- A page of the export, in the order of the pool: as the view item_results has them. But the
-- response is the text that it is: of that Python makes JSON in less time than the server.
select w.item_id as id, i.custom_id, i.input, a.response, coalesce(r.parsed, a.vector) as parsed,
       case when strpos(i.input, '"metadata"') > 0 then member(i.input, 'metadata') end as metadata,
       a.model, a.finish_reason, a.prompt_tokens, a.completion_tokens, a.cached_tokens,
       a.reasoning_tokens,
       case when w.epoch = 1 then a.cost_usd
            else (select sum(cost_usd) from attempts
                   where item_id = w.item_id and outcome <> 'unknown') end
       as cost_usd,
       w.tries, r.finished_at, i.sample, r.reason, r.error, w.experiment_id, w.state, w.result_seq,
       i.variant
  from work w
  join result_values r on r.seq = w.result_seq
  left join attempts a on a.seq = r.attempt_seq
  join items i on i.id = w.item_id
 where w.item_id > :after and w.experiment_id = :experiment_id
   and w.state = 'done'
 order by w.item_id limit :limit;

-- name: result_rows
-- The ended ones among chosen items, whatever their end, in the order of the list.
select r.* from unnest(numbers(:ids)) with ordinality chosen (value, place)
  join item_results r on r.id = chosen.value order by chosen.place;

-- name: count_earlier_recipes
-- Chosen items that are done with a recipe that is none of their experiment's any more, nor made of
-- one by a retry with other parameters.
select count(*)
  from unnest(numbers(:ids)) chosen (value)
 join work w on w.item_id = chosen.value and w.state = 'done'
 join items i on i.id = w.item_id
 where not exists (select 1 from variants v
                    where v.experiment_id = i.experiment_id
                      and v.recipe_id in (i.recipe_id, i.base_recipe_id));

-- name: sample_numbers
-- The next items, in the order of the pool, each followed by its other samples; with their firsts.
with firsts as materialized (
  select id from items where id > :after and experiment_id = :experiment_id and sample_of is null
   order by id limit :limit)
select id, id as first, 1 as sample from firsts
union all
select s.id, s.sample_of, s.sample
  from firsts f
  join lateral (select id, sample_of, sample from items where sample_of = f.id offset 0) s on true
 order by first, sample;

-- name: rows_of_items
-- The rows of chosen items, each with its first samples, in the order of the list.
select chosen.place - 1 as place, chosen.value as id, 1 as sample
  from unnest(numbers(:ids)) with ordinality chosen (value, place)
union all
select chosen.place - 1, s.id, s.sample
  from unnest(numbers(:ids)) with ordinality chosen (value, place)
  join items s on s.sample_of = chosen.value
 where s.sample <= :samples
 order by place, sample;

-- name: answer_details
-- A body is read only where asked for, and where the answer's text is not all of the answer.
select w.item_id, i.recipe_id, a.http_status, a.request_id,
       case when :bodies::bigint = 1 or a.response = '' then a.body end as body
  from unnest(numbers(:ids)) chosen (value)
  join work w on w.item_id = chosen.value
  join results r on r.seq = w.result_seq
  join items i on i.id = w.item_id
  left join attempts a on a.seq = r.attempt_seq;

-- name: chain_rows_below
-- Rows of first steps, each with all that was made of it, and of these in turn.
with recursive below (first, id) as (
  select value, value from unnest(numbers(:ids)) value
  union all
  select b.first, i.id
    from below b
    join lateral (
      select id from items where parent_id = b.id order by experiment_id, element) i on true)
select b.first, i.id, i.parent_id, i.experiment_id, e.number, i.element, i.sample, w.state,
       w.result_seq, w.children, i.gathered
  from below b
  join lateral (select * from items where id = b.id offset 0) i on true
  join lateral (
    select w.state, w.result_seq, r.children
      from work w left join results r on r.seq = w.result_seq
     where w.item_id = b.id offset 0) w on true
  join experiments e on e.id = i.experiment_id;

-- name: chain_rows_above
-- Rows, what they were made of, and what they gather; up to the first ones.
with recursive above (id) as (
  select id from unnest(numbers(:ids)) id
  union
  select n.id
    from above a
    join lateral (select parent_id, gathered from items where id = a.id offset 0) i on true
    join lateral (
      select i.parent_id as id where i.parent_id is not null
      union all
      select r.item_id from results r where r.seq = any(numbers(i.gathered))) n on true)
select coalesce(i.parent_id, i.id) as first, i.id, i.parent_id, i.experiment_id, e.number,
       i.element, i.sample, w.state, w.result_seq, w.children, i.gathered
  from above a
  join lateral (select * from items where id = a.id offset 0) i on true
  join lateral (
    select w.state, w.result_seq, r.children
      from work w left join results r on r.seq = w.result_seq
     where w.item_id = a.id offset 0) w on true
  join experiments e on e.id = i.experiment_id;

-- name: item_by_key
select item_id from item_keys where key = :key;

-- name: exports
select x.experiment_id, e.name as experiment, x.path, x.rows, x.sha256, x.result_seq
  from exports x join experiments e on e.id = x.experiment_id
 where x.machine = :this_machine order by x.experiment_id, x.path;

------------------------------------------------------------------------------- pages

-- name: results_before
-- Rows that have ended, the newest first: of the results between two numbers those that are still their
-- rows'.
select r.seq, r.item_id, r.reason
  from results r
  join lateral (select experiment_id, state, result_seq from work
                 where item_id = r.item_id offset 0) w on w.result_seq = r.seq
 where r.seq > :after and r.seq < :before
   and w.experiment_id = any(numbers(:experiment_ids))
   and w.state = coalesce(:state, w.state) and w.state <> 'stale'
 order by r.seq desc limit :limit;

-- name: results_after
-- The same, the oldest first.
select r.seq, r.item_id, r.reason
  from results r
  join lateral (select experiment_id, state, result_seq from work
                 where item_id = r.item_id offset 0) w on w.result_seq = r.seq
 where r.seq > :after and r.seq < :before
   and w.experiment_id = any(numbers(:experiment_ids))
   and w.state = coalesce(:state, w.state) and w.state <> 'stale'
 order by r.seq limit :limit;

-- name: rows_after
-- Rows between two numbers, in the order of the pool; in whatever state if none is named.
select item_id, item_id, null as reason from work
 where item_id > :after and item_id < :before
   and experiment_id = any(numbers(:experiment_ids))
   and state = coalesce(:state, state)
 order by item_id limit :limit;

-- name: rows_before
-- The same backwards.
select item_id, item_id, null as reason from work
 where item_id > :after and item_id < :before
   and experiment_id = any(numbers(:experiment_ids))
   and state = coalesce(:state, state)
 order by item_id desc limit :limit;

-- name: failed_after
-- Failed rows in the order of the pool, with their reasons.
select w.item_id, r.reason
  from work w
  join lateral (select reason from results where seq = w.result_seq offset 0) r on true
 where w.state = 'failed' and w.experiment_id = :experiment_id and w.item_id > :after
 order by w.item_id limit :limit;

-- name: failed_before
-- The same backwards.
select w.item_id, r.reason
  from work w
  join lateral (select reason from results where seq = w.result_seq offset 0) r on true
 where w.state = 'failed' and w.experiment_id = :experiment_id and w.item_id < :before
 order by w.item_id desc limit :limit;

-- name: stale_before
-- Stale rows against the order of the pool.
select item_id from work
 where state = 'stale' and experiment_id = :experiment_id and item_id < :before
 order by item_id desc limit :limit;

-- name: waiting_after
-- Rows that are tried again at a time, the first that is due first.
select available_at, item_id from work
 where state = 'pending' and available_at is not null and experiment_id = :experiment_id
   and (available_at, item_id) > (:at, :after)
 order by available_at, item_id limit :limit;

-- name: waiting_before
-- The same backwards.
select available_at, item_id from work
 where state = 'pending' and available_at is not null and experiment_id = :experiment_id
   and (available_at, item_id) < (:at, :before)
 order by available_at desc, item_id desc limit :limit;

-- name: fresh_after
-- Rows of one priority that are claimed as they come in the pool.
select item_id from work
 where state = 'pending' and available_at is null
   and (crashes = 0 or (answer_seq is null and runs_code = 0))
   and experiment_id = :experiment_id and -priority = -:priority::bigint and item_id > :after
 order by item_id limit :limit;

-- name: fresh_before
-- The same backwards.
select item_id from work
 where state = 'pending' and available_at is null
   and (crashes = 0 or (answer_seq is null and runs_code = 0))
   and experiment_id = :experiment_id and -priority = -:priority::bigint and item_id < :before
 order by item_id desc limit :limit;

-- name: next_lower_priority
-- Of such rows; no row where there is none.
select priority from work
 where state = 'pending' and available_at is null
   and (crashes = 0 or (answer_seq is null and runs_code = 0))
   and experiment_id = :experiment_id and -priority > -:priority::bigint
 order by -priority limit 1;

-- name: next_higher_priority
-- The same upwards.
select priority from work
 where state = 'pending' and available_at is null
   and (crashes = 0 or (answer_seq is null and runs_code = 0))
   and experiment_id = :experiment_id and -priority < -:priority::bigint
 order by -priority desc limit 1;

-- name: crashed_rows
-- Those at which a worker died while the user's code had their answer: few, as each held a slot.
select item_id from work
 where state = 'pending' and crashes > 0 and (answer_seq is not null or runs_code = 1)
   and available_at is null and experiment_id = :experiment_id
 order by item_id limit :limit;

-- name: running_rows
-- As many as there are slots, at most; not those at a provider.
select w.item_id
  from workers k
  join lateral (select item_id, experiment_id from work
                 where state = 'running' and worker_id = k.id offset 0) w on true
 where k.kind <> 'batch' and w.experiment_id = any(numbers(:experiment_ids))
 order by w.item_id limit :limit;

-- name: rows_with_text
-- Those of chosen rows that have a text in their id, input, answer, value or error, in the order of the
-- list. `quoted` and `escaped` are how the text may stand in JSON. `:fold`: in whatever case.
select w.item_id
  from unnest(numbers(:ids)) with ordinality chosen (value, place)
  join lateral (select * from work where item_id = chosen.value offset 0) w on true
  join lateral (select input, custom_id from items where id = chosen.value offset 0) i on true
  left join lateral (select * from results
                      where seq = w.result_seq and w.state <> 'stale' offset 0) r on true
  left join lateral (select response from attempts
                      where seq = coalesce(r.attempt_seq, w.answer_seq) offset 0) a on true
 where case when :fold::bigint = 1 then
         strpos(lower(a.response), lower(:text)) > 0 or strpos(lower(i.input), lower(:quoted)) > 0
         or strpos(lower(i.input), lower(:escaped)) > 0
         or strpos(lower(i.custom_id), lower(:text)) > 0
         or strpos(lower(r.parsed), lower(:quoted)) > 0 or strpos(lower(r.error), lower(:text)) > 0
       else
         strpos(a.response, :text) > 0 or strpos(i.input, :quoted) > 0
         or strpos(i.input, :escaped) > 0 or strpos(i.custom_id, :text) > 0
         or strpos(r.parsed, :quoted) > 0 or strpos(r.error, :text) > 0
       end
 order by chosen.place;

-- name: page_rows
-- Chosen rows as a table shows them, in the order of the list: the beginnings of their texts, and how
-- long these are.
select w.item_id as id, w.experiment_id, i.custom_id, i.sample, w.state, r.reason,
       substr(r.error, 1, :chars::bigint::integer) as error,
       substr(i.input, 1, :chars::bigint::integer) as input, octet_length(i.input) as input_bytes,
       substr(a.response, 1, :chars::bigint::integer) as answer,
       octet_length(a.response) as answer_bytes,
       substr(coalesce(r.parsed, a.vector), 1, 4 * :chars::bigint::integer) as parsed,
       octet_length(coalesce(r.parsed, a.vector)) as parsed_bytes,
       w.tries, a.latency_ms, a.prompt_tokens, a.completion_tokens,
       case when w.epoch = 1 then a.cost_usd
            else (select sum(cost_usd) from attempts
                   where item_id = w.item_id and outcome <> 'unknown') end
       as cost_usd, r.finished_at, w.available_at, w.result_seq
  from unnest(numbers(:ids)) with ordinality chosen (value, place)
  join lateral (select * from work where item_id = chosen.value offset 0) w on true
  join lateral (select custom_id, sample, input from items
                 where id = chosen.value offset 0) i on true
  left join lateral (select * from result_values
                      where seq = w.result_seq and w.state <> 'stale' offset 0) r on true
  left join lateral (select * from attempts
                      where seq = coalesce(r.attempt_seq, w.answer_seq) offset 0) a on true
 order by chosen.place;

-- name: origins_of_rows
-- Chosen rows, each with those above it up to the first of its chain, upwards; only of that one the
-- beginning of what it was given.
with recursive above (made, depth, id) as (
  select value, 0, value from unnest(numbers(:ids)) value
  union all
  select a.made, a.depth + 1, i.parent_id
    from above a
    join lateral (select parent_id from items where id = a.id offset 0) i
      on i.parent_id is not null)
select a.made, i.experiment_id, i.element, i.id, i.custom_id, i.sample,
       case when i.parent_id is null then substr(i.input, 1, :chars::bigint::integer) end as input
  from above a
  join lateral (select * from items where id = a.id offset 0) i on true
 order by a.made, a.depth;

-- name: done_by_results
-- Of chosen results those by which rows of an experiment are done, with these; in the order of the list.
select r.seq, r.item_id
  from unnest(numbers(:seqs)) with ordinality chosen (value, place)
  join lateral (select seq, item_id from results where seq = chosen.value offset 0) r on true
  join lateral (select experiment_id, state, result_seq from work
                 where item_id = r.item_id offset 0) w on w.result_seq = r.seq
 where w.state = 'done' and w.experiment_id = :experiment_id
 order by chosen.place;

-- name: shown_attempts
-- The newest calls for an item, the last one first: the beginnings of their texts, and how long these
-- are; with the server, where several have been asked, and the provider batch that each was in.
select a.seq, a.finished_at, a.latency_ms, a.outcome, a.reason, a.error, a.http_status,
       a.request_id, a.model, a.finish_reason, a.prompt_tokens, a.completion_tokens,
       a.cached_tokens, a.reasoning_tokens, a.cost_usd,
       substr(a.response, 1, :chars::bigint::integer) as response,
       octet_length(a.response) as response_bytes,
       substr(a.body, 1, :chars::bigint::integer) as body, octet_length(a.body) as body_bytes,
       case when (select count(*) from servers) > 1 then s.name end as server, b.id as batch
  from (select * from attempts where item_id = :item_id) a
  left join servers s on s.id = a.server_id
  left join provider_batches b on b.worker_id = a.worker_id
 order by a.seq desc limit :limit;

------------------------------------------------------------------------------- minutes

-- name: span_of_minutes
-- The first and the last minute of which anything is known.
select min(first) as first, max(last) as last
  from (select (select min(minute) from minutes_by_worker m
                 where m.experiment_id = e and m.minute > 0) as first,
               (select max(minute) from minutes_by_worker m
                 where m.experiment_id = e and m.minute > 0) as last
          from unnest(numbers(:experiment_ids)) e) spans;

-- name: points_of_minutes
-- So many minutes each (`every`), without what has buckets.
select minute / :every::bigint * :every::bigint as minute, sum(done) as done,
       sum(failed) as failed, sum(calls) as calls, sum(prompt_tokens) as prompt_tokens,
       sum(completion_tokens) as completion_tokens, sum(cost_usd) as cost_usd,
       (array_agg(slowest order by slowest_ms desc nulls last))[1] as slowest,
       max(slowest_ms) as slowest_ms
  from minutes_by_worker
 where experiment_id = any(numbers(:experiment_ids)) and minute between :first and :last
 group by 1 order by 1;

-- name: slowest_minutes
-- The minutes with the slowest calls.
select minute, slowest, slowest_ms from minutes
 where experiment_id = any(numbers(:experiment_ids))
   and minute >= :first and slowest is not null
 order by slowest_ms desc, slowest limit :limit;

-- name: calls_in_minutes
-- Of all experiments; by the primary key.
select m.minute, sum(m.calls)::bigint as calls
  from experiments e
  join lateral (select minute, calls from minutes_by_worker
                 where experiment_id = e.id and minute = any(numbers(:minutes)) offset 0) m on true
 group by m.minute;

-- name: slowest_between
-- The slowest of the calls with these numbers, which are looked at all.
select a.seq, a.item_id, a.finished_at, a.latency_ms, a.outcome, a.reason
  from attempts a join items i on i.id = a.item_id
 where a.seq between :begin and :end and a.latency_ms is not null
   and a.finished_at >= 60000 * :first
   and i.experiment_id = any(numbers(:experiment_ids))
 order by a.latency_ms desc, a.seq limit :limit;

-- name: buckets_of_minutes
select minute, latencies, lengths, reasons from minutes_by_worker
 where experiment_id = any(numbers(:experiment_ids)) and minute between :first and :last;

-- name: until_minute
-- What there was before it.
select coalesce(sum(done), 0) as done, coalesce(sum(failed), 0) as failed,
       coalesce(sum(calls), 0) as calls, coalesce(sum(cost_usd), 0) as cost_usd
  from minutes_by_worker
 where experiment_id = any(numbers(:experiment_ids)) and minute < :first;

-- name: sampled_calls
-- Those of these numbers that are there, and of these experiments.
select a.finished_at / 60000 as minute, a.seq, a.reason, a.latency_ms,
       length(a.response) as length
  from attempts a join items i on i.id = a.item_id
 where a.seq = any(numbers(:seqs)) and i.experiment_id = any(numbers(:experiment_ids))
   and a.outcome <> 'unknown' order by a.seq;

------------------------------------------------------------------------------- reviews

-- name: reviews_of_items
select v.item_id, v.result_seq, v.verdict, v.note, v.edited, v.reviewed_at,
       w.state = 'done' and w.result_seq = v.result_seq as is_current
  from unnest(numbers(:ids)) chosen (value)
  join reviews v on v.item_id = chosen.value
  join work w on w.item_id = v.item_id;

-- name: count_reviews
-- Of some experiments. The first :most reviews are looked at, of whatever experiment; are there others?
select count(*) filter (where is_current and verdict = 'accepted') as accepted,
       count(*) filter (where is_current and verdict = 'rejected') as rejected,
       count(*) filter (where is_current and verdict is null) as undecided,
       count(*) filter (where is_current and is_edited) as edited,
       count(*) filter (where not is_current) as earlier,
       exists (select 1 from reviews limit 1 offset :most) as is_part
  from (select v.verdict, v.edited is not null as is_edited,
               w.state = 'done' and w.result_seq = v.result_seq as is_current
          from (select * from reviews order by item_id limit :most) v
          join lateral (select experiment_id, state, result_seq from work
                         where item_id = v.item_id offset 0) w on true
         where w.experiment_id = any(numbers(:ids))) reviewed;

-- name: review_page
-- Of some experiments, in the order of the pool; with a `:verdict`, and `:current` or not (null: both).
select v.item_id, v.result_seq, v.verdict, v.note, v.edited, v.reviewed_at,
       w.state = 'done' and w.result_seq = v.result_seq as is_current,
       i.custom_id, i.sample, coalesce(f.name, e.name) as experiment, e.step
  from reviews v
  join work w on w.item_id = v.item_id
  join items i on i.id = v.item_id
  join experiments e on e.id = w.experiment_id
  left join experiments f on f.id = e.first_id
 where v.item_id > :after and w.experiment_id = any(numbers(:ids))
   and (:verdict::text is null or v.verdict = :verdict)
   and (:current::bigint is null
        or :current = (w.state = 'done' and w.result_seq = v.result_seq)::integer)
 order by v.item_id limit :limit;

-- name: review_before
-- The last one before an item of an experiment; otherwise as in review_page.
select v.item_id
  from reviews v
  join lateral (select experiment_id, state, result_seq from work
                 where item_id = v.item_id offset 0) w on true
 where v.item_id < :before and w.experiment_id = :experiment_id
   and (:verdict::text is null or v.verdict = :verdict)
   and (:current::bigint is null
        or :current = (w.state = 'done' and w.result_seq = v.result_seq)::integer)
 order by v.item_id desc limit 1;

------------------------------------------------------------------------------- live files

-- name: live_window
-- The next :limit results of whatever experiment: how many there are, and the newest of them.
select e.superseded_results, count(r.seq), max(r.seq)
  from experiments e
  left join (select seq from results where seq > :after order by seq limit :limit) r on true
 where e.id = :experiment_id group by e.id;

-- name: live_rows
-- Those of them that are done, and still their items' results, in finishing order.
select r.* from results new join item_results r
       on r.id = new.item_id and r.result_seq = new.seq
 where new.seq > :after and new.seq <= :upto and new.state = 'done'
   and r.experiment_id = :experiment_id and r.state = 'done'
 order by new.seq;

-- name: ended_rows
-- The same and the failed ones.
select r.* from results new join item_results r
       on r.id = new.item_id and r.result_seq = new.seq
 where new.seq > :after and new.seq <= :upto and r.experiment_id = :experiment_id
 order by new.seq;

-- name: ended_chains
-- The rows with which chains have ended (`:failed_too`: or failed), of the next results up to one; in
-- finishing order.
select new.item_id, new.seq
  from results new
  join work w on w.item_id = new.item_id and w.result_seq = new.seq and w.state = new.state
  join experiments e on e.id = w.experiment_id and e.gathered_by is null
 where new.seq > :after and new.seq <= :upto
   and (new.children = 0 and new.state = 'done'
        or :failed_too::bigint = 1 and new.state = 'failed')
   and (e.id = :first_id or e.first_id = :first_id)
 order by new.seq;

-- name: start_live_file
-- Whatever the file was before, and whose.
insert into live_files
  (machine, path, experiment_id, result_seq, rows, size_bytes, sha256, superseded_results)
values (:this_machine, :path, :experiment_id, :result_seq, :rows, :size_bytes, :sha256,
  :superseded_results)
on conflict (machine, path) do update
   set experiment_id = excluded.experiment_id, result_seq = excluded.result_seq,
       rows = excluded.rows, size_bytes = excluded.size_bytes, sha256 = excluded.sha256,
       superseded_results = excluded.superseded_results;

-- name: note_file
-- What batchgen has written stays that, though it is read as a pool later.
insert into known_files (machine, path, use)
select distinct :this_machine, path, use
  from json_to_recordset(:rows::json) as r (path text, use text)
on conflict (machine, path) do update set use = excluded.use where excluded.use = 'written';

-- name: live_file
select path, experiment_id, result_seq, rows, size_bytes, sha256, superseded_results
  from live_files where machine = :this_machine and path = :path;

-- name: live_files
select path, experiment_id, result_seq, rows, size_bytes, sha256, superseded_results
  from live_files where machine = :this_machine order by path;

-- name: move_live_file
-- Changes nothing when the file became another's meanwhile.
update live_files
   set result_seq = :result_seq, rows = :rows, size_bytes = :size_bytes,
       sha256 = :sha256
 where machine = :this_machine and path = :path and experiment_id = :experiment_id;

-- name: forget_live_file
delete from live_files where machine = :this_machine and path = :path;

-- name: use_of_file
select use from known_files where machine = :this_machine and path = :path;

-- name: forget_export
delete from exports where machine = :this_machine and path = :path;

------------------------------------------------------------------------------- verify

-- name: damage
-- The server keeps its files whole by itself.
select 'ok';

-- name: missing_parents
-- Of rows that point at one which is not there: their table, their number, and that of the other.
select 'work', w.item_id, 'items' from work w left join items i on i.id = w.item_id
 where i.id is null
union all
select 'attempts', a.seq, 'items' from attempts a left join items i on i.id = a.item_id
 where i.id is null
union all
select 'items', i.id, 'experiments' from items i left join experiments e on e.id = i.experiment_id
 where e.id is null
union all
select 'items', i.id, 'recipes' from items i left join recipes r on r.id = i.recipe_id
 where r.id is null
union all
select 'results', r.seq, 'parsers' from results r left join parsers p on p.id = r.parser_id
 where r.parser_id is not null and p.id is null
 limit 20;

-- name: recount_calls
-- What the calls of each experiment used.
select i.experiment_id, count(*) as calls,
       count(*) filter (where a.outcome = 'unknown') as unknown_calls,
       sum(a.latency_ms) as latency_ms, sum(a.prompt_tokens) as prompt_tokens,
       sum(a.completion_tokens) as completion_tokens, sum(a.cached_tokens) as cached_tokens,
       sum(a.reasoning_tokens) as reasoning_tokens, sum(a.cost_usd) as cost_usd
  from attempts a join items i on i.id = a.item_id group by i.experiment_id;

-- name: recount_failed_calls
select i.experiment_id, a.reason, coalesce(a.http_status, 0) as http_status, count(*) as n
  from attempts a join items i on i.id = a.item_id
 where a.reason is not null group by 1, 2, 3;

-- name: recount_minutes
-- What the calls of each minute used, by the minutes; none of those that minute 0 has.
select i.experiment_id, a.finished_at / 60000 as minute,
       count(*) filter (where a.outcome <> 'unknown') as calls,
       sum(a.latency_ms) as latency_ms, sum(a.prompt_tokens) as prompt_tokens,
       sum(a.completion_tokens) as completion_tokens, sum(a.cached_tokens) as cached_tokens,
       sum(a.reasoning_tokens) as reasoning_tokens, sum(a.cost_usd) as cost_usd,
       count(a.latency_ms) filter (where a.outcome = 'answered') as latencies,
       count(*) filter (where a.response <> '') as lengths,
       count(a.reason) as reasons, max(a.latency_ms) as slowest_ms
  from attempts a join items i on i.id = a.item_id
 where a.seq > coalesce((select attempt_seq from before_minutes), 0)
 group by 1, 2 order by 1, 2;

-- name: recount_ends
-- Rows that ended in each minute, by the minutes; none of those that minute 0 has.
select i.experiment_id, r.finished_at / 60000 as minute,
       count(*) filter (where r.state = 'done') as done,
       count(*) filter (where r.state = 'failed') as failed
  from results r join items i on i.id = r.item_id
 where r.reparsed = 0 and r.seq > coalesce((select result_seq from before_minutes), 0)
 group by 1, 2 order by 1, 2;

-- name: recount_latencies
select i.experiment_id, a.latency_ms, count(*) as n
  from attempts a join items i on i.id = a.item_id
 where a.outcome = 'answered' and a.latency_ms is not null
   and a.seq > coalesce((select attempt_seq from before_minutes), 0)
 group by 1, 2;

-- name: recount_lengths
select i.experiment_id, length(a.response) as length, count(*) as n
  from attempts a join items i on i.id = a.item_id
 where a.response <> '' and a.seq > coalesce((select attempt_seq from before_minutes), 0)
 group by 1, 2;

-- name: items_without_key
select w.item_id from work w join items i on i.id = w.item_id and i.parent_id is null
except select item_id from item_keys limit 20;

-- name: unreadable_parsed
-- What spans make is JSON.
select item_id from results where parsed is not null and not is_json(parsed) limit 20;

-- name: spans_outside
-- Pieces of an answer that it does not have.
select r.item_id from results r
 where r.spans is not null and not exists (
   select 1 from attempts a where a.seq = r.attempt_seq
      and not exists (select 1 from json_array_elements(r.spans::json) span
                       where not (span ->> 0)::bigint >= 1
                          or (span ->> 0)::bigint + (span ->> 1)::bigint
                             > length(a.response) + 1)) limit 20;

-- name: unreadable_inputs
select id from items where not is_json(input) limit 20;

-- name: children_miscounted
-- Done rows of which other than so many were made as their result says.
select w.item_id, r.children, made.n as made
  from work w
  join results r on r.seq = w.result_seq
  join lateral (
    select count(*) as n from items i
     where i.parent_id = w.item_id and i.gathered is null and i.parent_result = w.result_seq) made
    on true
 where w.state = 'done' and r.children is not null and made.n <> r.children limit 20;

-- name: not_followed
-- While the plan is another one than all was followed by, some are not yet.
select w.item_id
  from work w
  join experiments e on e.id = w.experiment_id and e.step is not null
  join experiments f on f.id = coalesce(e.first_id, e.id)
       and f.followed_plan_id is not distinct from f.plan_id
  join results r on r.seq = w.result_seq
 where w.state = 'done' and r.children is null limit 20;

-- name: children_of_replaced
-- That are not marked, though their parent has another result by now, or none.
select w.item_id
  from items i
  join work w on w.item_id = i.id and w.state <> 'stale' and w.outdated = 0
  join work p on p.item_id = i.parent_id
 where i.parent_id is not null and i.gathered is null
   and (p.state <> 'done' or i.parent_result is distinct from p.result_seq) limit 20;

-- name: made_of_values
-- The next rows that ended, with what they have seen and what their parents have by now.
select w.item_id, r.made_of, p.passed_on, i.input
  from items i
  join work w on w.item_id = i.id and w.state in ('done', 'failed')
  join results r on r.seq = w.result_seq
  left join results p on p.seq = i.parent_result
 where i.id > :after and i.parent_id is not null and i.gathered is null
 order by i.id limit :limit;

-- name: gathers_what_is_no_more
select distinct g.id
  from items g
  join work w on w.item_id = g.id and w.state <> 'stale' and w.outdated = 0
  join lateral unnest(numbers(g.gathered)) seq (value) on true
  left join results r on r.seq = seq.value
  left join work m on m.item_id = r.item_id and m.state = 'done' and m.result_seq = r.seq
   and m.gathering = g.parent_id
 where g.gathered is not null and m.item_id is null limit 20;

-- name: gathers_too_few
-- Complete gatherings whose row has other than all that is done of the step before it.
with done as materialized (
  select w.gathering as root, count(*) as n
    from work w
    join experiments e on e.id = w.experiment_id
    join experiments g on g.id = e.gathered_by and g.number = e.number + 1
   where w.gathering is not null and w.state = 'done' group by w.gathering)
select g.id
  from items g
  join work w on w.item_id = g.id and w.state <> 'stale' and w.outdated = 0
  left join done on done.root = g.parent_id
 where g.gathered is not null and json_array_length(g.gathered::json) <> coalesce(done.n, 0)
   and not exists (select 1 from work o
                    where o.gathering = g.parent_id and o.state in ('pending', 'running'))
 limit 20;

-- name: steps_out_of_order
select i.id
  from items i
  join experiments e on e.id = i.experiment_id
  join items p on p.id = i.parent_id
  join experiments a on a.id = p.experiment_id
 where i.parent_id is not null
   and (a.number >= e.number or coalesce(a.first_id, a.id) <> coalesce(e.first_id, e.id)) limit 20;

-- name: recount_steps
select experiment_id, sum(ended) as ended, sum(passed_over) as passed_over from (
  select w.experiment_id, count(*) as ended, 0 as passed_over
    from work w
    join experiments e on e.id = w.experiment_id and e.gathered_by is null
    join results r on r.seq = w.result_seq and r.children = 0
   where w.state = 'done' group by 1
  union all
  select s.id, 0, count(*)
    from work w
    join experiments e on e.id = w.experiment_id and e.step is not null
    join results r on r.seq = w.result_seq and r.passed_over > 0
    join experiments s on coalesce(s.first_id, s.id) = coalesce(e.first_id, e.id)
          and s.number > e.number and s.number <= e.number + r.passed_over
   where w.state = 'done' group by 1) counted
 group by experiment_id;

-- name: keys_without_item
select item_id from item_keys except select item_id from work limit 20;

-- name: keys_of_two_items
-- There are none: a key is in its table once.
select item_id from item_keys where false;

------------------------------------------------------------------------------- of PostgreSQL alone

-- name: claim_at_once
-- What `due_and_fresh_items`, `claim_items` and `claimed_items` do one after another, so that there is
-- one wait for all. Of one experiment (null: of what comes first), and nothing for a worker that is to
-- claim nothing, that has an item which may kill it, or as long as one waits that may. Fresh ones are
-- claimed from `:after` on: of those before it, what was claimed may not be cleared away yet. They are
-- mostly in the order of their numbers; a place in the list is looked for from its beginning each time.
with chosen as materialized (
  select coalesce(:experiment_id::bigint, (
    select c.experiment_id from counters c
      join experiments e on e.id = c.experiment_id and e.runs_code = 0
     where c.state = 'pending' and c.n > 0
     group by c.experiment_id, e.number order by e.number desc, c.experiment_id limit 1)) as id),
room as materialized (
  select case when paused = 0 and stop is null
                and (select 1 from work
                      where state = 'pending' and crashes > 0
                        and (answer_seq is not null or runs_code = 1) limit 1) is null
                and not exists (select 1 from (select crashes, answer_seq from work
                                                where state = 'running' and worker_id = :worker_id
                                                limit 2) held
                                 where crashes > 0 and answer_seq is not null)
              then :want::bigint else 0 end as n
    from workers where id = :worker_id),
place as materialized (
  select coalesce((select -priority from work where item_id = :after::bigint),
                  '-9223372036854775808'::bigint) as rank, :after::bigint as id),
due as materialized (
  select item_id from work
   where state = 'pending' and available_at is not null
     and experiment_id = (select id from chosen) and available_at <= :now
   order by available_at, item_id limit coalesce((select n from room), 0)
     for no key update skip locked),
fresh as materialized (
  select item_id from work
   where state = 'pending' and available_at is null
     and (crashes = 0 or (answer_seq is null and runs_code = 0))
     and experiment_id = (select id from chosen)
     and (-priority, item_id) > (select rank, id from place)
   order by -priority, item_id limit coalesce((select n from room), 0) - (select count(*) from due)
     for no key update skip locked),
found as materialized (
  select ids, ids = array(select id from unnest(ids) id order by id) as are_in_order
    from (select array(select item_id from due union all select item_id from fresh) as ids
          offset 0) listed),
claimed as (
  update work
     set state = 'running', worker_id = :worker_id, epoch = epoch + 1, available_at = null
   where item_id = any((select ids from found)::bigint[])
  returning item_id, epoch, experiment_id, tries, parse_failures, answer_seq, gathering, runs_code)
select i.id, w.epoch, w.experiment_id, i.recipe_id, i.custom_id, i.input as input_json,
       w.tries, w.parse_failures, i.sample, w.answer_seq, a.response as answer_text, e.parser_id,
       :server::text as server, i.parent_id, w.gathering, w.runs_code,
       case when e.first_id is null then e.plan_id
            else (select plan_id from experiments f where f.id = e.first_id) end as plan_id
  from claimed w
  join experiments e on e.id = w.experiment_id
  join lateral (select * from items where id = w.item_id offset 0) i on true
  left join lateral (select response from attempts where seq = w.answer_seq offset 0) a on true
 order by case when (select are_in_order from found) then w.item_id
               else array_position((select ids from found), w.item_id) end;

-- name: look_up_keys
-- Those that are known, in no order.
select key, item_id from item_keys where key = any(:keys::bytea[]);

-- name: items_by_keys
-- `keys` are the bytes of all of them, one after another.
select place, i.id, i.input
  from generate_series(0, octet_length(:keys::bytea) / 16 - 1) place
  join lateral (select item_id from item_keys
                 where key = substr(:keys::bytea, 1 + 16 * place, 16) offset 0) k on true
  join lateral (select id, input from items where id = k.item_id offset 0) i on true;

-- name: add_items
-- `texts`, `names` and their spans are as packed.py makes them. Lists that no row has anything of are
-- empty.
insert into items (id, experiment_id, variant, recipe_id, custom_id, input, sample, sample_of)
select :first + place - 1, :experiment_id, :variant, :recipe_id,
       convert_from(nullif(substr(:names::bytea, (name >> 32)::integer,
                                  (name & 4294967295)::integer), ''), 'UTF8'),
       convert_from(substr(:texts::bytea, (span >> 32)::integer, (span & 4294967295)::integer),
                    'UTF8'),
       sample, sample_of
  from unnest(translate(:spans, '[]', '{}')::bigint[], translate(:name_spans, '[]', '{}')::bigint[],
              translate(:samples, '[]', '{}')::bigint[],
              translate(:samples_of, '[]', '{}')::bigint[])
         with ordinality as row (span, name, sample, sample_of, place);

-- name: add_keys
insert into item_keys (key, item_id)
select substr(:keys::bytea, 1 + 16 * place, 16), :first::bigint + place
  from generate_series(0, octet_length(:keys::bytea) / 16 - 1) place;

-- name: add_work
-- Of these items, which are of one experiment.
insert into work (item_id, experiment_id, priority, gathering, runs_code)
select i.id, e.id, :priority, case when e.gathered_by is not null then coalesce(i.sample_of, i.id) end,
       e.runs_code
  from items i join experiments e on e.id = :experiment_id
 where i.id between :first and :last;

-- name: experiment_is_there
select 1 from experiments where id = :experiment_id;

-- name: lease
-- Nobody renews it until the transaction ends.
select number, host, boot_id, pid,
       lease_until - (extract(epoch from clock_timestamp()) * 1000)::bigint as left_ms
  from leases where name = :name for update;

-- name: take_lease
insert into leases (name, number, host, boot_id, pid, lease_until)
values (:name, :number, :host, :boot_id, :pid,
        (extract(epoch from clock_timestamp()) * 1000)::bigint + :lease_ms)
on conflict (name) do update
   set number = excluded.number, host = excluded.host, boot_id = excluded.boot_id,
       pid = excluded.pid, lease_until = excluded.lease_until;

-- name: renew_lease
update leases set lease_until = (extract(epoch from clock_timestamp()) * 1000)::bigint + :lease_ms
 where name = :name and number = :number and lease_until > 0
returning 1;

-- name: give_lease_back
update leases set lease_until = 0 where name = :name and number = :number;

-------------------------------------------------------------------------------
