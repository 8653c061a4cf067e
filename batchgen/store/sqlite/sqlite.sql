-- Every statement that SQLite spells its own way; another engine has a text of each, too. What it
-- alone has use for stands at the end. Loaded by name.
-- States are literals so that the partial indexes apply; time is always a parameter.

------------------------------------------------------------------------------- enqueueing

-- name: rows_to_ask
-- Those of a variant that are asked with another recipe, by `:choice`. not_done: the ones without an
-- answer, also one that waits for its parser; all: but those that are done with it; other: those
-- that have another one, when the variant has it already, and not by a retry with other parameters.
-- `:ids`: of these rows alone.
select w.state, coalesce(r.reason, '') as reason, r.parser_id, count(*) as n, r.children,
       r.passed_over
  from work w
  cross join items i on i.id = w.item_id and i.variant = :number
  left join results r on r.seq = w.result_seq
 where w.experiment_id = :experiment_id
   and w.state <> 'stale' and case :choice when 'not_done' then w.state <> 'done' and w.answer_seq is null
                    when 'all' then w.state <> 'done' or i.recipe_id <> :recipe_id
                    else :recipe_id not in (i.recipe_id, coalesce(i.base_recipe_id, 0)) end
   and (:ids is null or w.item_id in (select value from json_each(:ids)))
 group by w.state, r.reason, r.parser_id, r.children, r.passed_over;

-- name: ask_rows
-- The same, back to pending with all tries. Before they get their recipe.
update work
   set state = 'pending', available_at = null, epoch = epoch + 1, tries = 0, crashes = 0,
       parse_failures = 0, answer_seq = null, result_seq = null
 where experiment_id = :experiment_id and state <> 'running'
   and item_id in (
     select w.item_id from work w cross join items i on i.id = w.item_id and i.variant = :number
      where w.experiment_id = :experiment_id
        and w.state <> 'stale' and case :choice when 'not_done' then w.state <> 'done' and w.answer_seq is null
                         when 'all' then w.state <> 'done' or i.recipe_id <> :recipe_id
                         else :recipe_id not in (i.recipe_id, coalesce(i.base_recipe_id, 0)) end
        and (:ids is null or w.item_id in (select value from json_each(:ids))));

-- name: give_recipe
-- They are pending now, without an answer.
update items set recipe_id = :recipe_id, base_recipe_id = null
 where variant = :number and (:choice <> 'other' or base_recipe_id is not :recipe_id)
   and id in (select item_id from work
               where experiment_id = :experiment_id and state = 'pending' and answer_seq is null);

-- name: changed_inputs
-- The places of those whose text is another; `pairs` has for each its item and the span of its text.
select json_group_array(pair.key)
  from json_each(:pairs) pair cross join items i on i.id = json_extract(pair.value, '$[0]')
 where i.input <> cast(substr(:texts, json_extract(pair.value, '$[1]') >> 32,
                              json_extract(pair.value, '$[1]') & 4294967295) as text);

-- name: move_counter
-- The max keeps a decrease from failing the check before SQLite sees that the row is there.
insert into counters (experiment_id, state, reason, n)
values (:experiment_id, :state, :reason, max(:delta, 0))
on conflict (experiment_id, state, reason) do update set n = n + :delta;

-- name: move_parser_counter
insert into parser_counters (experiment_id, parser_id, n)
values (:experiment_id, :parser_id, max(:delta, 0))
on conflict (experiment_id, parser_id) do update set n = n + :delta;

------------------------------------------------------------------------------- chains

-- name: chain
select f.id, f.plan_id, p.body, f.followed_plan_id is f.plan_id
  from experiments e
  join experiments f on f.id = coalesce(e.first_id, e.id)
  join plans p on p.id = f.plan_id
 where e.id = :experiment_id;

-- name: set_plan
-- Where nothing is there yet, nothing is to be followed. By another plan lines of files are others.
update experiments
   set superseded_results = superseded_results + coalesce(plan_id <> :plan_id, 0),
       step = :step, runs_code = :runs_code, plan_id = :plan_id,
       followed_plan_id = iif(:is_followed, :plan_id, followed_plan_id)
 where id = :first_id;

-- name: rows_to_stale
-- Those of a step of which the parent is not done any more, or whose gathering is not complete.
select w.state, coalesce(r.reason, '') as reason, r.parser_id, count(*) as n, r.children,
       r.passed_over
  from work w
  cross join items i on i.id = w.item_id
  cross join work p on p.item_id = i.parent_id
  left join results r on r.seq = w.result_seq
 where w.experiment_id = :experiment_id and w.state <> 'stale'
   and iif(i.gathered is null, p.state <> 'done',
           exists (select 1 from work g indexed by work_gathering
                    where g.gathering = i.parent_id and g.state in ('pending', 'running')))
 group by w.state, r.reason, r.parser_id, r.children, r.passed_over;

-- name: stale_rows
-- The same. One that runs ends so.
update work
   set state = iif(state = 'running', state, 'stale'),
       outdated = iif(state = 'running', max(outdated, 1), 0),
       available_at = null, epoch = epoch + (state <> 'running')
 where item_id in (
   select w.item_id
     from work w
     cross join items i on i.id = w.item_id
     cross join work p on p.item_id = i.parent_id
    where w.experiment_id = :experiment_id and w.state <> 'stale'
      and iif(i.gathered is null, p.state <> 'done',
              exists (select 1 from work g indexed by work_gathering
                       where g.gathering = i.parent_id and g.state in ('pending', 'running'))));

-- name: rows_to_follow
-- Done rows of a step, in the order of their numbers.
select w.item_id, w.experiment_id, e.number, i.custom_id, i.input as input_json, w.result_seq,
       coalesce(r.parsed, a.vector) as parsed_json, a.response
  from work w not indexed
  cross join experiments e on e.id = w.experiment_id
  cross join result_values r on r.seq = w.result_seq
  cross join items i on i.id = w.item_id
  left join attempts a on a.seq = r.attempt_seq
 where w.item_id > :after and w.experiment_id = :experiment_id and w.state = 'done'
 order by w.item_id limit :limit;

-- name: gatherings_without_row
-- Each is looked at once, not for each of its rows: these may be the elements of a long list.
with gathering (root) as materialized (
  select distinct w.gathering
    from work w cross join items root on root.id = w.gathering
   where w.gathering is not null
     and (:ids is null or w.experiment_id in (select value from json_each(:ids))))
select root from gathering
 where not exists (select 1 from work o indexed by work_gathering
                    where o.gathering = root and o.state in ('pending', 'running'))
   and not exists (select 1 from items g indexed by items_children
                    where g.parent_id = root and g.gathered is not null)
 limit :limit;

-- name: stale_page
select item_id from work indexed by work_stale
 where state = 'stale' and experiment_id = :experiment_id and item_id > :after
 order by item_id limit :limit;

-- name: parents_done
-- Of rows, those whose parent is done with the result that they are to be made of; and of those that
-- gather, where nothing is open any more.
select i.id from json_each(:ids) chosen
  cross join items i on i.id = chosen.value
  cross join work p on p.item_id = i.parent_id
 where iif(i.gathered is null, p.state = 'done' and p.result_seq is i.parent_result,
           i.gathered <> '[]' and
           not exists (select 1 from work g indexed by work_gathering
                        where g.gathering = i.parent_id and g.state in ('pending', 'running')));

-- name: unmade
--- Of rows, those that are made of nothing more, or of such.
with recursive up (row, id) as (
  select value, value from json_each(:ids)
  union all
  select up.row, i.parent_id from up cross join items i on i.id = up.id
   where i.parent_id is not null)
select distinct up.row from up cross join items i on i.id = up.id
 where i.parent_id is not null and i.parent_result is null and i.gathered is null;

-- name: count_unmade
-- Of the first stale rows of an experiment.
with recursive stale (row) as (
  select item_id from work indexed by work_stale
   where state = 'stale' and experiment_id = :experiment_id order by item_id limit :limit),
up (row, id) as (
  select row, row from stale
  union all
  select up.row, i.parent_id from up cross join items i on i.id = up.id
   where i.parent_id is not null)
select count(distinct up.row) from up cross join items i on i.id = up.id
 where i.parent_id is not null and i.parent_result is null and i.gathered is null;

-- name: stale_to_ask
-- Of experiments (null: of all), those with stale rows that are not `unmade`.
select e.id from experiments e
 where (:ids is null or e.id in (select value from json_each(:ids)))
   and exists (
     select 1 from work w indexed by work_stale
      where w.state = 'stale' and w.experiment_id = e.id
        and not exists (
          with recursive up (id) as (
            select w.item_id
            union all
            select i.parent_id from up cross join items i on i.id = up.id
             where i.parent_id is not null)
          select 1 from up cross join items i on i.id = up.id
           where i.parent_id is not null and i.parent_result is null and i.gathered is null));

-- name: give_present_recipe
-- To one that is asked anew, unless a retry has changed the present one for it.
update items set recipe_id = v.recipe_id, base_recipe_id = null
  from variants v
 where items.id = :item_id and v.experiment_id = items.experiment_id and v.number = items.variant
   and items.base_recipe_id is not v.recipe_id;

-- name: forget_ended
-- Its chains go on.
update step_counters set ended = 0 where experiment_id = :experiment_id;

------------------------------------------------------------------------------- chosen items

-- name: with_rows_below
-- Items, and all that was made of them.
with recursive below (id) as (
  select value from json_each(:ids)
  union all
  select i.id
    from below b cross join items i indexed by items_children on i.parent_id = b.id)
select json_group_array(id) from below;

-- name: count_chosen
-- The chosen items by state.
select w.state, count(*) from json_each(:ids) chosen cross join work w on w.item_id = chosen.value
 group by w.state;

-- name: count_chosen_ended
-- Of chosen rows, those at which a chain has ended.
select count(*)
  from json_each(:ids) chosen
  cross join work w on w.item_id = chosen.value and w.state = 'done'
  cross join experiments e on e.id = w.experiment_id and e.gathered_by is null
  cross join results r on r.seq = w.result_seq and r.children = 0;

-- name: count_selected_ended
-- The same of those of a selection that were open, by a look at each that is done.
select count(*)
  from work w indexed by work_selected
  cross join experiments e on e.id = w.experiment_id and e.gathered_by is null
  cross join results r on r.seq = w.result_seq and r.children = 0
 where w.selection = :selection and w.state = 'done';

-- name: select_open
update work not indexed set selection = :selection
 where item_id in (select value from json_each(:ids)) and state in ('pending', 'running');

