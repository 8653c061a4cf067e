"""What people read, and workers now and then: on the reading connection, and never locking."""

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.json import encode

from batchgen.items import State
from batchgen.store.records import (
    Counts,
    Experiment,
    FailedCalls,
    FailureGroup,
    Pace,
    StoredAttempt,
    StoredItem,
    StoredRecipe,
    UnknownCall,
    Variant,
)
from batchgen.store.transactions.rows import bounded, dicts_of, listed, row_of, rows_of

if TYPE_CHECKING:
    from batchgen.store.transaction import Transaction
    from batchgen.store.values import Selection

_STALE_ROWS_LOOKED_AT = 10_000
_ENDS_LOOKED_AT = 4_000  # each is looked up; with so many a rate is right to a few hundredths
_FAILED_AT_ONCE = 500  # between two looks at the clock


def present_recipes(db: "Transaction", experiment_id: int) -> list[int]:
    found = db.execute("variants", {"experiment_id": experiment_id})
    return [recipe_id for _, recipe_id in found]


def count_earlier_recipes(db: "Transaction", item_ids: Sequence[int]) -> int:
    ids = {"ids": encode(list(item_ids)).decode()}
    (n,) = db.execute("count_earlier_recipes", ids).fetchone()
    return int(n)


def answer_vector(db: "Transaction", attempt_seq: int) -> str | None:
    (vector,) = db.execute("answer_vector", {"attempt_seq": attempt_seq}).fetchone()
    return None if vector is None else str(vector)


def last_bad_answer(db: "Transaction", item_id: int) -> tuple[str, str] | None:
    row = db.execute("last_bad_answer", {"item_id": item_id}).fetchone()
    return None if row is None else (row[0], row[1])


def change_mark(db: "Transaction") -> str:
    return str(db.execute("change_mark").fetchone()[0])


def moved_to(db: "Transaction") -> str | None:
    row = db.execute("moved_to").fetchone()
    return None if row is None else str(row[0])


def experiments(db: "Transaction") -> list[Experiment]:
    return list(rows_of(db, "experiments", Experiment))


def counts_by_experiment(db: "Transaction") -> dict[int, Counts]:
    """By the counters: as fast at ten million items as at ten."""
    found: dict[int, Counts] = defaultdict(Counts)
    for experiment_id, state, reason, n in db.execute("counters"):
        counts = found[experiment_id]
        setattr(counts, state, getattr(counts, state) + n)
        if state == State.FAILED:
            counts.reasons[reason] += n
    for one in failed_calls(db):
        found[one.experiment_id].failed_calls[one.failure] = one.n
    for counts in found.values():
        counts.ended = counts.done
    for experiment_id, ended, passed_over in db.execute("step_counters"):
        found[experiment_id].ended = ended
        found[experiment_id].passed_over = passed_over
    for columns in dicts_of(db, "totals"):
        counts = found[columns.pop("experiment_id")]
        for name, n in columns.items():
            setattr(counts, name, n)
    return dict(found)


def failed_calls(db: "Transaction") -> list[FailedCalls]:
    return list(rows_of(db, "failed_calls", FailedCalls))


def counts(
    db: "Transaction",
    experiment_ids: Sequence[int] | None = None,
    selection: "Selection | None" = None,
) -> Counts:
    found = counts_by_experiment(db)
    chosen = found if experiment_ids is None else experiment_ids
    total = Counts.sum_of(found[id_] for id_ in chosen if id_ in found)
    if selection is None:
        return total
    from batchgen.store.transactions.selections import counts_of_selection  # here: status has none

    return counts_of_selection(db, selection, total)


def stale_to_ask(db: "Transaction", experiment_ids: Sequence[int] | None) -> dict[int, int]:
    ids = None if experiment_ids is None else encode(list(experiment_ids)).decode()
    found = db.execute("stale_to_ask", {"ids": ids}).fetchall()
    return {id_: _unmade(db, id_) for (id_,) in found}


def _unmade(db: "Transaction", experiment_id: int) -> int:
    which = {"experiment_id": experiment_id, "limit": _STALE_ROWS_LOOKED_AT}
    (n,) = db.execute("count_unmade", which).fetchone()
    return int(n)


def unknown_calls(
    db: "Transaction", after: int, experiment_id: int | None, limit: int
) -> list[UnknownCall]:
    which = {"after": after, "experiment_id": experiment_id, "limit": limit}
    return _page_of_calls(db, "unknown_calls", which)


def calls_of_worker(db: "Transaction", worker_id: int, limit: int) -> list[UnknownCall]:
    return _page_of_calls(db, "calls_of_worker", {"worker_id": worker_id, "limit": limit})


