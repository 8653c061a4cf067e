"""work: the pending items are answered."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from batchgen.cli.completion import experiments
from batchgen.cli.group import epilog
from batchgen.cli.hints import with_hint
from batchgen.cli.options import force_option
from batchgen.cli.parsing import load_present_parsers
from batchgen.cli.session import Session, counted, run_async
from batchgen.cli.working import processes_option, work_on, work_options
from batchgen.config import Config
from batchgen.errors import Remedy, UsageError
from batchgen.jobs.recipe import recipe_of
from batchgen.jobs.recipe_choice import recipe_changes
from batchgen.jobs.scope import Scope, scope_of
from batchgen.jobs.work import spec_of
from batchgen.parsers import load_parser
from batchgen.store import Store, open_store


@click.command(
    epilog=epilog(
        "batchgen work -c 20",
        "batchgen work --rpm 500 --tpm 200000 --max-items 100",
        "batchgen work -c 400 --adaptive",
        "batchgen work -c 400 --processes 4 --max-cost 25",
        "batchgen work --until 5000",
        "batchgen work --experiment answers --experiment scores",
        "batchgen work -o results.jsonl",
    )
)
@work_options
@processes_option
@click.option(
    "--experiment", "named", multiple=True, metavar="NAME", shell_complete=experiments,
    help="Only this one, and may be given again; default: output_data.experiment_name of the "
         "config.",
)  # fmt: skip
@click.option("--all", "all_experiments", is_flag=True, help="Every experiment in the database.")
@click.option("--max-items", type=click.IntRange(1), metavar="N", help="Stop after N items.")
@click.option("--watch", "wait_for_more", is_flag=True, help="When nothing is left, wait for more.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
    help="Keep FILE up to date with what is done: JSON lines, in finishing order, each once, also "
         "when it is stopped or killed and run again.",
)  # fmt: skip
@force_option
@click.pass_obj
def work(
    session: Session, options: dict[str, Any], processes: int, named: tuple[str, ...],
    all_experiments: bool, output: Path | None, force: bool,
) -> int:  # fmt: skip
    """Answer the pending items: claim, call, parse, store.

    Those of the config's experiment, as everything is asked by the config's server and model.
    Any number of workers may run on one database. Ctrl-C finishes the calls in flight and stops;
    a second one stops at once. Run it again to go on.
    """
    if named and all_experiments:
        raise UsageError("--all: are all of them, so it does not go with --experiment.")
    config = session.config()
    names = named or (config.output_data.experiment_name,)

    async def job() -> int:
        async with open_store(config.database) as store:
            scope = await scope_of(store, None if all_experiments else names)
            spec = spec_of(config, experiments=scope.ids, **options)
            await _say_if_recipe_changed(session, store, config, scope.ids)
            parsers = await load_present_parsers(session, store, config, scope.ids)
            result = await work_on(
                session, store, config, spec, processes, output=output, parsers=parsers, force=force
            )
        _say_where_more_is(session, scope)
        return result.exit_code

    return run_async(job())


async def _say_if_recipe_changed(
    session: Session, store: Store, config: Config, chosen: Sequence[int] | None
) -> None:
    """Before work: that rows which are enqueued keep what they were enqueued with, if the config
    asks otherwise by now. `chosen` are the experiments to be worked on; None: all."""
    name = config.output_data.experiment_name
    experiment = next((one for one in await store.experiments() if one.name == name), None)
    if experiment is None or (chosen is not None and experiment.id not in chosen):
        return
    counts = await store.counts([experiment.id])
    try:
        recipe = recipe_of(config, load_parser(config.parser, config.directory))
    except UsageError:  # it is not needed for what was enqueued
        return
    present = [await store.recipe(one) for one in await store.present_recipes(experiment.id)]
    if not counts.open or not present or recipe in present:
        return
    changes = "; ".join(recipe_changes(present[0], recipe))
    session.say(
        f"{experiment.name}: changed since it was enqueued: {changes}. "
        f"{counted(counts.open, 'row')} that wait keep what they were enqueued with; to change "
        "that, enqueue the pool again with --recipe replace."
    )


def _say_where_more_is(session: Session, scope: Scope) -> None:
    """When there was nothing to do here, and there is something elsewhere."""
    if scope.had_nothing and scope.elsewhere:
        session.warn(with_hint(f"nothing was left to do in {scope.name}; {scope.elsewhere_text}.",
                               Remedy.NAME_EXPERIMENTS))  # fmt: skip