-- name: selection_counts
-- A scan of the index over the selection.
select state, count(*) as n from work indexed by work_selected
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
       stop = iif(stop = 'now', stop, coalesce(:stop, stop))
 where id = :worker_id;

-- name: workers
-- Those with a process. `calls`: those that may be in flight, or may have been when the worker died.
select id, host, boot_id, pid, slots, started_at, lease_until, paused, stop, report, servers,
       kind,
       (select coalesce(sum(1 + second_call), 0) from work indexed by work_claimed
         where state = 'running' and worker_id = workers.id and answer_seq is null
           and runs_code = 0 and workers.kind = 'caller') as calls
  from workers where kind <> 'batch' order by id;

-- name: write_share
insert into shares (server, worker_id, share, held, needs, served_at)
values (:server, :worker_id, :share, :held, :needs, :served_at)
on conflict (server, worker_id) do update
   set share = :share, held = :held, needs = :needs, served_at = :served_at;

-- name: claims_of_worker
select w.item_id, w.experiment_id, w.epoch, w.answer_seq, e.parser_id, w.gathering, w.crashes,
       w.second_call, w.outdated, w.runs_code
  from work w indexed by work_claimed
  cross join experiments e on e.id = w.experiment_id
 where w.state = 'running' and w.worker_id = :worker_id;

-- name: some_claims_of_worker
-- The same of so many.
select w.item_id, w.experiment_id, w.epoch, w.answer_seq, e.parser_id, w.gathering, w.crashes,
       w.second_call, w.outdated, w.runs_code
  from work w indexed by work_claimed
  cross join experiments e on e.id = w.experiment_id
 where w.state = 'running' and w.worker_id = :worker_id limit :limit;

-- name: take_back
-- What a dead worker was working on goes back to the others.
update work
   set state = iif(outdated, 'stale', 'pending'), worker_id = null, epoch = epoch + 1,
       second_call = 0, crashes = crashes + :crashed,
       answer_seq = iif(outdated = 2, null, answer_seq), outdated = 0
 where item_id = :item_id and state = 'running';

-- name: charge
-- One more try used up, whoever has the item by now.
update work set tries = tries + 1 where item_id = :item_id;

------------------------------------------------------------------------------- provider batches

-- name: seal_claims
-- Of claims ([item, epoch]) those that a sender holds are a batch's from now on.
update work not indexed set worker_id = :batch
  from json_each(:claims) claim
 where item_id = json_extract(claim.value, '$[0]') and epoch = json_extract(claim.value, '$[1]')
   and worker_id = :sender;

-- name: held_by_batch
-- Of rows those that it holds, with the answers that wait for their parser.
select w.item_id, w.epoch, w.answer_seq
  from json_each(:ids) chosen cross join work w on w.item_id = chosen.value
 where w.worker_id = :worker_id;

-- name: page_of_batch
-- The next rows that it holds.
select item_id from work indexed by work_claimed
 where state = 'running' and worker_id = :worker_id and item_id > :after
 order by item_id limit :limit;

-- name: page_of_batch_before
-- The same backwards.
select item_id from work indexed by work_claimed
 where state = 'running' and worker_id = :worker_id and item_id < :before
 order by item_id desc limit :limit;

-- name: holders_of_batches
-- Of some experiments.
select worker_id from provider_batches
 where state <> 'closed' and experiment_id in (select value from json_each(:experiment_ids));

------------------------------------------------------------------------------- budget

-- name: note_overuse
update experiments set overuse = max(overuse, :overuse) where id = :experiment_id;

-- name: reservations_of
select r.item_id, r.epoch, r.asked, r.tokens, r.cost_usd
  from json_each(:ids) claim cross join reservations r on r.item_id = claim.value;

-- name: reserve
-- For a claim that holds.
insert into reservations (item_id, epoch, experiment_id, worker_id, asked, tokens, cost_usd)
values (:item_id, :epoch, :experiment_id, :worker_id, :asked, :tokens, :cost_usd)
on conflict (item_id) do update
   set epoch = excluded.epoch, worker_id = excluded.worker_id, asked = excluded.asked,
       tokens = excluded.tokens, cost_usd = excluded.cost_usd;

-- name: settle_reservation
delete from reservations where item_id = :item_id and epoch = :epoch;

------------------------------------------------------------------------------- exchange: finish

-- name: claims_not_as_usual
-- Of claims ([item, epoch]) those that do not hold, as their items are not running by them; and those
-- that do, but what their items were made of is being replaced, or has been.
select json_extract(claim.value, '$[0]'), json_extract(claim.value, '$[1]'),
       iif(w.epoch = json_extract(claim.value, '$[1]'), w.outdated, null)
  from json_each(:claims) claim
  left join work w on w.item_id = json_extract(claim.value, '$[0]') and w.state = 'running'
 where w.epoch is not json_extract(claim.value, '$[1]') or w.outdated <> 0;

-- name: begin_second_calls
-- Of claims by item, with their epochs: each is about to be sent once more. Fenced as `settle`.
update work not indexed set second_call = 1
  from json_each(:claims) claim
 where item_id = cast(claim.key as integer) and epoch = claim.value and state = 'running'
returning item_id;

-- name: settle
-- The end of a claim. Fenced: changes nothing when the item was taken back meanwhile.
update work not indexed
   set state = ended.state, available_at = ended.available_at, worker_id = null, second_call = 0,
       outdated = 0, tries = tries + charged, parse_failures = parse_failures + parse_failed,
       answer_seq = ended.answer_seq, result_seq = ended.result_seq
  from (with ended (item_id, epoch, state, available_at, charged, parse_failed, answer_seq,
                    result_seq) as (
          values (:item_id, :epoch, :state, :available_at, :charged, :parse_failed, :answer_seq,
                  :result_seq))
        select * from ended) ended
 where work.item_id = ended.item_id and work.epoch = ended.epoch and work.state = 'running';

-- name: add_to_totals
insert into totals (experiment_id, calls, unknown_calls, unknown_tokens, latency_ms, prompt_tokens,
  completion_tokens, cached_tokens, reasoning_tokens, cost_usd, retried)
values (:experiment_id, :calls, :unknown_calls, :unknown_tokens, :latency_ms, :prompt_tokens,
  :completion_tokens, :cached_tokens, :reasoning_tokens, :cost_usd, :retried)
on conflict (experiment_id) do update
   set calls = calls + :calls, unknown_calls = unknown_calls + :unknown_calls,
       unknown_tokens = unknown_tokens + :unknown_tokens,
       latency_ms = latency_ms + :latency_ms, prompt_tokens = prompt_tokens + :prompt_tokens,
       completion_tokens = completion_tokens + :completion_tokens,
       cached_tokens = cached_tokens + :cached_tokens,
       reasoning_tokens = reasoning_tokens + :reasoning_tokens, cost_usd = cost_usd + :cost_usd,
       retried = retried + :retried;

-- name: count_steps
insert into step_counters (experiment_id, ended, passed_over)
values (:experiment_id, max(:ended, 0), max(:passed_over, 0))
on conflict (experiment_id) do update
   set ended = ended + :ended, passed_over = passed_over + :passed_over;

-- name: add_failed_calls
insert into failed_calls (experiment_id, reason, http_status, n, newest_error)
values (:experiment_id, :reason, :http_status, :n, :newest_error)
on conflict (experiment_id, reason, http_status) do update
   set n = n + :n, newest_error = :newest_error;

-- name: add_to_minutes
-- What has buckets is given with what was there, added up.
insert into minutes (experiment_id, minute, done, failed, calls, latency_ms, prompt_tokens,
  completion_tokens, cached_tokens, reasoning_tokens, cost_usd, latencies, lengths, reasons,
  slowest, slowest_ms)
values (:experiment_id, :minute, :done, :failed, :calls, :latency_ms, :prompt_tokens,
  :completion_tokens, :cached_tokens, :reasoning_tokens, :cost_usd, :latencies, :lengths, :reasons,
  :slowest, :slowest_ms)
on conflict (experiment_id, minute) do update
   set done = done + excluded.done, failed = failed + excluded.failed,
       calls = calls + excluded.calls, latency_ms = latency_ms + excluded.latency_ms,
       prompt_tokens = prompt_tokens + excluded.prompt_tokens,
       completion_tokens = completion_tokens + excluded.completion_tokens,
       cached_tokens = cached_tokens + excluded.cached_tokens,
       reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
       cost_usd = cost_usd + excluded.cost_usd, latencies = excluded.latencies,
       lengths = excluded.lengths, reasons = excluded.reasons,
       slowest = iif(excluded.slowest_ms > coalesce(slowest_ms, -1), excluded.slowest, slowest),
       slowest_ms = iif(excluded.slowest_ms > coalesce(slowest_ms, -1), excluded.slowest_ms,
                        slowest_ms);

-- name: remove_unknown_attempt
-- Of a worker that was taken for dead: what came after all takes its place.
-- What a budget has counted for it stays.
delete from attempts
 where seq = (select max(seq) from attempts
               where item_id = :item_id and epoch = :epoch and outcome = 'unknown'
                 and cost_usd is null);

-- name: append_attempt
insert into attempts (seq, item_id, epoch, worker_id, server_id, finished_at, latency_ms, outcome,
  reason, error, http_status, request_id, model, finish_reason, prompt_tokens, completion_tokens,
  cached_tokens, reasoning_tokens, cost_usd, response, vector, body)
values (:seq, :item_id, :epoch, :worker_id, :server_id, :finished_at, :latency_ms, :outcome,
  :reason, :error, :http_status, :request_id, :model, :finish_reason, :prompt_tokens,
  :completion_tokens, :cached_tokens, :reasoning_tokens, :cost_usd, :response, :vector, :body);

-- name: note_parse_error
-- Of an answer that was kept before it was parsed.
update attempts set error = :error where seq = :seq;

-- name: append_result
insert into results (seq, item_id, attempt_seq, state, reason, error, parsed, spans, parser_id,
  reparsed, finished_at)
values (:seq, :item_id, :attempt_seq, :state, :reason, :error, :parsed, :spans, :parser_id,
  :reparsed, :finished_at);

-- name: append_result_of_step
insert into results (seq, item_id, attempt_seq, state, reason, error, parsed, spans, parser_id,
  reparsed, finished_at, made_of, children, passed_over, passed_on)
values (:seq, :item_id, :attempt_seq, :state, :reason, :error, :parsed, :spans, :parser_id,
  :reparsed, :finished_at, :made_of, :children, :passed_over, :passed_on);

-- name: keep_answer
-- The answer is durable; the item stays claimed until it is parsed. Fenced as `settle`.
update work set answer_seq = :answer_seq, second_call = 0
 where item_id = :item_id and epoch = :epoch and state = 'running';

