-- The statements that all engines take as they are, in the order of an item's life; each engine has a
-- file of the others. Loaded by name.
-- States are literals so that the partial indexes apply; time is always a parameter.

------------------------------------------------------------------------------- enqueueing

-- name: find_experiment
select id, name, created_at from experiments where name = :name;

-- name: add_experiment
insert into experiments (name, created_at, parser_id) values (:name, :now, :parser_id)
returning id;

-- name: add_parser
-- Or find it; its files may have changed elsewhere.
insert into parsers (spec, fingerprint, sources, created_at)
values (:spec, :fingerprint, :sources, :now)
on conflict (spec, fingerprint) do update set sources = :sources
returning id;

-- name: find_parser
select id from parsers where spec = :spec and fingerprint = :fingerprint;

-- name: present_parser
select p.id, p.spec, p.fingerprint, p.sources
  from experiments e join parsers p on p.id = e.parser_id where e.id = :experiment_id;

-- name: set_present_parser
update experiments set parser_id = :parser_id where id = :experiment_id;

-- name: find_recipe
select id from recipes where digest = :digest;

-- name: add_recipe
insert into recipes (digest, body, created_at) values (:digest, :body, :now)
returning id;

-- name: variants
-- The newest first.
select number, recipe_id from variants where experiment_id = :experiment_id order by number desc;

-- name: add_variant
insert into variants (experiment_id, number, recipe_id, added_at)
values (:experiment_id, :number, :recipe_id, :now);

-- name: set_recipe_of_variant
update variants set recipe_id = :recipe_id, added_at = :now
 where experiment_id = :experiment_id and number = :number;

-- name: count_running
-- And how many of these are at a provider.
select count(*), count(*) filter (where worker_id in (
         select worker_id from provider_batches where state <> 'closed'))
  from work where experiment_id = :experiment_id and state = 'running';

-- name: count_rows
-- Of all variants, with those of samples.
select coalesce(sum(n), 0) from counters where experiment_id = :experiment_id;

-- name: first_items_with_ids
-- Of a variant, a thousand at most. Before the first of the experiment a scan of the narrow rows.
select id, custom_id, input from items
 where id >= (select min(item_id) from work where experiment_id = :experiment_id)
   and experiment_id = :experiment_id and variant = :variant and custom_id is not null
 order by id limit 1000;

-- name: item_input
select input from items where id = :item_id;

------------------------------------------------------------------------------- chains

-- name: find_plan
select id from plans where digest = :digest;

-- name: add_plan
insert into plans (digest, body, created_at) values (:digest, :body, :now)
returning id;

-- name: chain_steps
select s.id as experiment_id, s.step as name, s.number, v.recipe_id, s.runs_code, s.gathered_by
  from experiments s join variants v on v.experiment_id = s.id and v.number = 1
 where s.id = :first_id or s.first_id = :first_id order by s.number;

-- name: add_step
insert into experiments (name, created_at, parser_id, first_id, step, number, runs_code)
values (:name, :now, :parser_id, :first_id, :step, :number, :runs_code)
returning id;

-- name: gather_by
update experiments set gathered_by = :gathered_by where id = :experiment_id;

-- name: set_gathering
-- Of the rows of a step that is gathered from now on. In the order of the steps.
update work set gathering = (
    select case when i.gathered is not null then i.id
                when i.parent_id is null then coalesce(i.sample_of, i.id) else p.gathering end
      from items i left join work p on p.item_id = i.parent_id where i.id = work.item_id)
 where experiment_id = :experiment_id;

-- name: set_followed
update results set children = :children, passed_over = :passed_over, passed_on = :passed_on
 where seq = :seq;

-- name: end_following
update experiments set followed_plan_id = plan_id where id = :first_id and plan_id = :plan_id;

------------------------------------------------------------------------------- chosen items

-- name: count_all
-- Of its later steps, too.
select state, sum(n) from counters
 where experiment_id = :experiment_id
    or experiment_id in (select id from experiments where first_id = :experiment_id)
 group by state;

