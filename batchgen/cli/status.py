"""status: counts, speed, failures and workers."""

import sys
import time
from functools import partial

import click

from batchgen.cli.group import epilog
from batchgen.cli.hints import commands
from batchgen.cli.options import json_option, only_experiment_option, step_option
from batchgen.cli.session import Session, print_json, run_async
from batchgen.cli.terminal import is_terminal, print_text
from batchgen.display.held import waits_for
from batchgen.display.status import status_text
from batchgen.jobs.status import status_of
from batchgen.store import read_now, read_store


@click.command(
    epilog=epilog(
        "batchgen status",
        "batchgen status --watch",
        "batchgen status --step judge",
        "batchgen status --experiment labels --json | jq .total.done",
    )
)
@json_option
@only_experiment_option
@step_option
@click.option("--watch", is_flag=True,
              help="Again every two seconds, until Ctrl-C; on a terminal as a dashboard, with how "
                   "rate and latency went in the last minutes.")  # fmt: skip
@click.pass_obj
def status(
    session: Session, as_json: bool, experiment: str | None, step: str | None, watch: bool
) -> int:
    """Show counts, speed, failures and workers.

    Of an experiment with steps there is a table of them: skipped are the items that went on without
    a step, or ended before it, as its `when` said.
    """
    config = session.config()
    if watch and not as_json and is_terminal(sys.stdout):
        # Here: it loads asyncio and rich, several times what a plain status takes.
        from batchgen.display.dashboard import screen, show_dashboard
        from batchgen.store import open_store

        if console := screen():

            async def job() -> int:
                async with open_store(config.database) as store:
                    look = partial(status_of, store, config, experiment, step)
                    return await show_dashboard(look, str(config.database), console, commands())

            return run_async(job())
    with read_store(config.database) as store:
        while True:
            seen = read_now(status_of(store, config, experiment, step))
            if watch and not as_json:
                click.clear()
            if as_json:
                print_json(seen.to_json(waits_for))
            else:
                print_text(status_text(seen, commands()))
            if not watch:
                break
            time.sleep(2)
        if session.verbose:
            for warning in store.warnings():
                session.warn(warning)
    return 0
