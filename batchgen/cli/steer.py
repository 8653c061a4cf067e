"""Steering running workers from another terminal: pause, resume, set, stop."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

import click

from batchgen.cli.options import epilog, json_option
from batchgen.cli.session import Session, counted, run_async
from batchgen.errors import BatchgenError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchgen.store import Order, Store

    Orders = Callable[[list[int]], Mapping[int, Order]]

_LOOK_EVERY_S = 0.2

worker_option = click.option(
    "--worker", "worker_id", type=int, metavar="ID", help="Only this one; default: all that run."
)


@click.command(epilog=epilog("batchgen pause"))
@worker_option
@json_option
@click.pass_obj
def pause(session: Session, worker_id: int | None, as_json: bool) -> int:
    """Let running workers claim no more.

    Their calls in flight are finished and kept; the workers stay, and wait for `batchgen resume`. A
    worker that is started later is not paused.
    """
    return _order(session, worker_id, as_json, _to_all(paused=True), "paused")


@click.command(epilog=epilog("batchgen resume"))
@worker_option
@json_option
@click.pass_obj
def resume(session: Session, worker_id: int | None, as_json: bool) -> int:
    """Let paused workers go on."""
    return _order(session, worker_id, as_json, _to_all(paused=False), "resumed")


@click.command("set", epilog=epilog(
    "batchgen set -c 50",
    "batchgen set --rpm 500 --tpm 200000",
    "batchgen set --rpm 0",
))  # fmt: skip
@click.option("-c", "--concurrency", "slots", type=click.IntRange(1, 10_000),
              help="Calls in flight at once, of all these workers together.")  # fmt: skip
@click.option("--rpm", type=click.IntRange(0), help="Requests a minute; 0: no limit.")
@click.option("--tpm", type=click.IntRange(0), help="Tokens a minute; 0: no limit.")
@worker_option
@json_option
@click.pass_obj
def set_(
    session: Session, slots: int | None, rpm: int | None, tpm: int | None,
    worker_id: int | None, as_json: bool,
) -> int:  # fmt: skip
    """Change the slots and the limits of running workers.

    No call is cut off: where there are too many, fewer are claimed. A worker that is started later
    goes by its own options, and so do these when they are started again.
    """
    if slots is None and rpm is None and tpm is None:
        raise click.UsageError("nothing to set; give -c, --rpm or --tpm")

    def orders(workers: list[int]) -> "Mapping[int, Order]":
        from batchgen.store import Order

        if slots is None:
            shares: list[int | None] = [None] * len(workers)
        elif slots < len(workers):
            raise UsageError(
                f"-c {slots}: {len(workers)} worker processes run, and each has a slot at least. "
                "Stop one (batchgen stop --worker ID), or take more."
            )
        else:
            from batchgen.jobs.processes import shares as shared

            shares = [*shared(slots, len(workers))]
        return {
            worker: Order(slots=share, requests_per_minute=rpm, tokens_per_minute=tpm)
            for worker, share in zip(workers, shares, strict=True)
        }

    return _order(session, worker_id, as_json, orders, "told")


@click.command(epilog=epilog("batchgen stop", "batchgen stop --wait"))
@click.option("--now", is_flag=True, help="Leave the calls in flight, to be sent again.")
@click.option("--wait", is_flag=True, help="Until they are gone.")
@worker_option
@json_option
@click.pass_obj
def stop(session: Session, now: bool, wait: bool, worker_id: int | None, as_json: bool) -> int:
    """Stop running workers, as SIGTERM does.

    They claim no more, finish what is in flight, and exit with 143. `batchgen work` goes on. With
    --wait it is no error if none runs.
    """
    orders = _to_all(stop="now" if now else "drain")
    return _order(session, worker_id, as_json, orders, "told to stop", wait=wait)


def _to_all(**order: Any) -> "Orders":
    def orders(workers: list[int]) -> "Mapping[int, Order]":
        from batchgen.store import Order

        return dict.fromkeys(workers, Order(**order))

    return orders


def _order(
    session: Session, worker_id: int | None, as_json: bool, orders: "Orders", done: str,
    *, wait: bool = False,
) -> int:  # fmt: skip
    config = session.config()

    async def job() -> int:
        from batchgen.store import open_store

        async with open_store(config.database) as store:
            workers = await _running(store, worker_id)
            n = await store.order(orders(workers)) if workers else 0
            if not n and not wait:
                which = "worker" if worker_id is None else f"worker {worker_id}"
                raise BatchgenError(f"no {which} is running on {store.path} (batchgen status).")
            if wait:
                await _gone(store, workers)
        if as_json:
            click.echo(json.dumps({"workers": n}))
        else:
            click.echo(f"{counted(n, 'worker')} {'gone' if wait else done}.")
        return 0

    return run_async(job())


async def _gone(store: "Store", workers: list[int]) -> None:
    while not set(workers).isdisjoint(await _running(store, None)):  # noqa: ASYNC110  others' doing
        await asyncio.sleep(_LOOK_EVERY_S)


async def _running(store: "Store", worker_id: int | None) -> list[int]:
    return [
        worker.id
        for worker in await store.workers()
        if worker.alive and worker_id in (None, worker.id)
    ]