def _page_of_calls(
    db: "Transaction", query: str, which: dict[str, int | None]
) -> list[UnknownCall]:
    page, _ = bounded(rows_of(db, query, UnknownCall, which), lambda call: len(call.input))
    return page


def pace(
    db: "Transaction", now: int, experiment_id: int | None = None, span_s: float = 60.0
) -> Pace:
    """How fast items finish, over the last minute, or as far back as is looked."""
    which = {
        "since": now - int(span_s * 1000),
        "experiment_id": experiment_id,
        "limit": _ENDS_LOOKED_AT,
    }
    items, first = db.execute("recent_finishes", which).fetchone()
    measured_s = (now - first) / 1000 if items > 1 else span_s
    return Pace(items, max(measured_s, 1.0))


def latencies_ms(db: "Transaction", experiment_ids: Sequence[int] | None, after: int) -> list[int]:
    which = {
        "experiment_ids": None if experiment_ids is None else encode(list(experiment_ids)).decode(),
        "after": after, "limit": 1000,
    }  # fmt: skip
    return sorted(ms for (ms,) in db.execute("recent_latencies", which))


def newest_attempt(db: "Transaction") -> int:
    return db.newest("attempts")


def recent_usage(db: "Transaction") -> list[tuple[int, int]]:
    return db.execute("recent_usage", {"limit": 200}).fetchall()


def failures(
    db: "Transaction", experiment_id: int, reason: str | None, limit: int
) -> list[FailureGroup]:
    from batchgen.store.failure_groups import grouped  # here, too

    which: dict[str, object] = {"experiment_id": experiment_id, "reason": reason}
    return grouped(rows_of(db, "failures_by_message", FailureGroup, which), limit)


def last_failures(
    db: "Transaction", experiment_id: int, limit: int, most: int | None, until_s: float
) -> tuple[list[FailureGroup], int]:
    from batchgen.store.failure_groups import grouped  # here, too

    looked_at, before, found = 0, 2**62, list[FailureGroup]()
    while True:
        n = _FAILED_AT_ONCE if most is None else min(_FAILED_AT_ONCE, most - looked_at)
        which = {"experiment_id": experiment_id, "before": before, "most": n}
        page = list(rows_of(db, "last_failures_by_message", FailureGroup, which))
        found = grouped(found + page)
        there = sum(one.n for one in page)
        looked_at += there
        if there < n or looked_at == most or time.monotonic() >= until_s:
            return found[:limit], looked_at
        before = min(one.example for one in page)


def items_with_own(db: "Transaction", item_ids: Sequence[int], names: Sequence[str]) -> set[int]:
    which = {"ids": listed(list(item_ids)), "names": listed(list(names))}
    return {item_id for (item_id,) in db.execute("items_with_own", which)}


def find_items(db: "Transaction", given: str, experiment_id: int | None) -> list[int]:
    from batchgen.store.keys import key_of_id  # here: status has no use for these
    from batchgen.text.json_text import is_storable

    if not is_storable(given):
        return []
    ids = [e.id for e in experiments(db)] if experiment_id is None else [experiment_id]
    keys = [
        key_of_id(id_, variant, given)
        for id_ in ids
        for variant, _ in db.execute("variants", {"experiment_id": id_}).fetchall()
    ]
    found = [db.execute("item_by_key", {"key": key}).fetchone() for key in keys]
    firsts = [row[0] for row in found if row]
    named = [one for first in firsts for one in (first, *_other_samples(db, first))]
    number = given.removeprefix("#")
    if named or not (number.isascii() and number.isdecimal()) or len(number) > 18:
        return named
    return [int(number)] if item(db, int(number)) else []


def _other_samples(db: "Transaction", item_id: int) -> list[int]:
    return [one for (one,) in db.execute("other_samples", {"item_id": item_id})]


def item(db: "Transaction", item_id: int) -> StoredItem | None:
    return row_of(db, "item", StoredItem, {"item_id": item_id})


def attempts_of(db: "Transaction", item_id: int) -> list[StoredAttempt]:
    return list(rows_of(db, "attempts_of_item", StoredAttempt, {"item_id": item_id}))


def newest_recipes(db: "Transaction", limit: int) -> list[StoredRecipe]:
    return list(rows_of(db, "newest_recipes", StoredRecipe, {"limit": limit}))


def variants(db: "Transaction") -> list[Variant]:
    return list(rows_of(db, "all_variants", Variant))


def recipe_json(db: "Transaction", recipe_id: int) -> str:
    (body,) = db.execute("recipe", {"recipe_id": recipe_id}).fetchone()
    return str(body)
