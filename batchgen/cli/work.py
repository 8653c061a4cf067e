"""work: the pending items are answered."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from batchgen.cli.completion import experiments
from batchgen.cli.following import follow_scope
from batchgen.cli.group import epilog
from batchgen.cli.hints import with_hint
from batchgen.cli.options import force_option, step_option
from batchgen.cli.parsing import load_present_parsers
from batchgen.cli.session import Session, counted, run_async
from batchgen.cli.working import (
    BatchFlags,
    OnRay,
    batch_options,
    processes_option,
    work_on,
    work_options,
)
from batchgen.config import Config
from batchgen.errors import Remedy, UsageError
from batchgen.jobs.asked import Asked, asked_of
from batchgen.jobs.lookup import named
from batchgen.jobs.recipe_choice import recipe_changes
from batchgen.jobs.scope import Scope, scope_of
from batchgen.jobs.work import spec_of
from batchgen.store import Experiment, Store, open_store

if TYPE_CHECKING:
    from batchgen.jobs.ray_cluster import RayCluster


@click.command(
    epilog=epilog(
        "batchgen work -c 20",
        "batchgen work --rpm 500 --tpm 200000 --max-items 100",
        "batchgen work -c 400 --adaptive",
        "batchgen work -c 400 --processes 4 --max-cost 25",
        "batchgen work -c 1600 --on ray --workers 16",
        "batchgen work --until 5000",
        "batchgen work --experiment answers --experiment scores",
        "batchgen work --step judge -c 10",
        "batchgen work -o results.jsonl",
        "batchgen work --batch",
        "batchgen work --batch --no-wait",
    )
)
@work_options
@batch_options
@processes_option
@click.option(
    "--on",
    "place",
    type=click.Choice(["ray"]),
    help="Where the workers run: on the nodes of the Ray cluster that this machine belongs to, or "
    "that RAY_ADDRESS names. A database of PostgreSQL is for any number of machines.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 10_000),
    metavar="W",
    help="With --on: so many workers that share the slots; default: one on each node.",
)
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
    session: Session, options: dict[str, Any], in_batches: BatchFlags, processes: int,
    place: str | None, workers: int | None, named: tuple[str, ...], step: str | None,
    all_experiments: bool, output: Path | None, force: bool,
) -> int:  # fmt: skip
    """Answer the pending items: claim, call, parse, store.

    Those of the config's experiment, as everything is asked by the config's server and model.
    Any number of workers may run on one database. Ctrl-C finishes the calls in flight and stops;
    a second one stops at once. Run it again to go on.
    """
    if named and all_experiments:
        raise UsageError("--all: are all of them, so it does not go with --experiment.")
    _check_place(place, workers, processes)
    in_batches.check(processes=processes, on_cluster=place is not None)
    config = session.config()
    names = named or (config.output_data.experiment_name,)

    async def job() -> int:
        with _cluster_of(place) as cluster:
            if cluster is not None:
                await cluster.check(config)
            return await work_at_place(cluster)

    async def work_at_place(cluster: "RayCluster | None") -> int:
        async with open_store(config.database) as store:
            scope = await scope_of(store, None if all_experiments else names, step)
            if options.get("until") is not None:
                scope.check_until()
            spec = spec_of(
                config, experiments=scope.ids, budget_experiments=scope.of_budget, **options
            )
            changed = await _changed_since(store, config, scope.ids)
            present = await load_present_parsers(session, store, config, scope.ids)
            if changed is not None:
                await _say_what_keeps(session, store, changed)
            await follow_scope(session, store, config, scope.ids)
            result = await work_on(
                session,
                store,
                config,
                spec,
                processes,
                on_ray=None if cluster is None else OnRay(cluster, workers),
                output=output,
                present=present,
                force=force,
                in_batches=in_batches,
            )
        _say_where_more_is(session, scope)
        return result.exit_code

    return run_async(job())


def _check_place(place: str | None, workers: int | None, processes: int) -> None:
    if place is None and workers is not None:
        raise UsageError(
            "--workers: goes with --on ray. Several processes on this machine: --processes."
        )
    if place is not None and processes > 1:
        raise UsageError(
            "--processes: is for this machine alone. On a cluster say with --workers how many."
        )


def _cluster_of(place: str | None) -> AbstractContextManager["RayCluster | None"]:
    if place is None:
        return nullcontext()
    from batchgen.jobs.ray_cluster import connected  # here: few have one

    return connected()


class _Changed(NamedTuple):
    """The config asks otherwise by now than rows of the experiment were enqueued with."""

    experiment: str
    ids: Sequence[int]
    changes: Sequence[str]
    how: str


async def _changed_since(
    store: Store, config: Config, chosen: Sequence[int] | None
) -> _Changed | None:
    """None: the config asks the same. `chosen` are the experiments to be worked on; None: all.
    Raises UsageError where rows wait for a step that the config does not have."""
    found = await store.experiments()
    name = config.output_data.experiment_name
    experiment = next((one for one in found if one.name == name), None)
    if experiment is None or (chosen is not None and experiment.id not in chosen):
        return None
    chain = await store.chain_of(experiment.id)
    steps = named(found, name) if chain else [experiment]
    try:
        asked = asked_of(config)
    except UsageError:  # it is not needed for what was enqueued
        return None
    changes = [
        f"step {one.step}: {change}" if chain else change
        for one in steps
        for change in await _changes(store, one, asked)
    ]
    how = "to change that, enqueue the pool again with --recipe replace"
    ids = [one.id for one in steps]
    if chain is not None and asked.chain is not None:
        from batchgen.jobs.step_changes import (  # here: few have steps
            changes_of_plan,
            is_moved,
            refuse_unknown_steps,
        )

        changes += changes_of_plan(chain.plan, asked.chain.plan)
        if open_rows := (await store.counts(ids)).open:
            refuse_unknown_steps(name, chain, asked.chain.plan, chosen, open_rows)
        if is_moved(chain.plan, asked.chain.plan):
            how = "steps in another order need another --experiment"
    return _Changed(name, ids, changes, how) if changes else None


async def _say_what_keeps(session: Session, store: Store, changed: _Changed) -> None:
    """That rows which are enqueued keep what they were enqueued with; those, too, that are run once
    more as their function has changed."""
    if not (open_rows := (await store.counts(changed.ids)).open):
        return
    waits = "waits keeps what it was" if open_rows == 1 else "wait keep what they were"
    session.say(
        f"{changed.experiment}: changed since it was enqueued: {'; '.join(changed.changes)}. "
        f"{counted(open_rows, 'row')} that {waits} enqueued with; {changed.how}."
    )


async def _changes(store: Store, experiment: Experiment, asked: Asked) -> list[str]:
    """How an experiment without steps, or a step, is asked otherwise than the config says."""
    recipe = asked.recipe_of(experiment.step)
    present = [await store.recipe(one) for one in await store.present_recipes(experiment.id)]
    if recipe is None or not present or recipe in present:
        return []
    return recipe_changes(present[0], recipe)


def _say_where_more_is(session: Session, scope: Scope) -> None:
    """When there was nothing to do here, and there is something elsewhere."""
    if scope.had_nothing and scope.elsewhere:
        session.warn(with_hint(f"nothing was left to do in {scope.name}; {scope.elsewhere_text}.",
                               Remedy.NAME_EXPERIMENTS))  # fmt: skip
