-- Several answers per item (`enqueue --samples N`), each in a row of its own. `sample` is its number
-- from 1, null in an ordinary item, and `sample_of` names the row of the first. That one is the item
-- itself: one that was enqueued without samples stays as it is when others join it.

alter table items add column sample integer
  constraint sample_from_one check (sample >= 1);
alter table items add column sample_of integer references items (id)
  constraint first_of_none check ((sample_of is null) = (coalesce(sample, 1) = 1))
  constraint of_another    check (sample_of <> id);

create index items_by_sample on items (sample_of, sample) where sample_of is not null;

drop view item_overview;
create view item_overview as
select e.name as experiment, i.id, i.custom_id, i.sample, w.state, r.reason, r.error, w.attempts,
       i.input, a.response,
       case when w.state = 'done' then coalesce(r.parsed, json_quote(a.response)) end as parsed,
       a.model, a.finish_reason, a.prompt_tokens, a.completion_tokens, a.cost_usd, a.latency_ms,
       r.finished_at
  from work w
  join items i on i.id = w.item_id
  join experiments e on e.id = w.experiment_id
  left join results r on r.seq = w.result_seq
  left join attempts a on a.seq = coalesce(r.attempt_seq, w.answer_seq);
