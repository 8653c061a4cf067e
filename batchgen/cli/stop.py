"""stop: stop running workers."""

import click

from batchgen.cli.group import epilog
from batchgen.cli.options import json_option
from batchgen.cli.session import Session, counted
from batchgen.cli.steering import steer, worker_option
from batchgen.jobs.steer import SteerResult
from batchgen.jobs.steer import stop as stop_workers


@click.command(epilog=epilog("batchgen stop", "batchgen stop --wait"))
@click.option("--now", is_flag=True, help="Abandon the calls in flight, to be sent again.")
@click.option("--wait", is_flag=True, help="Until they are gone.")
@worker_option
@json_option
@click.pass_obj
def stop(session: Session, now: bool, wait: bool, worker_id: int | None, as_json: bool) -> int:
    """Stop running workers, as SIGTERM does.

    They claim no more, finish what is in flight, and exit with 143. `batchgen work` goes on. With
    --wait it is no error if none runs.
    """
    return steer(
        session,
        as_json,
        lambda store: stop_workers(store, worker_id, now=now, wait=wait),
        lambda result: _done(result, now=now, wait=wait),
    )


def _done(result: SteerResult, *, now: bool, wait: bool) -> str:
    if wait:
        return "gone"
    calls = counted(result.in_flight, "call")
    if not result.in_flight:
        return "told to stop"
    if now:
        return f"told to stop; {calls} in flight will be abandoned, and sent again by the next run"
    return f"told to stop; {calls} in flight will be finished first"