------------------------------------------------------------------------------- exchange: steps

-- name: steps_of
-- All steps of the chains to which some experiments belong, and the recipes of their new rows.
select f.id as first_id, f.plan_id, s.id as experiment_id, s.number, v.recipe_id, s.runs_code,
       s.gathered_by
  from experiments f
  cross join experiments s on s.id = f.id or s.first_id = f.id
  cross join variants v on v.experiment_id = s.id and v.number = 1
 where f.id in (select coalesce(e.first_id, e.id)
                  from json_each(:ids) wanted
                 cross join experiments e on e.id = wanted.value and e.step is not null);

-- name: add_work_of_children
-- Of the items from `first` to `last`, which were made in the same transaction. Each is as urgent as
-- its parent, and chosen with it.
insert into work (item_id, experiment_id, priority, selection, gathering, runs_code)
select i.id, i.experiment_id, p.priority, p.selection, p.gathering, e.runs_code
  from items i cross join experiments e on e.id = i.experiment_id
 cross join work p on p.item_id = i.parent_id
 where i.id between :first and :last;

-- name: standing
select i.id as item_id, i.experiment_id, i.parent_id, i.element, i.input, i.parent_result,
       i.gathered, i.sample, w.state, w.outdated, w.gathering, w.answer_seq, w.result_seq,
       r.state as result_state, r.reason, r.parser_id, r.attempt_seq, r.made_of, r.children,
       r.passed_over, r.passed_on, p.passed_on as stands_for
  from json_each(:ids) wanted
  cross join items i on i.id = wanted.value
  cross join work w on w.item_id = i.id
  left join results r on r.seq = w.result_seq
  left join results p on p.seq = i.parent_result;

-- name: children_of
-- But for what gathers.
select i.id from json_each(:ids) parent
  cross join items i indexed by items_children on i.parent_id = parent.value
 where i.gathered is null;

-- name: rows_below
-- All that was made of some rows, and of these in turn, or gathers them.
with recursive below (id) as (
  select i.id from json_each(:ids) above
   cross join items i indexed by items_children on i.parent_id = above.value
  union
  select g.id from json_each(:ids) above
   cross join work w on w.item_id = above.value
   cross join items g indexed by items_children on g.parent_id = w.gathering
   where g.gathered is not null
  union
  select i.id from below b cross join items i indexed by items_children on i.parent_id = b.id
  union
  select g.id from below b
   cross join work w on w.item_id = b.id
   cross join items g indexed by items_children on g.parent_id = w.gathering
   where g.gathered is not null)
select id from below;

-- name: make_stale
-- One that runs ends so.
update work
   set state = iif(state = 'running', state, 'stale'), outdated = (state = 'running'),
       available_at = null, epoch = epoch + (state <> 'running')
 where item_id = :item_id;

-- name: restore
-- One that ended while it was outdated is to be parsed again, as nobody has followed it.
update work
   set (state, answer_seq, result_seq) = (
     select iif(r.seq is null or (r.state = 'done' and r.children is null), 'pending', r.state),
            iif(r.state = 'done' and r.children is null, r.attempt_seq, old.answer_seq),
            iif(r.state = 'done' and r.children is null, null, r.seq)
       from work old left join results r on r.seq = old.result_seq
      where old.item_id = work.item_id),
       epoch = epoch + 1
 where item_id = :item_id and state = 'stale';

-- name: present_of
-- What rows would be made of by now, and whether all of that is there.
select i.id,
       iif(i.gathered is null, i.parent_result is not null and p.state = 'done',
           not exists (select 1 from work g indexed by work_gathering
                        where g.gathering = i.parent_id and g.state in ('pending', 'running'))),
       i.input, i.gathered, r.passed_on
  from json_each(:ids) claim
  cross join items i on i.id = claim.value
  cross join work p on p.item_id = i.parent_id
  left join results r on r.seq = i.parent_result;

-- name: gatherings_of
select distinct w.gathering from json_each(:ids) chosen cross join work w on w.item_id = chosen.value
 where w.gathering is not null;

-- name: complete_gatherings
select root.value from json_each(:ids) root
 where not exists (select 1 from work w indexed by work_gathering
                    where w.gathering = root.value and w.state in ('pending', 'running'));

-- name: rows_of_gatherings
-- By the roots: these, their other samples, and all that was made of them but for what gathers.
with recursive inside (root, id) as (
  select root.value, root.value from json_each(:ids) root
  union all
  select root.value, s.id from json_each(:ids) root
   cross join items s indexed by items_by_sample on s.sample_of = root.value
  union all
  select n.root, i.id from inside n
   cross join items i indexed by items_children on i.parent_id = n.id where i.gathered is null)
select root, id from inside;

-- name: gathering_rows
select g.parent_id, g.id from json_each(:ids) root
  cross join items g indexed by items_children on g.parent_id = root.value
 where g.gathered is not null;

-- name: passed_on
select seq, passed_on from json_each(:seqs) wanted cross join results on seq = wanted.value;

-- name: add_child
insert into items (id, experiment_id, recipe_id, input, parent_id, parent_result, element)
values (:id, :experiment_id, :recipe_id, :input, :parent_id, :parent_result, :element);

-- name: make_of
update items set parent_result = :parent_result, input = :input where id = :item_id;

-- name: set_outdated
update work set outdated = :outdated where item_id = :item_id and state = 'running';

-- name: ask_anew
-- What it was not asked before.
update work
   set state = 'pending', available_at = null, epoch = epoch + 1, tries = 0, crashes = 0,
       parse_failures = 0, answer_seq = null, result_seq = null
 where item_id = :item_id and state <> 'running';

------------------------------------------------------------------------------- exchange: claim

-- name: open_experiments
-- Experiments with something to claim at a server: later steps first, then the oldest.
select distinct c.experiment_id
  from counters c cross join experiments e on e.id = c.experiment_id and e.runs_code = 0
 where c.state = 'pending' and c.n > 0 order by e.number desc, c.experiment_id;

-- name: parsed_alone
-- How many claims a worker has, two at most; whether one of these has lost a worker while it was
-- parsed; and whether any item waits that has.
select count(*), coalesce(max(is_suspect), 0),
       exists (select 1 from work indexed by work_crashed
                where state = 'pending' and crashes > 0
                  and (answer_seq is not null or runs_code = 1))
  from (select crashes > 0 and (answer_seq is not null or runs_code = 1) as is_suspect
          from work indexed by work_claimed
         where state = 'running' and worker_id = :worker_id limit 2);

-- name: claim_crashed
-- One whose worker died while its answer was being parsed.
update work
   set state = 'running', worker_id = :worker_id, epoch = epoch + 1
 where item_id = (select item_id from work indexed by work_crashed
                   where state = 'pending' and crashes > 0
                     and (answer_seq is not null or runs_code = 1)
                     and experiment_id = :experiment_id
                     and (:selection is null or selection = :selection)
                   order by item_id limit 1)
returning item_id;

-- name: selected_chains_begun
-- As `chains_begun`, of a selection: by a look at each of its rows; what was done before is not counted.
select e.id, e.number, e.step,
       count(r.seq) filter (where r.children = 0 and e.gathered_by is null) as ended,
       count(*) filter (where w.state = 'done') as done,
       count(*) filter (where w.state = 'running') as running,
       count(*) filter (where w.state = 'pending') as pending,
       (select count(*) from suspects x
         cross join work s on s.item_id = x.item_id and s.selection = :selection
         where x.experiment_id = e.id
           and x.server not in (select server from condemned_runs)) as suspects
  from work w indexed by work_selected
  cross join experiments e on e.id = w.experiment_id
  left join results r on w.state = 'done' and r.seq = w.result_seq
 where w.selection = :selection
 group by e.id;

-- name: due_items
-- Retries whose time has come, longest due first. All in one row, as the next ones: for each row that
-- is read Python's lock is given away.
select json_group_array(item_id)
  from (select item_id from work indexed by work_waiting
         where state = 'pending' and available_at is not null
           and experiment_id = :experiment_id and available_at <= :now
         order by available_at, item_id limit :want);

-- name: claim_items
-- Those that were found, in the same transaction.
update work
   set state = 'running', worker_id = :worker_id, epoch = epoch + 1, available_at = null
 where item_id in (select value from json_each(:ids));

-- name: due_and_fresh_items
-- The same, and then items never tried, highest priority first, then in the order of the pool.
select json_group_array(item_id) from (
  select item_id from (
    select item_id from work indexed by work_waiting
     where state = 'pending' and available_at is not null
       and experiment_id = :experiment_id and available_at <= :now
     order by available_at, item_id limit :want)
  union all
  select item_id from (
    select item_id from work indexed by work_fresh
     where state = 'pending' and available_at is null
       and (crashes = 0 or (answer_seq is null and runs_code = 0))
       and experiment_id = :experiment_id
     order by priority desc, item_id limit :want)
  limit :want);

-- name: selected_due_items
-- The same two of a selection.
select json_group_array(item_id)
  from (select item_id from work indexed by work_selected
         where selection = :selection and experiment_id = :experiment_id and state = 'pending'
           and available_at is not null and available_at <= :now
         order by available_at, priority desc, item_id limit :want);

-- name: selected_due_and_fresh_items
select json_group_array(item_id) from (
  select item_id from (
    select item_id from work indexed by work_selected
     where selection = :selection and experiment_id = :experiment_id and state = 'pending'
       and available_at is not null and available_at <= :now
     order by available_at, priority desc, item_id limit :want)
  union all
  select item_id from (
    select item_id from work indexed by work_selected
     where selection = :selection and experiment_id = :experiment_id and state = 'pending'
       and available_at is null and (crashes = 0 or (answer_seq is null and runs_code = 0))
     order by priority desc, item_id limit :want)
  limit :want);

-- name: fresh_span
-- Of the items never tried that come last by priority: the first and the last one.
with last as (
  select priority, item_id from work indexed by work_fresh
   where state = 'pending' and available_at is null and (crashes = 0 or (answer_seq is null and runs_code = 0))
     and experiment_id = :experiment_id
   order by priority, item_id desc limit 1)
select priority, (select item_id from work indexed by work_fresh
                   where state = 'pending' and available_at is null
                     and (crashes = 0 or (answer_seq is null and runs_code = 0))
                     and experiment_id = :experiment_id and priority = last.priority
                   order by item_id limit 1), item_id
  from last;

-- name: claim_fresh_from
-- One of these: while the server answers nobody, they tell whether those that failed are like all
-- the others.
update work
   set state = 'running', worker_id = :worker_id, epoch = epoch + 1
 where item_id = (select item_id from work indexed by work_fresh
                   where state = 'pending' and available_at is null
                     and (crashes = 0 or (answer_seq is null and runs_code = 0))
                     and experiment_id = :experiment_id and priority = :priority
                     and item_id >= :first
                   order by item_id limit 1)
