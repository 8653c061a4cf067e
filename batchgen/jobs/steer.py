"""Running workers steered from elsewhere: pause, resume, other slots and limits, stop.

An order goes through the database, and a worker follows it in a second or two.
"""

import asyncio
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from batchgen.errors import BatchgenError, Remedy, UsageError
from batchgen.store import OrderChange, Store, WorkerKind, WorkerRow
from batchgen.worker.spec import shares

_LOOK_EVERY_S = 0.2


class SteerResult(Struct, frozen=True):
    """Which workers were given the order, each as it was before; `slots` are those that each has
    then, in the same order, if they were set."""

    workers: tuple[WorkerRow, ...]
    slots: tuple[int, ...] = ()

    @property
    def in_flight(self) -> int:
        """The calls that they had in flight."""
        return sum(worker.calls for worker in self.workers)

    def to_json(self) -> dict[str, Any]:
        return {"workers": len(self.workers)}


async def pause(store: Store, worker_id: int | None = None) -> SteerResult:
    """Let running workers (None: all of them) claim no more. Raises BatchgenError if none runs."""
    return await _order_all(store, worker_id, OrderChange(paused=True))


async def resume(store: Store, worker_id: int | None = None) -> SteerResult:
    """Let paused workers go on. Raises BatchgenError if none runs."""
    return await _order_all(store, worker_id, OrderChange(paused=False))


async def set_limits(
    store: Store,
    worker_id: int | None = None,
    *,
    slots: int | None = None,
    rpm: int | None = None,
    tpm: int | None = None,
) -> SteerResult:
    """Change the `slots`, which the workers share, and the limits (0: none) of running workers;
    None leaves a thing as it is. A sender of provider batches has none of these.

    Raises BatchgenError if none runs, UsageError if there are fewer slots than workers.
    """
    running = await _running(store, worker_id)
    workers = [one for one in running if one.kind is WorkerKind.CALLER]
    parts = () if slots is None else tuple(_shared(slots, len(workers)))
    changes = [
        (worker, OrderChange(part, None, rpm, tpm)) for worker, part in zip_longest(workers, parts)
    ]
    result = await _order(store, worker_id, changes)
    return replace(result, slots=parts)


async def stop(
    store: Store, worker_id: int | None = None, *, now: bool = False, wait: bool = False
) -> SteerResult:
    """Stop running workers: they finish the calls in flight, or abandon them (`now`).

    `wait`: return when they are gone; then it is no error if none runs. Else raises BatchgenError.
    """
    change = OrderChange(stop="now" if now else "drain")
    if not wait:
        return await _order_all(store, worker_id, change)
    workers = await _running(store, worker_id)
    if workers:
        await store.change_orders({worker.id: change for worker in workers})
    numbers = {worker.id for worker in workers}
    while any(one.id in numbers for one in await _running(store, None)):  # noqa: ASYNC110  others' doing
        await asyncio.sleep(_LOOK_EVERY_S)
    return SteerResult(tuple(workers))


async def _order_all(store: Store, worker_id: int | None, change: OrderChange) -> SteerResult:
    workers = await _running(store, worker_id)
    return await _order(store, worker_id, [(worker, change) for worker in workers])


async def _order(
    store: Store, worker_id: int | None, changes: Sequence[tuple[WorkerRow, OrderChange]]
) -> SteerResult:
    orders = {worker.id: change for worker, change in changes}
    if not orders or not await store.change_orders(orders):
        which = "worker" if worker_id is None else f"worker {worker_id}"
        raise BatchgenError(f"no {which} is running on {store.name}.", Remedy.LOOK_AT_STATUS)
    return SteerResult(tuple(worker for worker, _ in changes))


async def _running(store: Store, worker_id: int | None) -> list[WorkerRow]:
    return [
        worker
        for worker in await store.workers()
        if worker.alive and worker_id in (None, worker.id)
    ]


def _shared(slots: int, workers: int) -> Sequence[int]:
    if slots < workers:
        raise UsageError(
            f"too few slots: {workers} workers run, each with one at least, to share {slots}.",
            Remedy.STOP_A_WORKER,
        )
    return shares(slots, workers)