-- name: count_all_ended
-- Of a chain's steps.
select coalesce(sum(s.ended), 0)
  from step_counters s join experiments e on e.id = s.experiment_id
 where coalesce(e.first_id, e.id) = :experiment_id;

-- name: add_selection
insert into selections (experiment_id, begun_at, done_before, failed_before)
values (:experiment_id, :now, :done, :failed)
returning id;

-- name: unselect
update work set selection = null where selection = :selection;

-- name: delete_selection
delete from selections where id = :selection;

------------------------------------------------------------------------------- workers

-- name: join_worker
insert into workers (host, boot_id, pid, slots, started_at, lease_until, servers, kind)
values (:host, :boot_id, :pid, :slots, :now, :lease_until, :servers, :kind)
returning id;

-- name: server_ids
select key, id from servers;

-- name: know_server
insert into servers (key, name) values (:key, :name)
on conflict (key) do update set name = excluded.name where servers.name <> excluded.name;

-- name: heartbeat
-- Changes nothing when this worker was taken for dead.
update workers set lease_until = :lease_until where id = :worker_id;

-- name: orders
-- What others want of a worker; no row when it was taken for dead.
select slots, paused, rpm, tpm, stop from workers
 where id = :worker_id;

-- name: save_report
update workers set report = :report where id = :worker_id;

-- name: cap
-- How many calls at once a server takes of all workers, if it has refused any.
select calls_at_once, failed_rises, found_at from servers
 where key = :server and calls_at_once is not null;

-- name: write_cap
update servers set calls_at_once = :calls, failed_rises = :failed_rises, found_at = :now
 where key = :server;

-- name: forget_cap
update servers set calls_at_once = null, failed_rises = 0, found_at = null where key = :server;

-- name: shares
select worker_id, share, held, needs, served_at from shares where server = :server;

-- name: remove_worker
delete from workers where id = :worker_id;

-- name: newest_attempt_at
select finished_at from attempts order by seq desc limit 1;

-- name: shift_retry_times
update work set available_at = available_at - :back
 where state = 'pending' and available_at > :after;

------------------------------------------------------------------------------- provider batches

-- name: batch
select * from batches where number = :number;

-- name: unclosed_batches
-- The oldest first.
select * from batches where state <> 'closed' order by number;

-- name: newest_batches
-- The newest first, before one.
select * from batches where number < :before order by number desc limit :limit;

-- name: rows_in_batches
-- By experiment, how many rows wait for a provider.
select experiment_id, sum(requests - settled) from provider_batches
 where state <> 'closed' group by experiment_id;

-- name: batches_with_files
-- Closed ones whose files may still be at the provider, the newest first.
select * from batches where state = 'closed' and files_gone = 0 order by number desc limit :limit;

-- name: batch_of_token
select id from provider_batches where token = :token;

-- name: batch_of_id
-- By the provider's.
select id from provider_batches where server = :server and batch_id = :batch_id;

-- name: batch_of_item
-- The one that holds a row.
select b.id from work w join provider_batches b on b.worker_id = w.worker_id
 where w.item_id = :item_id;

-- name: was_sent_before
-- Whether a provider has ever had a batch with this recipe.
select 1 from provider_batches
 where experiment_id = :experiment_id and recipe_id = :recipe_id and batch_id is not null limit 1;

-- name: join_batch
insert into workers (host, boot_id, pid, slots, started_at, lease_until, kind)
values ('', '', 0, 0, :now, 0, 'batch')
returning id;

-- name: add_batch
insert into provider_batches (worker_id, experiment_id, recipe_id, server, base_url, endpoint, model,
  token, state, requests, bytes, tokens, reserved_tokens, reserved_cost_usd, input_file, sealed_at)
values (:worker_id, :experiment_id, :recipe_id, :server, :base_url, :endpoint, :model, :token,
  'creating', :requests, :bytes, :tokens, :reserved_tokens, :reserved_cost_usd, :input_file, :now)
returning id;