returning item_id;

-- name: selected_fresh_span
with last as (
  select priority, item_id from work indexed by work_selected
   where selection = :selection and experiment_id = :experiment_id
                      and state = 'pending' and available_at is null
     and (crashes = 0 or (answer_seq is null and runs_code = 0))
   order by priority, item_id desc limit 1)
select priority, (select item_id from work indexed by work_selected
                   where selection = :selection and experiment_id = :experiment_id
                      and state = 'pending' and available_at is null
                     and (crashes = 0 or (answer_seq is null and runs_code = 0)) and priority = last.priority
                   order by item_id limit 1), item_id
  from last;

-- name: claim_selected_fresh_from
update work
   set state = 'running', worker_id = :worker_id, epoch = epoch + 1
 where item_id = (select item_id from work indexed by work_selected
                   where selection = :selection and experiment_id = :experiment_id
                      and state = 'pending' and available_at is null
                     and (crashes = 0 or (answer_seq is null and runs_code = 0))
                     and priority = :priority and item_id >= :first
                   order by item_id limit 1)
returning item_id;

-- name: claimed_items
select i.id, w.epoch, w.experiment_id, i.recipe_id, i.custom_id, i.input as input_json,
       w.tries, w.parse_failures, i.sample, w.answer_seq, a.response as answer_text, e.parser_id,
       claimed.value as server, i.parent_id, w.gathering, w.runs_code,
       iif(e.first_id is null, e.plan_id,
           (select plan_id from experiments f where f.id = e.first_id)) as plan_id
  from json_each(:claimed) claimed
  cross join work w on w.item_id = cast(claimed.key as integer)
  cross join experiments e on e.id = w.experiment_id
  cross join items i on i.id = w.item_id
  left join attempts a on a.seq = w.answer_seq;

-- name: parents_of
-- Of rows that were made of others: each one's parent, by which of its results, and whether it
-- gathers.
select i.id, i.parent_id, i.parent_result, i.gathered is not null
  from json_each(:ids) made cross join items i on i.id = made.value
 where i.parent_id is not null;

-- name: links_above
-- Of rows that were made of others: each one's parent, with what it is made of; no result, where it is
-- the root of those that it gathers.
select i.id as made, i.gathered, p.parent_id as above, p.id, p.experiment_id, e.number, p.recipe_id,
       coalesce(r.seq, 0), p.input, coalesce(r.parsed, a.vector), a.response, r.passed_on, p.sample,
       p.custom_id
  from json_each(:ids) made
  cross join items i on i.id = made.value
  cross join items p on p.id = i.parent_id
  cross join experiments e on e.id = p.experiment_id
  left join result_values r on r.seq = i.parent_result
  left join attempts a on a.seq = r.attempt_seq;

-- name: links_gathered
-- The same columns of those that are gathered, by their results.
select r.seq as made, p.gathered, p.parent_id as above, p.id, p.experiment_id, e.number, p.recipe_id,
       r.seq, p.input, coalesce(r.parsed, a.vector), a.response, r.passed_on, p.sample,
       p.custom_id
  from json_each(:seqs) wanted
  cross join result_values r on r.seq = wanted.value
  cross join items p on p.id = r.item_id
  cross join experiments e on e.id = p.experiment_id
  left join attempts a on a.seq = r.attempt_seq;

-- name: next_available_at
select min(available_at) from work indexed by work_waiting
 where state = 'pending' and available_at is not null and experiment_id = :experiment_id;

-- name: next_selected_at
select min(available_at) from work indexed by work_selected
 where selection = :selection and experiment_id = :experiment_id
                      and state = 'pending' and available_at is not null;

------------------------------------------------------------------------------- exchange: trials

-- name: calls_on_trial
-- Calls in flight at a server, of anybody, whose recipe has not been answered yet.
select count(*)
  from calls_on_trial t
  cross join work w on w.item_id = t.item_id and w.epoch = t.epoch
  cross join items i on i.id = w.item_id
 where t.server = :server and w.state = 'running' and w.answer_seq is null
   and not exists (select 1 from proven_recipes p
                    where p.server = :server and p.recipe_id = i.recipe_id
                      and p.proven_until is null);

-- name: add_call_on_trial
insert or replace into calls_on_trial (item_id, epoch, server) values (:item_id, :epoch, :server);

-- name: calls_in_flight
-- Of the workers that ask this server and no other.
select count(*)
  from workers k cross join work w indexed by work_claimed on w.worker_id = k.id
 where k.servers = json_array(:server) and w.state = 'running' and w.answer_seq is null
   and w.runs_code = 0;

-- name: add_suspect
insert or replace into suspects (item_id, experiment_id, recipe_id, server, alike, probe,
  attempt_seq, reason, error, available_at, sent_at, ended_at, halt)
values (:item_id, :experiment_id, :recipe_id, :server, :alike, :probe, :attempt_seq, :reason,
  :error, :available_at, :sent_at, :ended_at, :halt);

-- name: forget_suspect
delete from suspects where item_id = :item_id;

-- name: condemn_run
insert or replace into condemned_runs (server, run) values (:server, :run);

-- name: lengths_of_items
select length(i.input) from json_each(:items) chosen cross join items i on i.id = chosen.value;

-- name: lengths_answered
-- Of the newest items that were, as far as they are not hidden behind very many that failed.
select length(i.input)
  from results r
  cross join items i on i.id = r.item_id
 where r.state = 'done' and i.recipe_id = :recipe_id
   and r.seq > (select coalesce(max(seq), 0) from results) - 100000
 order by r.seq desc limit 500;

-- name: failed_alike_before
-- Whether a call of the item failed in the same way in an earlier run, when others were answered.
select 1 from attempts a cross join proven_recipes p
 where a.item_id = :item_id and a.reason = :reason and a.http_status is :http_status
   and p.server = :server and p.recipe_id = :recipe_id and a.seq <= p.proven_until
 limit 1;

-- name: servers_of_worker
select asked.value from workers w join json_each(w.servers) asked where w.id = :worker_id;

-- name: count_workers_of_server
select count(*) from workers w join json_each(w.servers) asked where asked.value = :server;

------------------------------------------------------------------------------- operator

-- name: failed_items
-- Failed items in the order of the pool, a page at a time.
select w.item_id, w.experiment_id, r.reason, r.error, r.parser_id
  from work w indexed by work_failed join results r on r.seq = w.result_seq
 where w.state = 'failed' and w.experiment_id = :experiment_id and w.item_id > :after
   and (:reason is null or r.reason = :reason)
 order by w.item_id limit :limit;

-- name: ended_items
-- Those of some items that are done or failed.
select w.item_id, w.experiment_id, r.reason, r.error, r.parser_id
  from json_each(:ids) chosen
  cross join work w on w.item_id = chosen.value
  cross join results r on r.seq = w.result_seq
 where w.state in ('done', 'failed');

-- name: items_with_own
-- Those whose own params, or body as in a line of an OpenAI batch, have one of these names.
select i.id
  from json_each(:ids) chosen
  cross join items i on i.id = chosen.value
 where exists (select 1 from json_each(i.input, '$.params') param
                where param.key in (select value from json_each(:names)))
    or (json_type(i.input, '$.body') = 'object'
        and json_type(i.input, '$.custom_id') is not null
        and exists (select 1 from json_each(i.input, '$.body') param
                     where param.key in (select value from json_each(:names))));

-- name: recipes_of_items
select i.id, i.recipe_id from json_each(:ids) chosen cross join items i on i.id = chosen.value;

-- name: unparsed_answers
-- Items that failed at their parser, with the answers that it could not use, in the order of the pool.
-- `:cut_off_too`: also those of which it would have needed the whole.
select w.item_id, w.experiment_id, i.custom_id, w.result_seq, a.seq as attempt_seq, r.reason,
       r.error, r.parsed, r.parser_id, i.input, a.response, a.finish_reason,
       a.vector is not null as is_vector
  from work w indexed by work_failed
  cross join result_values r on r.seq = w.result_seq
         and (r.reason in ('parse', 'crash') or (:cut_off_too and r.reason = 'truncated'))
  cross join attempts a on a.seq = r.attempt_seq and a.outcome = 'answered'
  cross join items i on i.id = w.item_id
 where w.state = 'failed' and w.experiment_id = :experiment_id and w.item_id > :after
 order by w.item_id limit :limit;

-- name: all_answers
-- The same and the done ones.
select w.item_id, w.experiment_id, i.custom_id, w.result_seq, a.seq as attempt_seq, r.reason,
       r.error, r.parsed, r.parser_id, i.input, a.response, a.finish_reason,
       a.vector is not null as is_vector
  from work w not indexed
  cross join result_values r on r.seq = w.result_seq
         and (r.state = 'done' or r.reason in ('parse', 'crash')
              or (:cut_off_too and r.reason = 'truncated'))
  cross join attempts a on a.seq = r.attempt_seq and a.outcome = 'answered'
  cross join items i on i.id = w.item_id
 where w.item_id > :after and w.experiment_id = :experiment_id
   and w.state in ('done', 'failed')
 order by w.item_id limit :limit;

-- name: answers_of_other_parsers
-- What the present parser has not read yet, in the order of the pool.
select w.item_id, w.experiment_id, i.custom_id, w.result_seq, a.seq as attempt_seq, r.reason,
       r.error, r.parsed, r.parser_id, i.input, a.response, a.finish_reason,
       a.vector is not null as is_vector
  from work w not indexed
  cross join result_values r on r.seq = w.result_seq and r.parser_id <> :parser_id
  cross join attempts a on a.seq = r.attempt_seq
  cross join items i on i.id = w.item_id
 where w.item_id > :after and w.experiment_id = :experiment_id
   and w.state in ('done', 'failed')
 order by w.item_id limit :limit;

-- name: ended_by_other_functions
-- Rows of a step that runs code, which the present function has not ended yet.
select w.item_id, w.experiment_id, r.reason, r.error, r.parser_id
  from work w not indexed
  cross join results r on r.seq = w.result_seq and r.parser_id <> :parser_id
 where w.item_id > :after and w.experiment_id = :experiment_id
   and w.state in ('done', 'failed')
 order by w.item_id limit :limit;

-- name: begin_reparsing
insert or replace into reparsing (item_id, parser_id, alone)
select value, :parser_id, :alone from json_each(:ids);

-- name: end_reparsing
delete from reparsing where item_id in (select value from json_each(:ids));

