"""What pause, resume, set and stop share: orders for running workers."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import click

from batchgen.cli.session import Session, counted, run_async
from batchgen.errors import BatchgenError
from batchgen.store import OrderChange, Store, open_store

Orders = Callable[[list[int]], Mapping[int, OrderChange]]

_LOOK_EVERY_S = 0.2

worker_option = click.option(
    "--worker", "worker_id", type=int, metavar="ID", help="Only this one; default: all that run."
)


def to_all(**order: Any) -> Orders:
    def orders(workers: list[int]) -> Mapping[int, OrderChange]:
        return dict.fromkeys(workers, OrderChange(**order))

    return orders


def order_workers(
    session: Session, worker_id: int | None, as_json: bool, orders: Orders, done: str,
    *, wait: bool = False,
) -> int:  # fmt: skip
    config = session.config()

    async def job() -> int:
        async with open_store(config.database) as store:
            workers = await _running(store, worker_id)
            n = await store.order(orders(workers)) if workers else 0
            if not n and not wait:
                which = "worker" if worker_id is None else f"worker {worker_id}"
                raise BatchgenError(f"no {which} is running on {store.name} (batchgen status).")
            if wait:
                await _gone(store, workers)
        if as_json:
            click.echo(json.dumps({"workers": n}))
        else:
            click.echo(f"{counted(n, 'worker')} {'gone' if wait else done}.")
        return 0

    return run_async(job())


async def _gone(store: Store, workers: list[int]) -> None:
    while not set(workers).isdisjoint(await _running(store, None)):  # noqa: ASYNC110  others' doing
        await asyncio.sleep(_LOOK_EVERY_S)


async def _running(store: Store, worker_id: int | None) -> list[int]:
    return [
        worker.id
        for worker in await store.workers()
        if worker.alive and worker_id in (None, worker.id)
    ]