-- name: batch_was_created
update provider_batches
   set state = 'open', batch_id = :batch_id, status = :status, created_at = :created_at,
       expires_at = :expires_at, absent = 0
 where id = :number and state = 'creating';

-- name: mark_absent
update provider_batches set absent = :absent where id = :number and state = 'creating';

-- name: note_batch
update provider_batches
   set status = :status, answered = :answered, failed = :failed, expires_at = :expires_at
 where id = :number and state = 'open';

-- name: end_batch
-- Once more, when the provider names its files later.
update provider_batches
   set state = 'ended', status = :status, output_file = :output_file, error_file = :error_file,
       answered = :answered, failed = :failed, error = :error, ended_at = coalesce(ended_at, :now)
 where id = :number and state in ('open', 'ended');

-- name: settle_of_batch
update provider_batches set settled = settled + :n where id = :number;

-- name: close_batch
update provider_batches
   set state = 'closed', closed_at = :now, error = coalesce(:error, error), absent = 0
 where id = :number and state <> 'closed';

-- name: files_of_batch_gone
update provider_batches set files_gone = 1 where id = :number and state = 'closed';

------------------------------------------------------------------------------- budget

-- name: overuse
-- How many times as much as was asked for a call has used, where one has used more.
select id, overuse from experiments where overuse > 1;

-- name: reserved
-- For calls, and for those requests of batches that are not settled.
select experiment_id, sum(tokens), sum(cost_usd) from (
  select experiment_id, tokens, cost_usd from reservations
  union all
  select experiment_id, reserved_tokens * (requests - settled) / requests,
         reserved_cost_usd * (requests - settled) / requests
    from provider_batches where state <> 'closed') held
 group by experiment_id;

-- name: spent
select experiment_id, prompt_tokens + completion_tokens + unknown_tokens, cost_usd from totals;

-- name: any_reservation
select 1 from reservations limit 1;

-- name: drop_reservations
-- Of a worker that is gone: calls it never sent.
delete from reservations where worker_id = :worker_id;

------------------------------------------------------------------------------- exchange: finish

-- name: unknown_calls_of_claim
-- As many as `remove_unknown_attempt` finds; no row when the item is gone.
select (select count(*) from attempts a
         where a.item_id = i.id and a.epoch = :epoch and a.outcome = 'unknown'
           and a.cost_usd is null)
  from items i where i.id = :item_id;

------------------------------------------------------------------------------- exchange: steps

-- name: add_gathering
insert into items (id, experiment_id, recipe_id, input, parent_id, gathered)
values (:id, :experiment_id, :recipe_id, '{}', :parent_id, :gathered);

-- name: add_gathering_work
insert into work (item_id, experiment_id, priority, selection, gathering, runs_code)
select :id, :experiment_id, priority, selection, :gathering, :runs_code
  from work where item_id = :parent_id;

-- name: set_gathered
update items set gathered = :gathered where id = :item_id;

-- name: fail_without_call
update work set state = 'failed', available_at = null, answer_seq = null, result_seq = :result_seq
 where item_id = :item_id and state <> 'running';

------------------------------------------------------------------------------- exchange: claim

-- name: chains_begun
select e.id, e.number, e.step, coalesce(s.ended, 0) as ended,
       coalesce(sum(c.n) filter (where c.state = 'done'), 0) as done,
       coalesce(sum(c.n) filter (where c.state = 'running'), 0) as running,
       coalesce(sum(c.n) filter (where c.state = 'pending'), 0) as pending,
       (select count(*) from suspects x
         where x.experiment_id = e.id
           and x.server not in (select server from condemned_runs)) as suspects
  from experiments e
  left join step_counters s on s.experiment_id = e.id
  left join counters c on c.experiment_id = e.id
 group by e.id, s.ended;

-- name: newest_failure
select error from results where state = 'failed' order by seq desc limit 1;

-- name: shared_rate
select updated_at, requests, tokens, paused_until, ceiling_per_s, cut_share, limited_s, cut_at,
       cut_effective_at, taken_since_cut, tested_share, stray_share, stray_known_calls,
       stray_recent_calls, stray_recent_refused
  from shared_rates where server = :server;