-- name: results_of_items
-- The results by which some items have ended.
select w.item_id, w.result_seq
  from json_each(:ids) chosen cross join work w on w.item_id = chosen.value
 where w.state in ('done', 'failed');

-- name: reopen
-- Back to pending with all tries; the attempts made stay, and the results.
update work
   set state = 'pending', epoch = epoch + 1, tries = 0, crashes = 0, parse_failures = 0,
       answer_seq = null, result_seq = null
 where item_id = :item_id and state in ('done', 'failed');

-- name: count_superseded
-- So many done results are their items' no more; live files that hold them are written anew.
update experiments set superseded_results = superseded_results + :n where id = :experiment_id;

-- name: set_recipe
-- After `retry --set`. With other parameters once more, the base is still that of the first time.
update items set recipe_id = :recipe_id, base_recipe_id = coalesce(base_recipe_id, recipe_id)
 where id = :item_id;

-- name: replace_result
-- Another result from the same answer; the earlier one stays in `results`.
update work set state = :state, result_seq = :new_result_seq
 where item_id = :item_id and result_seq = :result_seq;

-- name: set_parser_of_result
-- Another parser makes the same of the answer.
update results set parser_id = :parser_id where seq = :seq;

-- name: delete_keys_not_sorted
delete from new_item_keys
 where item_id in (select id from items where experiment_id = :experiment_id);

-- name: delete_items
-- Work and attempts go with them.
delete from items where experiment_id = :experiment_id;

-- name: delete_counters
delete from counters where experiment_id = :experiment_id;

-- name: delete_parser_counters
delete from parser_counters where experiment_id = :experiment_id;

-- name: delete_step_counters
delete from step_counters where experiment_id = :experiment_id;

-- name: delete_totals
delete from totals where experiment_id = :experiment_id;

-- name: delete_failed_calls
delete from failed_calls where experiment_id = :experiment_id;

-- name: delete_minutes
delete from minutes where experiment_id = :experiment_id;

-- name: record_export
insert into exports (experiment_id, path, rows, sha256, result_seq, exported_at)
values (:experiment_id, :path, :rows, :sha256, :result_seq, :now)
on conflict (experiment_id, path) do update
   set rows = :rows, sha256 = :sha256, result_seq = :result_seq, exported_at = :now;

------------------------------------------------------------------------------- reading

-- name: change_mark
-- Another one after each commit of another connection.
select data_version as mark from pragma_data_version;

-- name: experiments
-- With the endpoints that their present recipes are for.
select e.id, e.name, e.created_at,
       (select coalesce(group_concat(distinct json_extract(r.body, '$.endpoint')), '')
          from variants v join recipes r on r.id = v.recipe_id
         where v.experiment_id = e.id) as endpoint, e.first_id, e.step, e.number, e.runs_code
  from experiments e order by e.id;

-- name: unknown_calls
-- Sent, answer unknown, oldest first. `booked_usd` is what a budget has counted for it.
select a.seq, i.id as item_id, e.name as experiment, i.recipe_id, i.input,
       a.cost_usd as booked_usd
  from attempts a indexed by attempts_unknown
  cross join items i on i.id = a.item_id
  cross join experiments e on e.id = i.experiment_id
 where a.outcome = 'unknown' and a.seq > :after
   and (:experiment_id is null or i.experiment_id = :experiment_id)
 order by a.seq limit :limit;

-- name: calls_of_worker
-- Those that it had in flight, when it has died; two where a second call was.
select 0 as seq, i.id as item_id, e.name as experiment, i.recipe_id, i.input,
       r.cost_usd as booked_usd
  from work w indexed by work_claimed
  cross join json_each(iif(w.second_call, '[1, 2]', '[1]'))
  cross join items i on i.id = w.item_id
  cross join experiments e on e.id = i.experiment_id
  left join reservations r on r.item_id = w.item_id and r.epoch = w.epoch
 where w.state = 'running' and w.worker_id = :worker_id and w.answer_seq is null
   and w.runs_code = 0 limit :limit;

-- name: recent_finishes
-- Items that a call finished since :since, counted back from the newest; at most :limit are looked at.
-- An answer that was parsed once more was finished by its call, and counts once.
select count(*), min(r.finished_at)
  from (select item_id, attempt_seq, reparsed, finished_at from results
         order by seq desc limit :limit) r
  cross join work w on w.item_id = r.item_id
 where r.finished_at >= :since and r.attempt_seq is not null and not r.reparsed
   and (:experiment_id is null or w.experiment_id = :experiment_id);

-- name: recent_latencies
-- Of the newest calls only: where nothing was ever answered, the search would not end. A line of a
-- provider batch has none.
select a.latency_ms
  from (select item_id, latency_ms, outcome from attempts where seq > :after
         order by seq desc limit :limit) a
  cross join work w on w.item_id = a.item_id
 where a.outcome = 'answered' and a.latency_ms is not null
   and (:experiment_ids is null
        or w.experiment_id in (select value from json_each(:experiment_ids)));

-- name: recent_usage
-- Of the newest calls only, as above; oldest first.
select length(cast(i.input as blob)), a.prompt_tokens + a.completion_tokens
  from (select item_id, seq, prompt_tokens, completion_tokens from attempts
         order by seq desc limit :limit) a
  cross join items i on i.id = a.item_id
 where a.prompt_tokens + a.completion_tokens is not null order by a.seq;

-- name: failures_by_message
-- Each message with how many items have it, the most frequent first.
select r.reason, r.error, count(*) as n, min(w.item_id) as example
  from work w indexed by work_failed join results r on r.seq = w.result_seq
 where w.state = 'failed' and w.experiment_id = :experiment_id
   and (:reason is null or r.reason = :reason)
 group by r.reason, r.error order by n desc, r.reason, r.error;

-- name: last_failures_by_message
-- The same of the last failed items before :before in the order of the pool: so many are read, whatever
-- there are.
select r.reason, r.error, count(*) as n, min(w.item_id) as example
  from (select item_id, result_seq from work indexed by work_failed
         where state = 'failed' and experiment_id = :experiment_id and item_id < :before
         order by item_id desc limit :most) w
  cross join results r on r.seq = w.result_seq
 group by r.reason, r.error order by n desc, r.reason, r.error;

-- name: any_samples
select 1 from items indexed by items_by_sample
 where sample_of is not null and experiment_id = :experiment_id limit 1;

-- name: attempts_of_item
-- With the server, where several have been asked, and the provider batch that it was in.
select a.seq, a.finished_at, a.latency_ms, a.outcome, a.reason, a.error, a.http_status,
       a.request_id, a.model, a.finish_reason, a.prompt_tokens, a.completion_tokens, a.cost_usd,
       a.response, a.body, iif((select count(*) from servers) > 1, s.name, null) as server,
       b.id as batch
  from attempts a
  left join servers s on s.id = a.server_id
  left join provider_batches b on b.worker_id = a.worker_id
 where a.item_id = :item_id
 order by a.seq;

-- name: done_rows
-- A page of the export, in the order of the pool: as the view item_results has them. But the
-- response is the text that it is: json_quote takes four times as long as Python to make JSON of it.
select w.item_id as id, i.custom_id, i.input, a.response, coalesce(r.parsed, a.vector) as parsed,
       iif(instr(i.input, '"metadata"'),
           substr(json_extract(i.input, '$.metadata', '$[0]'), 2,
                  length(json_extract(i.input, '$.metadata', '$[0]')) - length('[,null]')), null)
       as metadata,
       a.model, a.finish_reason, a.prompt_tokens, a.completion_tokens, a.cached_tokens,
       a.reasoning_tokens,
       iif(w.epoch = 1, a.cost_usd, (select sum(cost_usd) from attempts
                                      where item_id = w.item_id and outcome <> 'unknown'))
       as cost_usd,
       w.tries, r.finished_at, i.sample, r.reason, r.error, w.experiment_id, w.state, w.result_seq,
       i.variant
  from work w
  cross join result_values r on r.seq = w.result_seq
  left join attempts a on a.seq = r.attempt_seq
  cross join items i on i.id = w.item_id
 where w.item_id > :after and w.experiment_id = :experiment_id
   and w.state = 'done'
 order by w.item_id limit :limit;

-- name: result_rows
-- The ended ones among chosen items, whatever their end. The join keeps the order of the list.
select r.* from json_each(:ids) chosen cross join item_results r on r.id = chosen.value;

-- name: count_earlier_recipes
-- Chosen items that are done with a recipe that is none of their experiment's any more, nor made of
-- one by a retry with other parameters.
select count(*)
  from json_each(:ids) chosen
 cross join work w on w.item_id = chosen.value and w.state = 'done'
 cross join items i on i.id = w.item_id
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
  from firsts f cross join items s indexed by items_by_sample on s.sample_of = f.id
 order by first, sample;

-- name: rows_of_items
-- The rows of chosen items, each with its first samples, in the order of the list.
select chosen.key as place, cast(chosen.value as integer) as id, 1 as sample
  from json_each(:ids) chosen
union all
select chosen.key, s.id, s.sample
  from json_each(:ids) chosen cross join items s indexed by items_by_sample
       on s.sample_of = chosen.value
 where s.sample <= :samples
 order by place, sample;

-- name: answer_details
-- A body is read only where asked for, and where the answer's text is not all of the answer.
select w.item_id, i.recipe_id, a.http_status, a.request_id,
       iif(:bodies or a.response = '', a.body, null) as body
  from json_each(:ids) chosen
  cross join work w on w.item_id = chosen.value
  cross join results r on r.seq = w.result_seq
  cross join items i on i.id = w.item_id
  left join attempts a on a.seq = r.attempt_seq;

-- name: chain_rows_below
-- Rows of first steps, each with all that was made of it, and of these in turn.
with recursive below (first, id) as (
  select value, value from json_each(:ids)
  union all
  select b.first, i.id
    from below b cross join items i indexed by items_children on i.parent_id = b.id)
select b.first, i.id, i.parent_id, i.experiment_id, e.number, i.element, i.sample, w.state,
       w.result_seq, r.children, i.gathered
  from below b
  cross join items i on i.id = b.id
  cross join experiments e on e.id = i.experiment_id
  cross join work w on w.item_id = i.id
  left join results r on r.seq = w.result_seq;

-- name: chain_rows_above
-- Rows, what they were made of, and what they gather; up to the first ones.
with recursive above (id) as (
  select value from json_each(:ids)
  union
  select i.parent_id from above a cross join items i on i.id = a.id where i.parent_id is not null
  union
  select r.item_id
    from above a cross join items i on i.id = a.id
   cross join json_each(i.gathered) seq cross join results r on r.seq = seq.value)
