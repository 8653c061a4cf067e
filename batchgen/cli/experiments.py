"""experiments: list them, rename or delete one."""

import click

from batchgen.cli import completion
from batchgen.cli.group import OrderedGroup, epilog
from batchgen.cli.hints import commands
from batchgen.cli.options import json_option
from batchgen.cli.session import Session, counted, print_json, run_async
from batchgen.cli.terminal import ask, print_text
from batchgen.display.items import experiments_text
from batchgen.jobs import experiments as jobs
from batchgen.store import read_now, read_store


@click.group(
    invoke_without_command=True, cls=OrderedGroup,
    epilog=epilog("batchgen experiments", "batchgen experiments rename old new"),
)  # fmt: skip
@json_option
@click.pass_context
def experiments(ctx: click.Context, as_json: bool) -> int:
    """List the experiments in the database; rename or delete one."""
    if ctx.invoked_subcommand is not None:
        return 0
    config = ctx.obj.config()

    with read_store(config.database) as store:
        found = read_now(jobs.list_experiments(store))
    if as_json:
        print_json([one.to_json() for one in found])
    else:
        print_text(experiments_text(found, commands()))
    return 0


@experiments.command(epilog=epilog("batchgen experiments rename initial_test labels"))
@click.argument("name", shell_complete=completion.experiments)
@click.argument("new_name")
@click.pass_obj
def rename(session: Session, name: str, new_name: str) -> int:
    """Give an experiment another name, with all its steps. Its export gets that name too, from now
    on."""
    new_name = session.config(experiment_name=new_name).output_data.experiment_name
    config = session.config()

    from batchgen.store import open_store  # here: to list them takes less

    async def job() -> int:
        async with open_store(config.database) as store:
            await jobs.rename(store, name, new_name)
        print_text(f"{name} is now {new_name}.")
        return 0

    return run_async(job())


@experiments.command(epilog=epilog("batchgen experiments delete old_test"))
@click.argument("name", shell_complete=completion.experiments)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(session: Session, name: str, yes: bool) -> int:
    """Delete an experiment with all its items and answers, and all its steps. Asks first."""
    config = session.config()

    from batchgen.store import open_store  # here: to list them takes less

    async def job() -> int:
        async with open_store(config.database) as store:
            found = await jobs.whole_summary(store, name)
            rows = (
                f" with {counted(found.counts.total, 'row')} of their steps" if found.steps else ""
            )
            what = f"{name}: {counted(found.items, 'item')}{rows}, {found.counts.done} answered"
            if not yes:
                ask(f"Delete {what}? This cannot be undone.")
            await jobs.delete(store, found)
        print_text(f"Deleted {what}.")
        return 0

    return run_async(job())
