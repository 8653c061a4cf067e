"""What must be true of a work table on a server when nobody works on it any more."""

from tests.kits.postgres import execute
from tests.kits.typist import Ended

_COUNTED = """
select experiment_id, state, reason, sum(n)::bigint from counters group by 1, 2, 3
having sum(n) <> 0
"""
_RECOUNTED = """
select w.experiment_id, w.state, coalesce(r.reason, ''), count(*)
  from work w left join results r on r.seq = w.result_seq and w.state = 'failed' group by 1, 2, 3
"""
_NONE_OF = {
    "running": "select count(*) from work where state = 'running'",
    "worker left": "select count(*) from workers",
    "item without a state": "select count(*) from items where id not in"
                            " (select item_id from work)",
    "second copy": "select count(*) - count(distinct input) from items"
                   " where parent_id is null and sample_of is null",
    "done without a result": "select count(*) from work w left join results r"
                             " on r.seq = w.result_seq and r.item_id = w.item_id"
                             " where w.state = 'done' and r.seq is null",
    "answered twice by one claim": "select count(*) from (select item_id, epoch from attempts"
                                   " where outcome = 'answered' group by 1, 2"
                                   " having count(*) > 1) twice",
    "counted by nobody who lives": "select count(*) from counters_by_worker"
                                   " where worker_id <> 0 and n <> 0",
}  # fmt: skip
_CALLS = """
select (select coalesce(sum(calls), 0)::bigint from totals), (select count(*) from attempts)
"""


def contradictions_of(url: str, verified: Ended) -> list[str]:
    """A line each."""
    found = [] if verified.code == 0 else [f"verify: {verified.out}{verified.err}"]
    if (counted := sorted(execute(url, _COUNTED))) != (again := sorted(execute(url, _RECOUNTED))):
        found.append(f"counted {counted}, but there are {again}")
    for what, sql in _NONE_OF.items():
        [(n,)] = execute(url, sql)
        found += [f"{n} x {what}"] if n else []
    [(calls, attempts)] = execute(url, _CALLS)
    found += [f"totals of {calls} calls, {attempts} attempts"] if calls != attempts else []
    return found