select coalesce(i.parent_id, i.id) as first, i.id, i.parent_id, i.experiment_id, e.number,
       i.element, i.sample, w.state, w.result_seq, r.children, i.gathered
  from above a
  cross join items i on i.id = a.id
  cross join experiments e on e.id = i.experiment_id
  cross join work w on w.item_id = i.id
  left join results r on r.seq = w.result_seq;

-- name: item_by_key
select item_id from item_keys where key = :key
union all
select item_id from new_item_keys where key = :key;

-- name: exports
select x.experiment_id, e.name as experiment, x.path, x.rows, x.sha256, x.result_seq
  from exports x join experiments e on e.id = x.experiment_id order by x.experiment_id, x.path;

------------------------------------------------------------------------------- pages

-- name: results_before
-- Rows that have ended, the newest first: of the results between two numbers those that are still their
-- rows'.
select r.seq, r.item_id, r.reason
  from results r
  cross join work w on w.item_id = r.item_id and w.result_seq = r.seq
 where r.seq > :after and r.seq < :before
   and w.experiment_id in (select value from json_each(:experiment_ids))
   and w.state = coalesce(:state, w.state) and w.state <> 'stale'
 order by r.seq desc limit :limit;

-- name: results_after
-- The same, the oldest first.
select r.seq, r.item_id, r.reason
  from results r
  cross join work w on w.item_id = r.item_id and w.result_seq = r.seq
 where r.seq > :after and r.seq < :before
   and w.experiment_id in (select value from json_each(:experiment_ids))
   and w.state = coalesce(:state, w.state) and w.state <> 'stale'
 order by r.seq limit :limit;

-- name: rows_after
-- Rows between two numbers, in the order of the pool; in whatever state if none is named.
select item_id, item_id, null as reason from work not indexed
 where item_id > :after and item_id < :before
   and experiment_id in (select value from json_each(:experiment_ids))
   and state = coalesce(:state, state)
 order by item_id limit :limit;

-- name: rows_before
-- The same backwards.
select item_id, item_id, null as reason from work not indexed
 where item_id > :after and item_id < :before
   and experiment_id in (select value from json_each(:experiment_ids))
   and state = coalesce(:state, state)
 order by item_id desc limit :limit;

-- name: failed_after
-- Failed rows in the order of the pool, with their reasons.
select w.item_id, r.reason
  from work w indexed by work_failed cross join results r on r.seq = w.result_seq
 where w.state = 'failed' and w.experiment_id = :experiment_id and w.item_id > :after
 order by w.item_id limit :limit;

-- name: failed_before
-- The same backwards.
select w.item_id, r.reason
  from work w indexed by work_failed cross join results r on r.seq = w.result_seq
 where w.state = 'failed' and w.experiment_id = :experiment_id and w.item_id < :before
 order by w.item_id desc limit :limit;

-- name: stale_before
-- Stale rows against the order of the pool.
select item_id from work indexed by work_stale
 where state = 'stale' and experiment_id = :experiment_id and item_id < :before
 order by item_id desc limit :limit;

-- name: waiting_after
-- Rows that are tried again at a time, the first that is due first.
select available_at, item_id from work indexed by work_waiting
 where state = 'pending' and available_at is not null and experiment_id = :experiment_id
   and (available_at, item_id) > (:at, :after)
 order by available_at, item_id limit :limit;

-- name: waiting_before
-- The same backwards.
select available_at, item_id from work indexed by work_waiting
 where state = 'pending' and available_at is not null and experiment_id = :experiment_id
   and (available_at, item_id) < (:at, :before)
 order by available_at desc, item_id desc limit :limit;

-- name: fresh_after
-- Rows of one priority that are claimed as they come in the pool.
select item_id from work indexed by work_fresh
 where state = 'pending' and available_at is null
   and (crashes = 0 or (answer_seq is null and runs_code = 0))
   and experiment_id = :experiment_id and priority = :priority and item_id > :after
 order by item_id limit :limit;

-- name: fresh_before
-- The same backwards.
select item_id from work indexed by work_fresh
 where state = 'pending' and available_at is null
   and (crashes = 0 or (answer_seq is null and runs_code = 0))
   and experiment_id = :experiment_id and priority = :priority and item_id < :before
 order by item_id desc limit :limit;

-- name: next_lower_priority
-- Of such rows; no row where there is none.
select priority from work indexed by work_fresh
 where state = 'pending' and available_at is null
   and (crashes = 0 or (answer_seq is null and runs_code = 0))
   and experiment_id = :experiment_id and priority < :priority
 order by priority desc limit 1;

-- name: next_higher_priority
-- The same upwards.
select priority from work indexed by work_fresh
 where state = 'pending' and available_at is null
   and (crashes = 0 or (answer_seq is null and runs_code = 0))
   and experiment_id = :experiment_id and priority > :priority
 order by priority limit 1;

-- name: crashed_rows
-- Those at which a worker died while the user's code had their answer: few, as each held a slot.
select item_id from work indexed by work_crashed
 where state = 'pending' and crashes > 0 and (answer_seq is not null or runs_code = 1)
   and available_at is null and experiment_id = :experiment_id
 order by item_id limit :limit;

-- name: running_rows
-- As many as there are slots, at most; not those at a provider.
select w.item_id
  from workers k cross join work w indexed by work_claimed on w.worker_id = k.id
 where k.kind <> 'batch' and w.state = 'running'
   and w.experiment_id in (select value from json_each(:experiment_ids))
 order by w.item_id limit :limit;

-- name: rows_with_text
-- Those of chosen rows that have a text in their id, input, answer, value or error, in the order of the
-- list. `quoted` and `escaped` are how the text may stand in JSON. `:fold`: in whatever case.
select w.item_id
  from json_each(:ids) chosen
  cross join work w on w.item_id = chosen.value
  cross join items i on i.id = w.item_id
  left join results r on r.seq = w.result_seq and w.state <> 'stale'
  left join attempts a on a.seq = coalesce(r.attempt_seq, w.answer_seq)
 where iif(:fold,
           instr(lower(a.response), lower(:text)) or instr(lower(i.input), lower(:quoted))
           or instr(lower(i.input), lower(:escaped)) or instr(lower(i.custom_id), lower(:text))
           or instr(lower(r.parsed), lower(:quoted)) or instr(lower(r.error), lower(:text)),
           instr(a.response, :text) or instr(i.input, :quoted) or instr(i.input, :escaped)
           or instr(i.custom_id, :text) or instr(r.parsed, :quoted) or instr(r.error, :text));

-- name: page_rows
-- Chosen rows as a table shows them, in the order of the list: the beginnings of their texts, and how
-- long these are. As blobs, since functions of texts end at U+0000; a character has 4 bytes at most.
select w.item_id as id, w.experiment_id, i.custom_id, i.sample, w.state, r.reason,
       substr(cast(r.error as blob), 1, 4 * :chars) as error,
       substr(cast(i.input as blob), 1, 4 * :chars) as input,
       length(cast(i.input as blob)) as input_bytes,
       substr(cast(a.response as blob), 1, 4 * :chars) as answer,
       length(cast(a.response as blob)) as answer_bytes,
       substr(cast(coalesce(r.parsed, a.vector) as blob), 1, 16 * :chars) as parsed,
       length(cast(coalesce(r.parsed, a.vector) as blob)) as parsed_bytes,
       w.tries, a.latency_ms, a.prompt_tokens, a.completion_tokens,
       iif(w.epoch = 1, a.cost_usd, (select sum(cost_usd) from attempts
                                      where item_id = w.item_id and outcome <> 'unknown'))
       as cost_usd, r.finished_at, w.available_at, w.result_seq
  from json_each(:ids) chosen
  cross join work w on w.item_id = chosen.value
  cross join items i on i.id = w.item_id
  left join result_values r on r.seq = w.result_seq and w.state <> 'stale'
  left join attempts a on a.seq = coalesce(r.attempt_seq, w.answer_seq);

-- name: origins_of_rows
-- Chosen rows, each with those above it up to the first of its chain, upwards; only of that one the
-- beginning of what it was given. As blobs, as in page_rows.
with recursive above (made, depth, id) as (
  select value, 0, value from json_each(:ids)
  union all
  select a.made, a.depth + 1, i.parent_id
    from above a cross join items i on i.id = a.id where i.parent_id is not null)
select a.made, i.experiment_id, i.element, i.id, i.custom_id, i.sample,
       iif(i.parent_id is null, substr(cast(i.input as blob), 1, 4 * :chars), null) as input
  from above a cross join items i on i.id = a.id order by a.made, a.depth;

-- name: done_by_results
-- Of chosen results those by which rows of an experiment are done, with these; in the order of the list.
select r.seq, r.item_id
  from json_each(:seqs) chosen
  cross join results r on r.seq = chosen.value
  cross join work w on w.item_id = r.item_id and w.result_seq = r.seq
 where w.state = 'done' and w.experiment_id = :experiment_id;

-- name: shown_attempts
-- The newest calls for an item, the last one first: the beginnings of their texts, and how long these
-- are; with the server, where several have been asked, and the provider batch that each was in. As
-- blobs, as in page_rows.
select a.seq, a.finished_at, a.latency_ms, a.outcome, a.reason, a.error, a.http_status,
       a.request_id, a.model, a.finish_reason, a.prompt_tokens, a.completion_tokens,
       a.cached_tokens, a.reasoning_tokens, a.cost_usd,
       substr(cast(a.response as blob), 1, 4 * :chars) as response,
       length(cast(a.response as blob)) as response_bytes,
       substr(cast(a.body as blob), 1, 4 * :chars) as body,
       length(cast(a.body as blob)) as body_bytes,
       iif((select count(*) from servers) > 1, s.name, null) as server, b.id as batch
  from attempts a
  left join servers s on s.id = a.server_id
  left join provider_batches b on b.worker_id = a.worker_id
 where a.item_id = :item_id
 order by a.seq desc limit :limit;

------------------------------------------------------------------------------- minutes

-- name: span_of_minutes
-- The first and the last minute of which anything is known.
select min(first) as first, max(last) as last
  from (select (select min(minute) from minutes m
                 where m.experiment_id = e.value and m.minute > 0) as first,
               (select max(minute) from minutes m
                 where m.experiment_id = e.value and m.minute > 0) as last
          from json_each(:experiment_ids) e);

-- name: points_of_minutes
-- So many minutes each (`every`), without what has buckets.
select minute / :every * :every as minute, sum(done) as done, sum(failed) as failed,
       sum(calls) as calls, sum(prompt_tokens) as prompt_tokens,
       sum(completion_tokens) as completion_tokens, sum(cost_usd) as cost_usd, slowest,
       max(slowest_ms) as slowest_ms
  from minutes
 where experiment_id in (select value from json_each(:experiment_ids))
   and minute between :first and :last group by 1 order by 1;

