"""Running workers steered from elsewhere: pause, resume, other slots and limits, stop.

An order goes through the database, and a worker follows it in a second or two.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchgen.errors import BatchgenError, Remedy, UsageError
from batchgen.store import OrderChange, Store
from batchgen.worker.spec import shares

_LOOK_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class SteerResult:
    """How many workers were given the order."""

    workers: int

    def to_json(self) -> dict[str, Any]:
        return {"workers": self.workers}


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
    None leaves a thing as it is.

    Raises BatchgenError if none runs, UsageError if there are fewer slots than workers.
    """
    workers = await _running(store, worker_id)
    parts = [None] * len(workers) if slots is None else _shared(slots, len(workers))
    change = {
        worker: OrderChange(part, None, rpm, tpm)
        for worker, part in zip(workers, parts, strict=True)
    }
    return await _order(store, worker_id, change)


async def stop(
    store: Store, worker_id: int | None = None, *, now: bool = False, wait: bool = False
) -> SteerResult:
    """Stop running workers: they finish the calls in flight, or abandon them (`now`).

    `wait`: return when they are gone; then it is no error if none runs. Else raises BatchgenError.
    """
    workers = await _running(store, worker_id)
    change = OrderChange(stop="now" if now else "drain")
    if not wait:
        return await _order(store, worker_id, dict.fromkeys(workers, change))
    given = await store.change_orders(dict.fromkeys(workers, change)) if workers else 0
    while not set(workers).isdisjoint(await _running(store, None)):  # noqa: ASYNC110  others' doing
        await asyncio.sleep(_LOOK_EVERY_S)
    return SteerResult(given)


async def _order_all(store: Store, worker_id: int | None, change: OrderChange) -> SteerResult:
    return await _order(store, worker_id, dict.fromkeys(await _running(store, worker_id), change))


async def _order(
    store: Store, worker_id: int | None, changes: Mapping[int, OrderChange]
) -> SteerResult:
    given = await store.change_orders(changes) if changes else 0
    if not given:
        which = "worker" if worker_id is None else f"worker {worker_id}"
        raise BatchgenError(f"no {which} is running on {store.name}.", Remedy.LOOK_AT_STATUS)
    return SteerResult(given)


async def _running(store: Store, worker_id: int | None) -> list[int]:
    return [
        worker.id
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
