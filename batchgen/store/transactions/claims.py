"""Which items a worker gets: those whose retry is due, then fresh ones in the order of the pool. Or
probes from all over it, while the server answers nobody.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from msgspec.json import decode

from batchgen.items import State
from batchgen.store.deltas import CounterDeltas
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.deltas import write_deltas
from batchgen.store.transactions.quota import Quota
from batchgen.store.values import ClaimRequest

_GOLDEN_RATIO = 0.618034  # its multiples, without their whole part, are spread evenly


def claim(
    db: Transaction, worker_id: int, want: ClaimRequest, experiments: Sequence[int],
    probes: int | None, calls: int, quota: Quota, now: int,
) -> tuple[list[int], int | None]:  # fmt: skip
    """So many at most, of these experiments in their order: retries that are due first, then fresh
    items; as probes, unless `probes` is None, fresh ones first, of which there were so many before.
    When these are fewer, also when the next retry will be due, if any."""
    if calls == 0:
        return [], None
    claims = db.execute("parsed_alone", {"worker_id": worker_id}).fetchall()
    if claims == [(1,)]:
        return [], None  # what may kill the worker is parsed while nothing else is in flight
    if not claims and calls and (crashed := _claim_crashed(db, worker_id, want, experiments)):
        return crashed, None
    deltas = CounterDeltas()
    claimed: list[int] = []
    for experiment_id in experiments:
        for claim_some in _claims(want, probes):
            slots = quota.of(experiment_id, calls - len(claimed))
            if slots > 0:
                row = {
                    "worker_id": worker_id, "experiment_id": experiment_id, "now": now,
                    "want": slots, "selection": want.mark,
                }  # fmt: skip
                ids = claim_some(db, row)
                claimed += ids
                quota.take(experiment_id, len(ids))
                deltas.move(experiment_id, State.PENDING, -len(ids))
                deltas.move(experiment_id, State.RUNNING, +len(ids))
    write_deltas(db, deltas)
    if len(claimed) == calls:
        return claimed, None
    return claimed, earliest(*(_next_available_at(db, want, id_) for id_ in experiments))


class _ClaimQueries(NamedTuple):
    """Of an experiment, or of a selection of its items."""

    waiting: str
    fresh: str
    fresh_span: str
    fresh_from: str


_OF_EXPERIMENT = _ClaimQueries("waiting_items", "fresh_items", "fresh_span", "claim_fresh_from")
_OF_SELECTION = _ClaimQueries(
    "selected_waiting_items", "selected_fresh_items",
    "selected_fresh_span", "claim_selected_fresh_from",
)  # fmt: skip
_Claim = Callable[[Transaction, dict[str, Any]], list[int]]


def _claims(want: ClaimRequest, probes: int | None) -> tuple[_Claim, _Claim]:
    queries = _OF_EXPERIMENT if want.mark is None else _OF_SELECTION
    waiting = partial(_claim_found, queries.waiting)
    if probes is None:
        return waiting, partial(_claim_found, queries.fresh)
    return partial(_claim_probes, queries, probes), waiting


def _claim_found(query: str, db: Transaction, row: dict[str, Any]) -> list[int]:
    (ids,) = db.execute(query, row).fetchone()
    found: list[int] = decode(ids)
    if found:
        db.execute("claim_items", {"worker_id": row["worker_id"], "ids": ids})
    return found


def _claim_probes(
    queries: _ClaimQueries, probes: int, db: Transaction, row: dict[str, Any]
) -> list[int]:
    """Fresh items from all over the pool, the last one first, as those that come next may be alike
    by themselves. So many `probes` were there before."""
    claimed: list[int] = []
    for number in range(probes, probes + row["want"]):
        span = db.execute(queries.fresh_span, row).fetchone()
        if span is None:
            break
        priority, first, last = span
        begin = last - int((last - first) * (number * _GOLDEN_RATIO % 1))
        probe = {**row, "priority": priority, "first": begin}
        claimed += [id_ for (id_,) in db.execute(queries.fresh_from, probe).fetchall()]
    return claimed


def _claim_crashed(
    db: Transaction, worker_id: int, want: ClaimRequest, experiments: Sequence[int]
) -> list[int]:
    """One item whose worker died while its answer was being parsed: where it kills this one too,
    no other is in flight that could be suspected of it."""
    for experiment_id in experiments:
        row = {
            "worker_id": worker_id, "experiment_id": experiment_id, "selection": want.mark,
        }  # fmt: skip
        if claimed := [id_ for (id_,) in db.execute("claim_crashed", row).fetchall()]:
            deltas = CounterDeltas()
            deltas.move(experiment_id, State.PENDING, -1)
            deltas.move(experiment_id, State.RUNNING, +1)
            write_deltas(db, deltas)
            return claimed
    return []


def experiments_to_claim(
    db: Transaction, want: ClaimRequest, answered: tuple[int, ...] | None
) -> Sequence[int]:
    """In the order of claiming; of a server that answers these, or all that no other one names."""
    chosen = want.experiments
    if answered is not None:
        return [id_ for id_ in chosen or answered if id_ in answered]
    named = {id_ for one in want.servers for id_ in one.experiments or ()}
    if chosen is None:
        chosen = tuple(id_ for (id_,) in db.execute("open_experiments"))
    return [id_ for id_ in chosen if id_ not in named] if named else chosen


def _next_available_at(db: Transaction, want: ClaimRequest, experiment_id: int) -> int | None:
    query = "next_available_at" if want.mark is None else "next_selected_at"
    which = {"experiment_id": experiment_id, "selection": want.mark}
    (at,) = db.execute(query, which).fetchone()
    return None if at is None else int(at)


def earliest(*times: int | None) -> int | None:
    return min((at for at in times if at is not None), default=None)
