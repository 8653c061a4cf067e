"""failures: what failed, grouped."""

import click

from batchgen.cli.group import epilog
from batchgen.cli.hints import COMMANDS
from batchgen.cli.options import json_option, only_experiment_option, reason_choice
from batchgen.cli.session import Session, print_json, run_async
from batchgen.display.items import failures_text
from batchgen.jobs.failures import failures_of
from batchgen.jobs.lookup import open_experiments


@click.command(epilog=epilog("batchgen failures", "batchgen failures --reason parse --json"))
@click.option("--reason", type=reason_choice)
@only_experiment_option
@json_option
@click.pass_obj
def failures(session: Session, reason: str | None, experiment: str | None, as_json: bool) -> int:
    """Group the failed items by reason and message.

    Each group with its count and the number of an example to show.
    """
    config = session.config()

    async def job() -> int:
        async with open_experiments(config, experiment) as (store, chosen):
            found = await failures_of(store, chosen, reason)
        if as_json:
            rows = [row for one in found for row in one.to_json()]
            print_json(rows)
        else:
            click.echo("\n".join(failures_text(one, COMMANDS) for one in found))
        return 0

    return run_async(job())
