"""pause: let running workers claim no more."""

import click

from batchgen.cli.group import epilog
from batchgen.cli.hints import commands
from batchgen.cli.options import json_option
from batchgen.cli.session import Session, counted
from batchgen.cli.steering import steer, worker_option
from batchgen.jobs.steer import SteerResult
from batchgen.jobs.steer import pause as pause_workers


@click.command(epilog=epilog("batchgen pause"))
@worker_option
@json_option
@click.pass_obj
def pause(session: Session, worker_id: int | None, as_json: bool) -> int:
    """Let running workers claim no more.

    Their calls in flight are finished and kept; the workers stay, and wait for `batchgen resume`. A
    worker that is started later is not paused.
    """
    return steer(session, as_json, lambda store: pause_workers(store, worker_id), _done)


def _done(result: SteerResult) -> str:
    if all(worker.paused for worker in result.workers):
        return f"paused already; {commands().resume} goes on"
    calls = counted(result.in_flight, "call")
    finished = f"; {calls} in flight will be finished and kept" if result.in_flight else ""
    return f"paused{finished}; {commands().resume} goes on"