-- name: shared_rates
select server, updated_at, requests, tokens, paused_until, ceiling_per_s, cut_share, limited_s,
       cut_at, cut_effective_at, taken_since_cut, tested_share, stray_share, stray_known_calls,
       stray_recent_calls, stray_recent_refused
  from shared_rates order by server;

-- name: calls_ahead
select worker_id, calls, until from calls_ahead where server = :server;

-- name: take_calls_ahead
-- Not for a worker that was taken for dead.
insert into calls_ahead (server, worker_id, calls, until)
select :server, id, :calls, :until from workers where id = :worker_id
on conflict (server, worker_id) do update set calls = excluded.calls, until = excluded.until;

-- name: write_shared_rate
insert into shared_rates (server, updated_at, requests, tokens, paused_until, ceiling_per_s,
  cut_share, limited_s, cut_at, cut_effective_at, taken_since_cut, tested_share, stray_share,
  stray_known_calls, stray_recent_calls, stray_recent_refused)
values (:server, :updated_at, :requests, :tokens, :paused_until, :ceiling_per_s, :cut_share,
  :limited_s, :cut_at, :cut_effective_at, :taken_since_cut, :tested_share, :stray_share,
  :stray_known_calls, :stray_recent_calls, :stray_recent_refused)
on conflict (server) do update
   set updated_at = :updated_at, requests = :requests, tokens = :tokens,
       paused_until = :paused_until, ceiling_per_s = :ceiling_per_s, cut_share = :cut_share,
       limited_s = :limited_s, cut_at = :cut_at, cut_effective_at = :cut_effective_at,
       taken_since_cut = :taken_since_cut, tested_share = :tested_share,
       stray_share = :stray_share, stray_known_calls = :stray_known_calls,
       stray_recent_calls = :stray_recent_calls, stray_recent_refused = :stray_recent_refused;

------------------------------------------------------------------------------- exchange: trials

-- name: proven_recipes
select recipe_id from proven_recipes where server = :server and proven_until is null;

-- name: prove_recipe
insert into proven_recipes (server, recipe_id) values (:server, :recipe_id)
on conflict (server, recipe_id) do update set proven_until = null;

-- name: sole_asker
select worker_id, asks_from from sole_askers where server = :server;

-- name: ask_alone
-- Unless another one does that is still there. Who takes its place waits, as it may have halted, and
-- the processes of its run are stopped then.
insert into sole_askers (server, worker_id, asks_from) values (:server, :worker_id, 0)
on conflict (server) do update set worker_id = excluded.worker_id, asks_from = :asks_from
 where sole_askers.worker_id not in (select id from workers);

-- name: forget_sole_asker
delete from sole_askers where server = :server;

-- name: forget_calls_on_trial
delete from calls_on_trial where server = :server;

-- name: share_refused
-- Of all calls, those that failed with an HTTP status, and all.
select coalesce((select sum(n) from failed_calls where http_status = :http_status), 0),
       coalesce((select sum(calls) from totals), 0);

-- name: suspects
select item_id, experiment_id, recipe_id, alike, probe, attempt_seq, reason, error, available_at,
       sent_at, ended_at, halt
  from suspects where server = :server order by item_id;

-- name: hold_suspect
-- It is back already, and is not claimed while it is one.
update work set available_at = :until where item_id = :item_id and state = 'pending';

-- name: give_back_unasked
-- A claim for which there is no room, of this exchange: as if it had not been made.
update work
   set state = 'pending', worker_id = null
 where item_id = :item_id and state = 'running' and worker_id = :worker_id;

-- name: fail_suspect
-- The fault was its own.
update work
   set state = 'failed', available_at = null, tries = tries + 1, result_seq = :result_seq
 where item_id = :item_id and state = 'pending';

-- name: retry_suspect
-- The fault was its own, and another try may do.
update work set available_at = :available_at, tries = tries + :tries
 where item_id = :item_id and state = 'pending';

-- name: parser_of_item
-- What its answer would be read with.
select e.parser_id from work w join experiments e on e.id = w.experiment_id
 where w.item_id = :item_id;

