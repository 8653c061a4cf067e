"""The calls that took longest: looked for in the minutes that have the slowest ones."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from batchgen.store.minutes import BEFORE
from batchgen.store.page_records import Call, Slowest
from batchgen.store.transactions.rows import listed, rows_of

if TYPE_CHECKING:
    from batchgen.store.transaction import Transaction

MOST_LOOKED_AT = 5_000  # calls
_UNCOUNTED = 100  # calls of a minute that it does not count, as their end is not known


class _Minute(NamedTuple):
    """Of one experiment."""

    minute: int
    slowest: int
    slowest_ms: int


def slowest_calls(
    db: "Transaction", experiment_ids: Sequence[int], first: int | None, limit: int
) -> Slowest:
    """The slowest so many calls are in the so many minutes with the slowest ones: each of these has
    a call that took longer than all of any other minute."""
    ids = listed(list(experiment_ids))
    which = {"experiment_ids": ids, "first": max(BEFORE + 1, first or 0), "limit": limit}
    minutes = list(rows_of(db, "slowest_minutes", _Minute, which))
    calls_in = _calls_in(db, minutes)
    found, is_whole = dict[int, Call](), True
    looked_in, left, newest = set[int](), MOST_LOOKED_AT, db.newest("attempts")
    for one in minutes:
        slowest = _first_of(found, limit)
        if len(slowest) == limit and one.slowest_ms <= (slowest[-1].latency_ms or 0):
            break
        if one.minute in looked_in:
            continue
        # Calls have their numbers in the order in which they were written.
        reach = calls_in[one.minute] + _UNCOUNTED
        begin, end = max(1, one.slowest - reach), min(newest, one.slowest + reach)
        if end - begin < left:
            looked_in.add(one.minute)
            left -= end - begin + 1
        else:
            begin = end = one.slowest
            is_whole = False
        some = {**which, "begin": begin, "end": end}
        found |= {call.seq: call for call in rows_of(db, "slowest_between", Call, some)}
    return Slowest(_first_of(found, limit), is_whole)


def _calls_in(db: "Transaction", minutes: Sequence[_Minute]) -> dict[int, int]:
    """Those of all experiments."""
    numbers = listed(sorted({one.minute for one in minutes}))
    return dict(db.execute("calls_in_minutes", {"minutes": numbers}).fetchall())


def _first_of(found: dict[int, Call], limit: int) -> list[Call]:
    return sorted(found.values(), key=lambda one: (-(one.latency_ms or 0), one.seq))[:limit]
