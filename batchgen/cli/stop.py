"""stop: stop running workers."""

import click

from batchgen.cli.group import epilog
from batchgen.cli.options import json_option
from batchgen.cli.session import Session
from batchgen.cli.steering import order_workers, to_all, worker_option


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
    orders = to_all(stop="now" if now else "drain")
    return order_workers(session, worker_id, as_json, orders, "told to stop", wait=wait)