-- name: release_suspects
update work set available_at = null
 where state = 'pending' and item_id in (select item_id from suspects where server = :server);

-- name: forget_suspects
delete from suspects where server = :server;

-- name: condemned_run
select run from condemned_runs where server = :server;

-- name: forget_condemned_run
delete from condemned_runs where server = :server;

-- name: forget_proven_recipes
-- But for whose attempts the fault was their own.
-- Nor of those of whom nobody knows.
update proven_recipes
   set proven_until = coalesce(
         (select min(attempt_seq) - 1 from suspects where server = :server),
         (select max(seq) from attempts), 0)
 where server = :server and proven_until is null;

-- name: experiment_name
select name from experiments where id = :experiment_id;

-- name: was_answered_before
select 1 from proven_recipes where server = :server and recipe_id = :recipe_id;

-- name: newest_recipes
select id, created_at, body from recipes order by id desc limit :limit;

-- name: all_variants
select experiment_id, number, recipe_id from variants order by experiment_id, number;

-- name: recipe
select body from recipes where id = :recipe_id;

------------------------------------------------------------------------------- operator

-- name: answer_of_item
-- Of one that is done, or that failed at its parser.
select w.item_id, w.experiment_id, i.custom_id, w.result_seq, a.seq as attempt_seq, r.reason,
       r.error, r.parsed, r.parser_id, i.input, a.response, a.finish_reason,
       a.vector is not null as is_vector
  from work w
  join result_values r on r.seq = w.result_seq and r.parser_id is not null
  join attempts a on a.seq = r.attempt_seq and a.outcome = 'answered'
  join items i on i.id = w.item_id
 where w.item_id = :item_id and w.state in ('done', 'failed');

-- name: left_reparsing
-- By a process that is gone.
select item_id, alone from reparsing where parser_id = :parser_id;

-- name: rename_experiment
update experiments set name = :new_name where id = :experiment_id;

-- name: rename_steps
-- With the experiment whose steps they are.
update experiments set name = :new_name || '/' || step where first_id = :experiment_id;

-- name: later_steps
-- The last first, as its rows are made of the others'.
select id from experiments where first_id = :experiment_id order by number desc;

-- name: first_step
-- Of an experiment that is a later step.
select f.name from experiments e join experiments f on f.id = e.first_id where e.id = :experiment_id;

-- name: ungather
update experiments set gathered_by = null
 where id = :experiment_id or first_id = :experiment_id;

-- name: delete_keys
delete from item_keys where item_id in (select id from items where experiment_id = :experiment_id);

-- name: delete_results
delete from results where item_id in (select id from items where experiment_id = :experiment_id);

-- name: delete_experiment
delete from experiments where id = :experiment_id;

------------------------------------------------------------------------------- reading

-- name: counters
select experiment_id, state, reason, n from counters where n > 0;

-- name: parser_counters
select c.experiment_id, c.parser_id, p.spec, p.fingerprint, c.n
  from parser_counters c join parsers p on p.id = c.parser_id where c.n > 0;

-- name: totals
select experiment_id, calls, unknown_calls, latency_ms, prompt_tokens, completion_tokens,
       cached_tokens, reasoning_tokens, cost_usd, retried from totals;

-- name: failed_calls
select experiment_id, reason, http_status, n, newest_error from failed_calls where n > 0;

-- name: answer_vector
select vector from attempts where seq = :attempt_seq;

-- name: last_bad_answer
-- What an item's parser could not use, and why.
select response, error from attempts
 where item_id = :item_id and outcome = 'answered' and error is not null
 order by seq desc limit 1;

-- name: other_samples
-- Of an item, by its first.
select i.id from items i join work w on w.item_id = i.id
 where i.sample_of = :item_id order by i.sample;

