"""stop: stop running workers."""

import click

from batchgen.cli.group import epilog
from batchgen.cli.options import json_option
from batchgen.cli.session import Session
from batchgen.cli.steering import steer, worker_option
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
        "gone" if wait else "told to stop",
    )
