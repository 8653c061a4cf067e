"""failures: what failed, grouped."""

import json

import click

from batchgen.cli.group import epilog
from batchgen.cli.lookup import open_experiments
from batchgen.cli.options import json_option, only_experiment_option, reason_choice
from batchgen.cli.session import Session, run_async
from batchgen.display.texts import failures_text


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
            groups = [(e.name, await store.failures(e.id, reason)) for e in chosen]
        if as_json:
            rows = [
                {"experiment": name, "reason": g.reason, "error": g.error, "count": g.n,
                 "example": g.example}
                for name, found in groups for g in found
            ]  # fmt: skip
            click.echo(json.dumps(rows, ensure_ascii=False))
        else:
            click.echo("\n".join(failures_text(name, found) for name, found in groups))
        return 0

    return run_async(job())
