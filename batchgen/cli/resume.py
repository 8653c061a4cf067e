"""resume: let paused workers go on."""

import click

from batchgen.cli.group import epilog
from batchgen.cli.options import json_option
from batchgen.cli.session import Session
from batchgen.cli.steering import steer, worker_option
from batchgen.jobs.steer import SteerResult
from batchgen.jobs.steer import resume as resume_workers


@click.command(epilog=epilog("batchgen resume"))
@worker_option
@json_option
@click.pass_obj
def resume(session: Session, worker_id: int | None, as_json: bool) -> int:
    """Let paused workers go on."""
    return steer(session, as_json, lambda store: resume_workers(store, worker_id), _done)


def _done(result: SteerResult) -> str:
    was_paused = any(worker.paused for worker in result.workers)
    return "resumed" if was_paused else "going on; none was paused"
