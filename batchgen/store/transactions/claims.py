"""Which items a worker gets: those whose retry is due, then fresh ones in the order of the pool. Or
probes from all over it, while the server answers nobody.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from msgspec.json import decode

from batchgen.items import State
from batchgen.store.deltas import CounterDeltas
from batchgen.store.transaction import Rows, Transaction
from batchgen.store.transactions.deltas import write_deltas
from batchgen.store.transactions.quota import Quota
from batchgen.store.transactions.rows import listed
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
    parsed_alone = db.execute("parsed_alone", {"worker_id": worker_id})
    claims = _Claims(db, worker_id, want, probes, now)
    if experiments:
        claims.begin(experiments[0], quota.of(experiments[0], calls))
    held, is_suspect, others_wait = parsed_alone.fetchone()
    if held == 1 and is_suspect:
        return [], None  # what may kill the worker is parsed while nothing else is in flight
    if not held and others_wait and (crashed := _claim_crashed(db, worker_id, want, experiments)):
        return crashed, None
    claimed: list[int] = []
    of_experiments: dict[int, int] = {}
    for experiment_id in experiments:
        before = len(claimed)
        for claim_some in claims.ways:
            slots = quota.of(experiment_id, calls - len(claimed))
            if slots > 0:
                ids = claim_some(experiment_id, slots)
                claimed += ids
                quota.take(experiment_id, len(ids))
        of_experiments[experiment_id] = len(claimed) - before
    claims.write()
    note_claims(db, of_experiments)
    if len(claimed) == calls:
        return claimed, None
    return claimed, earliest(*(_next_available_at(db, want, id_) for id_ in experiments))


class _ClaimQueries(NamedTuple):
    """Of an experiment, or of a selection of its items."""

    due: str
    due_and_fresh: str
    fresh_span: str
    fresh_from: str


_OF_EXPERIMENT = _ClaimQueries("due_items", "due_and_fresh_items", "fresh_span", "claim_fresh_from")
_OF_SELECTION = _ClaimQueries(
    "selected_due_items", "selected_due_and_fresh_items",
    "selected_fresh_span", "claim_selected_fresh_from",
)  # fmt: skip


class _Claims:
    """How rows are claimed in one exchange; see `claim`."""

    def __init__(
        self, db: Transaction, worker_id: int, want: ClaimRequest, probes: int | None, now: int
    ) -> None:
        self._db = db
        self._queries = _OF_EXPERIMENT if want.mark is None else _OF_SELECTION
        self._probes = probes
        self._row = {"worker_id": worker_id, "now": now, "selection": want.mark}
        self._begun: tuple[tuple[int, int], Rows] | None = None
        self._to_write: list[int] = []

    def begin(self, experiment_id: int, slots: int) -> None:
        """Look for the rows, together with other reads; none is claimed by that."""
        if self._probes is None and slots > 0:
            self._begun = (experiment_id, slots), self._found(experiment_id, slots)

    @property
    def ways(self) -> Sequence[Callable[[int, int], list[int]]]:
        """Functions that claim rows of an experiment, so many at most, one after another. What they
        have chosen is claimed once `write` is called."""
        if self._probes is None:
            return [self._due_and_fresh]
        return [self._as_probes, self._due]

    def _due_and_fresh(self, experiment_id: int, slots: int) -> list[int]:
        if self._begun is not None and self._begun[0] == (experiment_id, slots):
            return self._claimed(self._begun[1])
        return self._claimed(self._found(experiment_id, slots))

    def _due(self, experiment_id: int, slots: int) -> list[int]:
        return self._claimed(self._run(self._queries.due, experiment_id, want=slots))

    def _as_probes(self, experiment_id: int, slots: int) -> list[int]:
        """Fresh items from all over the pool, the last one first, as those that come next may be
        alike by themselves."""
        claimed: list[int] = []
        before = self._probes or 0
        for number in range(before, before + slots):
            span = self._run(self._queries.fresh_span, experiment_id).fetchone()
            if span is None:
                break
            priority, first, last = span
            begin = last - int((last - first) * (number * _GOLDEN_RATIO % 1))
            place = {"priority": priority, "first": begin}
            found = self._run(self._queries.fresh_from, experiment_id, **place)
            claimed += [id_ for (id_,) in found.fetchall()]
        return claimed

    def _found(self, experiment_id: int, slots: int) -> Rows:
        return self._run(self._queries.due_and_fresh, experiment_id, want=slots)

    def _claimed(self, found: Rows) -> list[int]:
        (ids,) = found.fetchone()
        claimed: list[int] = decode(ids)
        self._to_write += claimed
        return claimed

    def write(self) -> None:
        """One statement for those of all experiments."""
        if self._to_write:
            which = {"worker_id": self._row["worker_id"], "ids": listed(self._to_write)}
            self._db.execute("claim_items", which)

    def _run(self, query: str, experiment_id: int, **others: int) -> Rows:
        return self._db.execute(query, {**self._row, "experiment_id": experiment_id, **others})


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
            note_claims(db, {experiment_id: 1})
            return claimed
    return []


def note_claims(db: Transaction, claimed: Mapping[int, int]) -> None:
    """By experiment, how many of its items run from now on."""
    deltas = CounterDeltas()
    for experiment_id, n in claimed.items():
        deltas.move(experiment_id, State.PENDING, -n)
        deltas.move(experiment_id, State.RUNNING, +n)
    write_deltas(db, deltas)


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
