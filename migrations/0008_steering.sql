-- Orders from another terminal, for the workers that live when they are given (`slots` is one too),
-- and what each worker tells of itself. A limit of null is the one that the worker was started with.

alter table workers add column paused integer not null default 0
  constraint paused_or_not check (paused in (0, 1));
alter table workers add column requests_per_minute integer
  constraint requests_not_negative check (requests_per_minute >= 0);
alter table workers add column tokens_per_minute integer
  constraint tokens_not_negative check (tokens_per_minute >= 0);
alter table workers add column stop text
  constraint stop_known check (stop in ('drain', 'now'));
alter table workers add column report text
  constraint report_is_json check (report is null or json_valid(report));
