"""resume: let paused workers go on."""

import click

from batchgen.cli.group import epilog
from batchgen.cli.options import json_option
from batchgen.cli.session import Session
from batchgen.cli.steering import order_workers, to_all, worker_option


@click.command(epilog=epilog("batchgen resume"))
@worker_option
@json_option
@click.pass_obj
def resume(session: Session, worker_id: int | None, as_json: bool) -> int:
    """Let paused workers go on."""
    return order_workers(session, worker_id, as_json, to_all(paused=False), "resumed")
