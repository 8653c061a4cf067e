"""work: the pending items are answered."""

from pathlib import Path
from typing import Any

import click

from batchgen.cli.completion import experiments
from batchgen.cli.enqueueing import say_if_recipe_changed
from batchgen.cli.following import follow_scope
from batchgen.cli.group import epilog
from batchgen.cli.hints import with_hint
from batchgen.cli.options import force_option, step_option
from batchgen.cli.parsing import load_present_parsers
from batchgen.cli.session import Session, run_async
from batchgen.cli.working import processes_option, work_on, work_options
from batchgen.errors import Remedy, UsageError
from batchgen.jobs.scope import Scope, scope_of
from batchgen.jobs.work import spec_of
from batchgen.store import open_store


@click.command(
    epilog=epilog(
        "batchgen work -c 20",
        "batchgen work --rpm 500 --tpm 200000 --max-items 100",
        "batchgen work -c 400 --adaptive",
        "batchgen work -c 400 --processes 4 --max-cost 25",
        "batchgen work --until 5000",
        "batchgen work --experiment answers --experiment scores",
        "batchgen work --step judge -c 10",
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
@step_option
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
    step: str | None, all_experiments: bool, output: Path | None, force: bool,
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
            scope = await scope_of(store, None if all_experiments else names, step)
            spec = spec_of(config, experiments=scope.ids, **options)
            await say_if_recipe_changed(session, store, config, scope.ids)
            present = await load_present_parsers(session, store, config, scope.ids)
            await follow_scope(session, store, scope.ids)
            result = await work_on(
                session,
                store,
                config,
                spec,
                processes,
                output=output,
                present=present,
                force=force,
            )
        _say_where_more_is(session, scope)
        return result.exit_code

    return run_async(job())


def _say_where_more_is(session: Session, scope: Scope) -> None:
    """When there was nothing to do here, and there is something elsewhere."""
    if scope.had_nothing and scope.elsewhere:
        session.warn(with_hint(f"nothing was left to do in {scope.name}; {scope.elsewhere_text}.",
                               Remedy.NAME_EXPERIMENTS))  # fmt: skip