-- name: slowest_minutes
-- The minutes with the slowest calls.
select minute, slowest, slowest_ms from minutes
 where experiment_id in (select value from json_each(:experiment_ids))
   and minute >= :first and slowest is not null
 order by slowest_ms desc, slowest limit :limit;

-- name: calls_in_minutes
-- Of all experiments; by the primary key.
select m.minute, sum(m.calls) as calls
  from experiments e
  cross join json_each(:minutes) chosen
  cross join minutes m on m.experiment_id = e.id and m.minute = chosen.value
 group by m.minute;

-- name: slowest_between
-- The slowest of the calls with these numbers, which are looked at all.
select a.seq, a.item_id, a.finished_at, a.latency_ms, a.outcome, a.reason
  from attempts a cross join items i on i.id = a.item_id
 where a.seq between :begin and :end and a.latency_ms is not null
   and a.finished_at >= 60000 * :first
   and i.experiment_id in (select value from json_each(:experiment_ids))
 order by a.latency_ms desc, a.seq limit :limit;

-- name: buckets_of_minutes
select minute, latencies, lengths, reasons from minutes
 where experiment_id in (select value from json_each(:experiment_ids))
   and minute between :first and :last;

-- name: until_minute
-- What there was before it.
select coalesce(sum(done), 0) as done, coalesce(sum(failed), 0) as failed,
       coalesce(sum(calls), 0) as calls, coalesce(sum(cost_usd), 0) as cost_usd
  from minutes
 where experiment_id in (select value from json_each(:experiment_ids)) and minute < :first;

-- name: sampled_calls
-- Those of these numbers that are there, and of these experiments.
select a.finished_at / 60000 as minute, a.seq, a.reason, a.latency_ms,
       length(a.response) as length
  from json_each(:seqs) s
  cross join attempts a on a.seq = s.value
  cross join items i on i.id = a.item_id
 where i.experiment_id in (select value from json_each(:experiment_ids))
   and a.outcome <> 'unknown' order by a.seq;

------------------------------------------------------------------------------- reviews

-- name: reviews_of_items
select v.item_id, v.result_seq, v.verdict, v.note, v.edited, v.reviewed_at,
       w.state = 'done' and w.result_seq = v.result_seq as is_current
  from json_each(:ids) chosen
 cross join reviews v on v.item_id = chosen.value
 cross join work w on w.item_id = v.item_id;

-- name: count_reviews
-- Of some experiments. The first :most reviews are looked at, of whatever experiment; are there others?
select coalesce(sum(is_current and verdict = 'accepted'), 0) as accepted,
       coalesce(sum(is_current and verdict = 'rejected'), 0) as rejected,
       coalesce(sum(is_current and verdict is null), 0) as undecided,
       coalesce(sum(is_current and is_edited), 0) as edited,
       coalesce(sum(not is_current), 0) as earlier,
       exists (select 1 from reviews limit 1 offset :most) as is_part
  from (select v.verdict, v.edited is not null as is_edited,
               w.state = 'done' and w.result_seq = v.result_seq as is_current
          from (select * from reviews order by item_id limit :most) v
          cross join work w on w.item_id = v.item_id
         where w.experiment_id in (select value from json_each(:ids)));

-- name: review_page
-- Of some experiments, in the order of the pool; with a `:verdict`, and `:current` or not (null: both).
select v.item_id, v.result_seq, v.verdict, v.note, v.edited, v.reviewed_at,
       w.state = 'done' and w.result_seq = v.result_seq as is_current,
       i.custom_id, i.sample, coalesce(f.name, e.name) as experiment, e.step
  from reviews v
 cross join work w on w.item_id = v.item_id
 cross join items i on i.id = v.item_id
 cross join experiments e on e.id = w.experiment_id
  left join experiments f on f.id = e.first_id
 where v.item_id > :after and w.experiment_id in (select value from json_each(:ids))
   and (:verdict is null or v.verdict = :verdict)
   and (:current is null or :current = (w.state = 'done' and w.result_seq = v.result_seq))
 order by v.item_id limit :limit;

-- name: review_before
-- The last one before an item of an experiment; otherwise as in review_page.
select v.item_id
  from reviews v cross join work w on w.item_id = v.item_id
 where v.item_id < :before and w.experiment_id = :experiment_id
   and (:verdict is null or v.verdict = :verdict)
   and (:current is null or :current = (w.state = 'done' and w.result_seq = v.result_seq))
 order by v.item_id desc limit 1;

------------------------------------------------------------------------------- live files

-- name: live_window
-- The next :limit results of whatever experiment: how many there are, and the newest of them.
select e.superseded_results, count(r.seq), max(r.seq)
  from experiments e
  left join (select seq from results where seq > :after order by seq limit :limit) r
 where e.id = :experiment_id group by e.id;

-- name: live_rows
-- Those of them that are done, and still their items' results, in finishing order.
select r.* from results new cross join item_results r
       on r.id = new.item_id and r.result_seq = new.seq
 where new.seq > :after and new.seq <= :upto and new.state = 'done'
   and r.experiment_id = :experiment_id and r.state = 'done'
 order by new.seq;

-- name: ended_rows
-- The same and the failed ones.
select r.* from results new cross join item_results r
       on r.id = new.item_id and r.result_seq = new.seq
 where new.seq > :after and new.seq <= :upto and r.experiment_id = :experiment_id
 order by new.seq;

-- name: ended_chains
-- The rows with which chains have ended (`:failed_too`: or failed), of the next results up to one; in
-- finishing order.
select new.item_id, new.seq
  from results new
  cross join work w on w.item_id = new.item_id and w.result_seq = new.seq and w.state = new.state
  cross join experiments e on e.id = w.experiment_id and e.gathered_by is null
 where new.seq > :after and new.seq <= :upto
   and (new.children = 0 and new.state = 'done' or :failed_too and new.state = 'failed')
   and (e.id = :first_id or e.first_id = :first_id)
 order by new.seq;

-- name: start_live_file
-- Whatever the file was before, and whose.
insert or replace into live_files
  (path, experiment_id, result_seq, rows, size_bytes, sha256, superseded_results)
values (:path, :experiment_id, :result_seq, :rows, :size_bytes, :sha256, :superseded_results);

-- name: note_file
-- What batchgen has written stays that, though it is read as a pool later.
insert into known_files (path, use) values (:path, :use)
    on conflict do update set use = :use where :use = 'written';

-- name: live_file
select path, experiment_id, result_seq, rows, size_bytes, sha256, superseded_results
  from live_files where path = :path;

-- name: live_files
select path, experiment_id, result_seq, rows, size_bytes, sha256, superseded_results
  from live_files order by path;

-- name: move_live_file
-- Changes nothing when the file became another's meanwhile.
update live_files
   set result_seq = :result_seq, rows = :rows, size_bytes = :size_bytes,
       sha256 = :sha256
 where path = :path and experiment_id = :experiment_id;

-- name: forget_live_file
delete from live_files where path = :path;

-- name: use_of_file
select use from known_files where path = :path;

-- name: forget_export
delete from exports where path = :path;

------------------------------------------------------------------------------- verify

-- name: damage
-- What is wrong with the file itself, a line each; 'ok' where all is well.
pragma integrity_check;

-- name: missing_parents
-- Of rows that point at one which is not there: their table, their number, and that of the other.
pragma foreign_key_check;

-- name: recount_calls
-- What the calls of each experiment used.
select i.experiment_id, count(*) as calls, sum(a.outcome = 'unknown') as unknown_calls,
       sum(a.latency_ms) as latency_ms, sum(a.prompt_tokens) as prompt_tokens,
       sum(a.completion_tokens) as completion_tokens, sum(a.cached_tokens) as cached_tokens,
       sum(a.reasoning_tokens) as reasoning_tokens, sum(a.cost_usd) as cost_usd
  from attempts a cross join items i on i.id = a.item_id group by i.experiment_id;

-- name: recount_failed_calls
select i.experiment_id, a.reason, coalesce(a.http_status, 0) as http_status, count(*) as n
  from attempts a cross join items i on i.id = a.item_id
 where a.reason is not null group by 1, 2, 3;

-- name: recount_minutes
-- What the calls of each minute used, by the minutes; none of those that minute 0 has.
select i.experiment_id, a.finished_at / 60000 as minute, sum(a.outcome <> 'unknown') as calls,
       sum(a.latency_ms) as latency_ms, sum(a.prompt_tokens) as prompt_tokens,
       sum(a.completion_tokens) as completion_tokens, sum(a.cached_tokens) as cached_tokens,
       sum(a.reasoning_tokens) as reasoning_tokens, sum(a.cost_usd) as cost_usd,
       sum(a.outcome = 'answered' and a.latency_ms is not null) as latencies,
       sum(a.outcome = 'answered' and a.response <> '') as lengths,
       count(a.reason) as reasons, max(a.latency_ms) as slowest_ms
  from attempts a cross join items i on i.id = a.item_id
 where a.seq > coalesce((select attempt_seq from before_minutes), 0)
 group by 1, 2 order by 1, 2;

-- name: recount_ends
-- Rows that ended in each minute, by the minutes; none of those that minute 0 has.
select i.experiment_id, r.finished_at / 60000 as minute, sum(r.state = 'done') as done,
       sum(r.state = 'failed') as failed
  from results r cross join items i on i.id = r.item_id
 where r.reparsed = 0 and r.seq > coalesce((select result_seq from before_minutes), 0)
 group by 1, 2 order by 1, 2;

-- name: recount_latencies
select i.experiment_id, a.latency_ms, count(*) as n
  from attempts a cross join items i on i.id = a.item_id
 where a.outcome = 'answered' and a.latency_ms is not null
   and a.seq > coalesce((select attempt_seq from before_minutes), 0)
 group by 1, 2;

-- name: recount_lengths
-- For SQLite a text ends at its first U+0000: such answers are given themselves.
select i.experiment_id, iif(instr(a.response, char(0)), a.response, length(a.response)) as length,
       count(*) as n
  from attempts a cross join items i on i.id = a.item_id
 where a.response <> '' and a.seq > coalesce((select attempt_seq from before_minutes), 0)
 group by 1, 2;

-- name: items_without_key
-- Two sorts; a join would scan the keys for each item, as they are indexed by key only.
select w.item_id from work w cross join items i on i.id = w.item_id and i.parent_id is null
except select item_id from item_keys except select item_id from new_item_keys limit 20;