-- name: item
select i.id, e.name as experiment, i.custom_id, i.sample, i.input, i.recipe_id, w.state, r.reason,
       r.error, coalesce(r.parsed, a.vector) as parsed, r.finished_at, a.response, p.spec as parser,
       w.result_seq
  from items i
  join experiments e on e.id = i.experiment_id
  join work w on w.item_id = i.id
  left join result_values r on r.seq = w.result_seq
  left join attempts a on a.seq = r.attempt_seq
  left join parsers p on p.id = r.parser_id
 where i.id = :item_id;

-- name: moved_to
select other from moves where went = 1;

-- name: failed_rows
-- A page of the export, in the order of the pool; see also done_rows.
select * from item_results
 where id > :after and experiment_id = :experiment_id and state = 'failed' order by id limit :limit;

-- name: done_and_failed_rows
select * from item_results
 where id > :after and experiment_id = :experiment_id and state in ('done', 'failed')
 order by id limit :limit;

------------------------------------------------------------------------------- pages

-- name: attempt_text
-- All that came back from a call.
select item_id, outcome, error, response, body from attempts where seq = :seq;

-- name: result_value
-- What a row once ended with, whether or not it is its result now.
select r.seq, r.item_id, r.state, r.reason, r.error, r.parsed, a.response, r.attempt_seq,
       p.spec as parser, r.finished_at
  from result_values r
  left join attempts a on a.seq = r.attempt_seq
  left join parsers p on p.id = r.parser_id
 where r.seq = :seq;

-- name: former_results
-- What an item ended with before, the newest first, without the rest of long texts.
select r.seq, r.state, r.reason, r.error, r.finished_at, p.spec as parser,
       substr(coalesce(r.parsed, a.response), 1, cast(:chars as integer)) as text
  from result_values r
  left join attempts a on a.seq = r.attempt_seq
  left join parsers p on p.id = r.parser_id
 where r.item_id = :item_id
   and not exists (select 1 from work w where w.item_id = r.item_id and w.result_seq = r.seq)
 order by r.seq desc limit :limit;

-- name: first_sample
-- Of an item that has several; no row of an ordinary one.
select coalesce(sample_of, id) from items where id = :item_id and sample is not null;

-- name: samples_of_first
-- With the first.
select i.id, i.sample, w.state
  from items i join work w on w.item_id = i.id where i.id = :first
union all
select i.id, i.sample, w.state
  from items i join work w on w.item_id = i.id where i.sample_of = :first
 order by 2;

------------------------------------------------------------------------------- minutes

-- name: before_minutes
select attempt_seq from before_minutes;

------------------------------------------------------------------------------- reviews

-- name: standing_for_review
-- How an item stands, whether its answer is its parsed value, and what was said of it.
select w.state, w.result_seq,
       r.parsed is null and r.spans is null and a.vector is null as is_text,
       v.result_seq as reviewed_seq, v.verdict, v.note, v.edited, v.before
  from work w
  left join results r on r.seq = w.result_seq
  left join attempts a on a.seq = r.attempt_seq
  left join reviews v on v.item_id = w.item_id
 where w.item_id = :item_id;

-- name: write_review
insert into reviews (item_id, result_seq, verdict, note, edited, before, reviewed_at)
values (:item_id, :result_seq, :verdict, :note, :edited, :before, :now)
on conflict (item_id) do update
   set result_seq = excluded.result_seq, verdict = excluded.verdict, note = excluded.note,
       edited = excluded.edited, before = excluded.before, reviewed_at = excluded.reviewed_at;

-- name: delete_review
delete from reviews where item_id = :item_id;

------------------------------------------------------------------------------- live files

-- name: superseded_of_all
select coalesce(sum(superseded_results), 0) from experiments;

-- name: superseded_of_chain
select sum(superseded_results) from experiments where id = :first_id or first_id = :first_id;

------------------------------------------------------------------------------- verify

-- name: recount
select experiment_id, state, reason, n from (
  select w.experiment_id, w.state, coalesce(r.reason, '') as reason, count(*) as n
    from work w left join results r on r.seq = w.result_seq and w.state <> 'stale'
   group by 1, 2, 3) counted;

