"""What is at providers: the provider batches of a database, as they are told of."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from msgspec import Struct

from batchgen.clock import now_ms, timestamp
from batchgen.items import State
from batchgen.jobs.lookup import chosen_experiments
from batchgen.store import BatchState, ProviderBatch, ReadStore, StoredItem, WorkerKind

_CLOSED_LISTED = 10
_PAGE = 200


class ListedBatch(Struct, frozen=True):
    """A batch, and what its experiment is called: of one with steps `demo/judge`."""

    batch: ProviderBatch
    experiment: str

    def to_json(self) -> dict[str, Any]:
        """An object of `batches --json`."""
        batch = self.batch
        return {
            "number": batch.number,
            "batch_id": batch.batch_id,
            "experiment": self.experiment,
            "model": batch.model,
            "endpoint": batch.endpoint,
            "base_url": batch.base_url,
            "state": batch.state.value,
            "absent": batch.absent,
            "status": batch.status,
            "requests": batch.requests,
            "answered": batch.answered,
            "failed": batch.failed,
            "settled": batch.settled,
            "error": batch.error,
            **{name: _moment(getattr(batch, name)) for name in _MOMENTS},
        }


_MOMENTS = ("sealed_at", "created_at", "expires_at", "ended_at", "closed_at")


class BatchList(Struct, frozen=True):
    """Batches at `at_ms`, the newest first. `sender` is the worker that sends and collects them
    now; with `has_more` there are others, which are closed."""

    at_ms: int
    batches: tuple[ListedBatch, ...]
    sender: int | None = None
    has_more: bool = False


class InBatch(Struct, frozen=True):
    """The batch that holds a row, as it is known at `at_ms`."""

    batch: ProviderBatch
    at_ms: int

    def to_json(self) -> dict[str, Any]:
        batch = self.batch
        return {
            "number": batch.number, "batch_id": batch.batch_id, "state": batch.state.value,
            "status": batch.status, "answered": batch.answered, "requests": batch.requests,
            "sealed_at": timestamp(batch.sealed_at),
        }  # fmt: skip


class Unfinished(Struct, frozen=True):
    """Batches that are not closed, together: how many there are of each state, and of their
    `requests` how many the provider says to have `answered` and `failed`. Of these `rows` are still
    theirs, by experiment in `rows_of`. The oldest was sealed at `since`."""

    states: Mapping[BatchState, int]
    requests: int
    answered: int
    failed: int
    rows_of: Mapping[int, int]
    since: int

    @classmethod
    def of(cls, batches: Sequence[ProviderBatch]) -> "Unfinished | None":
        """None: there are none."""
        if not batches:
            return None
        rows_of = Counter[int]()
        for one in batches:
            rows_of[one.experiment_id] += one.unsettled
        states = [one.state for one in batches]
        return cls(
            {state: n for state in BatchState if (n := states.count(state))},
            requests=sum(one.requests for one in batches),
            answered=sum(one.answered for one in batches),
            failed=sum(one.failed for one in batches),
            rows_of=rows_of,
            since=min(one.sealed_at for one in batches),
        )

    @property
    def number(self) -> int:
        return sum(self.states.values())

    @property
    def rows(self) -> int:
        return sum(self.rows_of.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "unfinished": self.number,
            **{state.value: self.states.get(state, 0) for state in BatchState
               if state is not BatchState.CLOSED},
            "requests": self.requests, "answered": self.answered, "failed": self.failed,
            "rows": self.rows, "since": timestamp(self.since),
        }  # fmt: skip


async def list_batches(
    store: ReadStore, experiment: str | None = None, *, all_closed: bool = False
) -> BatchList:
    """Those that are not closed, and of the others the newest ones, or all; of an experiment with
    its steps, of one step (`demo/judge`), or of all. Raises UsageError when it is not there."""
    only = None
    if experiment is not None:
        only = {one.id for one in await chosen_experiments(store, experiment)}
    unfinished = [one for one in await store.batches.unfinished() if _is_of(one, only)]
    closed = await _closed(store, only, None if all_closed else _CLOSED_LISTED + 1)
    has_more = not all_closed and len(closed) > _CLOSED_LISTED
    if has_more:
        closed.pop()
    found = {one.number: one for one in (*unfinished, *closed)}  # one may be closed since
    names = {one.id: one.own_name for one in await store.experiments()}
    listed = (
        ListedBatch(one, names.get(one.experiment_id, one.experiment))
        for _, one in sorted(found.items(), reverse=True)
    )
    return BatchList(now_ms(), tuple(listed), await sender_of(store), has_more)


async def _closed(
    store: ReadStore, only: Collection[int] | None, most: int | None
) -> list[ProviderBatch]:
    found, before = list[ProviderBatch](), None
    while page := await store.batches.newest(_PAGE, before):
        before = page[-1].number
        found += [one for one in page if one.state is BatchState.CLOSED and _is_of(one, only)]
        if most is not None and len(found) >= most:
            return found[:most]
    return found


async def unfinished_batches(
    store: ReadStore, experiments: Collection[int] | None = None
) -> Unfinished | None:
    """Those of these experiments (None: of all); None: there are none."""
    found = await store.batches.unfinished()
    return Unfinished.of([one for one in found if _is_of(one, experiments)])


async def batch_of(store: ReadStore, item: StoredItem) -> InBatch | None:
    """None: no batch holds this row."""
    if item.state != State.RUNNING:
        return None
    batch = await store.batches.of_item(item.id)
    return None if batch is None else InBatch(batch, now_ms())


async def numbers_of(store: ReadStore, row_ids: Sequence[int]) -> dict[int, int]:
    """Of rows those that a batch holds, with its number."""
    if not await store.batches.unfinished():
        return {}
    found = [(one, await store.batches.of_item(one)) for one in row_ids]
    return {row_id: batch.number for row_id, batch in found if batch is not None}


async def sender_of(store: ReadStore) -> int | None:
    """The worker that sends and collects the batches of a database; None: there is none now."""
    senders = (one for one in await store.workers() if one.kind is WorkerKind.SENDER and one.alive)
    return next((one.id for one in senders), None)


def _is_of(batch: ProviderBatch, experiments: Collection[int] | None) -> bool:
    return experiments is None or batch.experiment_id in experiments


def _moment(at_ms: int | None) -> str | None:
    return None if at_ms is None else timestamp(at_ms)