-- name: unreadable_parsed
select item_id from result_values where parsed is not null and not json_valid(parsed) limit 20;

-- name: spans_outside
-- Pieces of an answer that it does not have.
select r.item_id from results r
 where r.spans is not null and not exists (
   select 1 from attempts a where a.seq = r.attempt_seq
      and not exists (select 1 from json_each(r.spans) span
                       where not json_extract(span.value, '$[0]') >= 1
                          or json_extract(span.value, '$[0]') + json_extract(span.value, '$[1]')
                             > length(a.response) + 1)) limit 20;

-- name: unreadable_inputs
select id from items where not json_valid(input) limit 20;

-- name: children_miscounted
-- Done rows of which other than so many were made as their result says.
select w.item_id, r.children,
       (select count(*) from items i indexed by items_children
         where i.parent_id = w.item_id and i.gathered is null and i.parent_result = w.result_seq)
       as made
  from work w cross join results r on r.seq = w.result_seq
 where w.state = 'done' and r.children is not null and made <> r.children limit 20;

-- name: not_followed
-- While the plan is another one than all was followed by, some are not yet.
select w.item_id
  from work w
  cross join experiments e on e.id = w.experiment_id and e.step is not null
  cross join experiments f on f.id = coalesce(e.first_id, e.id) and f.followed_plan_id is f.plan_id
  cross join results r on r.seq = w.result_seq
 where w.state = 'done' and r.children is null limit 20;

-- name: children_of_replaced
-- That are not marked, though their parent has another result by now, or none.
select w.item_id
  from items i
  cross join work w on w.item_id = i.id and w.state <> 'stale' and w.outdated = 0
  cross join work p on p.item_id = i.parent_id
 where i.parent_id is not null and i.gathered is null
   and (p.state <> 'done' or i.parent_result is not p.result_seq) limit 20;

-- name: made_of_values
-- The next rows that ended, with what they have seen and what their parents have by now.
select w.item_id, r.made_of, p.passed_on, i.input
  from items i
  cross join work w on w.item_id = i.id and w.state in ('done', 'failed')
  cross join results r on r.seq = w.result_seq
  left join results p on p.seq = i.parent_result
 where i.id > :after and i.parent_id is not null and i.gathered is null
 order by i.id limit :limit;

-- name: gathers_what_is_no_more
select distinct g.id
  from items g
  cross join work w on w.item_id = g.id and w.state <> 'stale' and w.outdated = 0
  cross join json_each(g.gathered) seq
  left join results r on r.seq = seq.value
  left join work m on m.item_id = r.item_id and m.state = 'done' and m.result_seq = r.seq
   and m.gathering = g.parent_id
 where g.gathered is not null and m.item_id is null limit 20;

-- name: gathers_too_few
-- Complete gatherings whose row has other than all that is done of the step before it.
with done as materialized (
  select w.gathering as root, count(*) as n
    from work w
    cross join experiments e on e.id = w.experiment_id
    cross join experiments g on g.id = e.gathered_by and g.number = e.number + 1
   where w.gathering is not null and w.state = 'done' group by w.gathering)
select g.id
  from items g
  cross join work w on w.item_id = g.id and w.state <> 'stale' and w.outdated = 0
  left join done on done.root = g.parent_id
 where g.gathered is not null and json_array_length(g.gathered) <> coalesce(done.n, 0)
   and not exists (select 1 from work o indexed by work_gathering
                    where o.gathering = g.parent_id and o.state in ('pending', 'running'))
 limit 20;

-- name: steps_out_of_order
select i.id
  from items i
  cross join experiments e on e.id = i.experiment_id
  cross join items p on p.id = i.parent_id
  cross join experiments a on a.id = p.experiment_id
 where i.parent_id is not null
   and (a.number >= e.number or coalesce(a.first_id, a.id) <> coalesce(e.first_id, e.id)) limit 20;

-- name: recount_steps
select experiment_id, sum(ended) as ended, sum(passed_over) as passed_over from (
  select w.experiment_id, count(*) as ended, 0 as passed_over
    from work w
    cross join experiments e on e.id = w.experiment_id and e.gathered_by is null
    cross join results r on r.seq = w.result_seq and r.children = 0
   where w.state = 'done' group by 1
  union all
  select s.id, 0, count(*)
    from work w
    cross join experiments e on e.id = w.experiment_id and e.step is not null
    cross join results r on r.seq = w.result_seq and r.passed_over > 0
    cross join experiments s on coalesce(s.first_id, s.id) = coalesce(e.first_id, e.id)
          and s.number > e.number and s.number <= e.number + r.passed_over
   where w.state = 'done' group by 1)
 group by experiment_id;

-- name: keys_without_item
select item_id from item_keys union select item_id from new_item_keys
except select item_id from work limit 20;

-- name: keys_of_two_items
-- One that waits may be sorted in already, of the same item.
select n.item_id from new_item_keys n join item_keys k on k.key = n.key
 where k.item_id <> n.item_id
union all
select max(item_id) from new_item_keys group by key having count(*) > 1 limit 20;

------------------------------------------------------------------------------- of SQLite alone: minutes

-- name: buckets_of_minute
select latencies, lengths, reasons from minutes
 where experiment_id = :experiment_id and minute = :minute;

------------------------------------------------------------------------------- of SQLite alone: intake

-- name: waiting_keys
-- Those of new_item_keys by key, of who enqueues.
create temp table if not exists waiting_keys (
  key     blob    primary key,
  item_id integer not null
) without rowid;

-- name: met_items
-- The known items that a pass over a pool has met, as spans of their numbers; none is in two.
create temp table if not exists met_items (
  first integer primary key,
  last  integer not null
);

-- name: met_again
-- Of which more copies than one were met, or made.
create temp table if not exists met_again (
  item_id integer primary key,
  copies  integer not null
);

-- name: pass_in_memory
-- As much of them as `item_keys.MOST_WAITING` takes; more goes to a file.
pragma temp.cache_size = -24576;

-- name: forget_waiting_keys
delete from temp.waiting_keys;

-- name: forget_met_items
delete from temp.met_items;

-- name: forget_met_again
delete from temp.met_again;

-- name: recall_waiting_keys
insert into temp.waiting_keys (key, item_id) select key, item_id from new_item_keys order by key;

-- name: look_up_keys
-- `keys` are the bytes of all of them, one after another, and `numbers` a list from 0 on, one for each.
-- Their numbers in another order, and a list of their items in that, null for those that are not known.
-- In the order of the keys each page is touched once.
with wanted as materialized (
  select value as number, substr(:keys, 1 + 16 * value, 16) as key
    from json_each(:numbers) order by key)
select json_group_array(w.number), json_group_array(coalesce(k.item_id, n.item_id))
  from wanted w
  left join item_keys k on k.key = w.key
  left join temp.waiting_keys n on n.key = w.key;

-- name: append_keys
insert into new_item_keys (item_id, key)
select :first + value, substr(:keys, 1 + 16 * value, 16) from json_each(:numbers);

-- name: note_waiting_keys
-- `places` are a list, for each of the `keys` how far its item is from the first.
insert into temp.waiting_keys (key, item_id)
select substr(:keys, 1 + 16 * key, 16), :first + value from json_each(:places);

-- name: count_new_keys
-- By the ends of their numbers, which mostly follow each other.
select coalesce((select max(item_id) from new_item_keys)
                - (select min(item_id) from new_item_keys) + 1, 0);

-- name: sort_keys_in
insert into item_keys (key, item_id)
select key, item_id from new_item_keys
 where key >= :since and (:until is null or key < :until) order by key
on conflict (key) do nothing;

-- name: delete_new_keys
delete from new_item_keys;

-- name: key_page
select key from item_keys where key > :after order by key limit :limit;

-- name: any_met
-- Whether any item of these spans was met.
select exists (
  select 1 from json_each(:spans) span
   where (select last from temp.met_items where first <= json_extract(span.value, '$[1]')
           order by first desc limit 1) >= json_extract(span.value, '$[0]')
      or exists (select 1 from temp.met_again
                  where item_id between json_extract(span.value, '$[0]')
                                    and json_extract(span.value, '$[1]')));

-- name: count_met_items
-- A list for the one of their numbers, with nulls as above.
select json_group_array(coalesce(
         (select copies from temp.met_again where item_id = wanted.value),
         (select iif(last >= wanted.value, 1, null) from temp.met_items where first <= wanted.value
           order by first desc limit 1)))
  from json_each(:ids) wanted;

-- name: note_met_items
insert into temp.met_items (first, last)
select json_extract(value, '$[0]'), json_extract(value, '$[1]') from json_each(:spans);

-- name: note_met_again
-- `copies` are by their items.
insert or replace into temp.met_again (item_id, copies)
select key, value from json_each(:copies);

-- name: last_id
-- The highest id ever given out in a table, also to rows deleted since.
select coalesce((select seq from sqlite_sequence where name = :name), 0);

-- name: add_items
-- `texts` and `spans` are as packed.py makes them. If `:more`, a span is a list: the span itself, that of
-- the item's id in `ids`, its sample number and its first sample, or nulls.
insert into items (id, experiment_id, variant, recipe_id, input, custom_id, sample, sample_of)
select :first + key, :experiment_id, :variant, :recipe_id,
       iif(:more, cast(substr(:texts, json_extract(value, '$[0]') >> 32,
                              json_extract(value, '$[0]') & 4294967295) as text),
                  cast(substr(:texts, value >> 32, value & 4294967295) as text)),
       iif(:more, cast(substr(:ids, json_extract(value, '$[1]') >> 32,
                              json_extract(value, '$[1]') & 4294967295) as text), null),
       iif(:more, json_extract(value, '$[2]'), null), iif(:more, json_extract(value, '$[3]'), null)
  from json_each(:spans);

-- name: add_work
-- Of all the items from `first` on, which are of one experiment.
insert into work (item_id, experiment_id, priority, gathering, runs_code)
select id, experiment_id, :priority,
       iif((select gathered_by from experiments where id = :experiment_id) is null, null,
           coalesce(sample_of, id)),
       (select runs_code from experiments where id = :experiment_id)
  from items where id >= :first;

-- name: items_by_keys
-- `keys` and `numbers` are as in look_up_keys.
with wanted as materialized (
  select value as place, substr(:keys, 1 + 16 * value, 16) as key from json_each(:numbers))
select w.place, i.id, i.input
  from (select w.place, k.item_id from wanted w cross join item_keys k on k.key = w.key
        union
        select w.place, k.item_id from new_item_keys k cross join wanted w on w.key = k.key) w
 cross join items i on i.id = w.item_id;
