"""What pause, resume, set and stop share."""

from collections.abc import Awaitable, Callable

import click

from batchgen.cli.session import Session, counted, print_json, run_async
from batchgen.cli.terminal import print_text
from batchgen.jobs.steer import SteerResult
from batchgen.store import Store, open_store

worker_option = click.option(
    "--worker", "worker_id", type=int, metavar="ID", help="Only this one; default: all that run."
)


def steer(
    session: Session,
    as_json: bool,
    order: Callable[[Store], Awaitable[SteerResult]],
    done: Callable[[SteerResult], str],
) -> int:
    """Give the order, and say what became of the workers: `done`."""
    config = session.config()

    async def job() -> int:
        async with open_store(config.database) as store:
            steered = await order(store)
        if as_json:
            print_json(steered.to_json())
        elif not steered.workers:
            print_text("No worker is running.")
        else:
            print_text(f"{counted(len(steered.workers), 'worker')} {done(steered)}.")
        return 0

    return run_async(job())