-- name: recount_parsers
select w.experiment_id, r.parser_id, count(*) as n
  from work w join results r on r.seq = w.result_seq
 where w.state <> 'stale' and r.parser_id is not null group by 1, 2;

-- name: stale_reservations
-- Money that a budget holds back for a call that nobody has in flight.
select r.item_id from reservations r
  left join work w on w.item_id = r.item_id and w.epoch = r.epoch and w.state = 'running'
   and w.worker_id = r.worker_id
  left join workers k on k.id = r.worker_id
 where w.item_id is null or k.id is null limit 20;

-- name: done_without_answer
-- What the user's function ended has none.
select w.item_id from work w
  left join results r on r.seq = w.result_seq and r.item_id = w.item_id and r.state = w.state
  left join attempts a on a.seq = r.attempt_seq and a.item_id = w.item_id and a.outcome = 'answered'
 where w.state = 'done' and (a.seq is null) = (w.runs_code = 0 or r.seq is null) limit 20;

-- name: failed_without_result
select w.item_id from work w
  left join results r on r.seq = w.result_seq and r.item_id = w.item_id and r.state = w.state
 where w.state = 'failed' and r.seq is null limit 20;

-- name: results_without_attempt
select r.seq from results r left join attempts a on a.seq = r.attempt_seq and a.item_id = r.item_id
 where r.attempt_seq is not null and a.seq is null limit 20;

-- name: results_without_item
select r.seq from results r left join items i on i.id = r.item_id where i.id is null limit 20;

-- name: reviews_of_no_result
-- Of what their item never was done with.
select v.item_id from reviews v
  left join results r on r.seq = v.result_seq and r.item_id = v.item_id and r.state = 'done'
 where r.seq is null limit 20;

-- name: missing_answers
select w.item_id from work w
  left join attempts a on a.seq = w.answer_seq and a.item_id = w.item_id and a.outcome = 'answered'
 where w.answer_seq is not null and a.seq is null limit 20;

-- name: running_without_worker
select w.item_id from work w left join workers k on k.id = w.worker_id
 where w.state = 'running' and k.id is null limit 20;

-- name: batches_miscounted
-- How many rows each has, and how many are settled, of so many.
select b.id, b.requests, b.settled,
       (select count(*) from work w where w.state = 'running' and w.worker_id = b.worker_id) as held
  from provider_batches b
 where b.requests <> b.settled +
       (select count(*) from work w where w.state = 'running' and w.worker_id = b.worker_id)
 limit 20;

-- name: batches_without_holder
select b.id from provider_batches b
  left join workers k on k.id = b.worker_id and k.kind = 'batch'
 where b.state <> 'closed' and k.id is null limit 20;

-- name: holders_without_batch
select k.id from workers k
  left join provider_batches b on b.worker_id = k.id and b.state <> 'closed'
 where k.kind = 'batch' and b.id is null limit 20;

-- name: minutes
-- All of them, by the minutes.
select experiment_id, minute, done, failed, calls, latency_ms, prompt_tokens, completion_tokens,
       cached_tokens, reasoning_tokens, cost_usd, latencies, lengths, reasons, slowest_ms
  from minutes order by experiment_id, minute;

-- name: wrong_slowest
-- What is said to be the slowest call of a minute, and is not one of it that took so long.
select m.experiment_id, m.minute from minutes m
  left join attempts a on a.seq = m.slowest and a.latency_ms = m.slowest_ms
   and a.finished_at / 60000 = m.minute
  left join items i on i.id = a.item_id and i.experiment_id = m.experiment_id
 where m.slowest is not null and i.id is null limit 20;

-- name: repeated_ids
select custom_id, experiment_id from items i
 where custom_id is not null and exists (select 1 from work w where w.item_id = i.id)
 group by experiment_id, variant, custom_id, coalesce(sample, 1) having count(*) > 1 limit 20;

-- name: step_counters
-- Of all steps that there are.
select e.id as experiment_id, coalesce(c.ended, 0) as ended,
       coalesce(c.passed_over, 0) as passed_over
  from experiments e left join step_counters c on c.experiment_id = e.id
 where e.step is not null;
