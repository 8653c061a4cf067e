"""The job: enqueue, work, and run, which is both and export."""

from pathlib import Path

import click

from batchgen.cli.group import epilog
from batchgen.cli.lookup import experiment_named
from batchgen.cli.options import (
    adaptive_option,
    experiment_option,
    grace_option,
    hedge_option,
    json_option,
    limit_option,
    max_cost_option,
    max_tokens_option,
    only_experiment_option,
    processes_option,
    recipe_option,
    rpm_option,
    samples_option,
    skip_option,
    slots_option,
    tpm_option,
    until_option,
)
from batchgen.cli.session import Session, run_async
from batchgen.cli.steps import (
    PoolJob,
    do_whole_job,
    dry_run_pool,
    enqueue_pool,
    reading_pool,
    work_as_part,
    work_on,
)


@click.command(epilog=epilog(
    "batchgen enqueue data_pool.jsonl",
    "batchgen enqueue data.csv --experiment labels --limit 100 --dry-run",
    "batchgen enqueue my_pool.py:make_items",
    "batchgen enqueue data_pool.jsonl --samples 4",
))  # fmt: skip
@click.argument("source")
@experiment_option
@samples_option
@click.option("--priority", type=click.IntRange(-1000, 1000), default=0, show_default=True,
              help="A higher one is claimed first.")  # fmt: skip
@limit_option
@recipe_option
@skip_option
@click.option(
    "--dry-run", is_flag=True, help="Check everything, show the first prompt, write nothing."
)
@json_option
@click.pass_obj
def enqueue(
    session: Session, source: str, experiment: str | None, samples: int, priority: int,
    limit: int | None, other_recipe: str | None, skip_path: Path | None, dry_run: bool,
    as_json: bool,
) -> int:  # fmt: skip
    """Turn the items of a data pool into pending rows.

    SOURCE is a .jsonl, .json, .csv or .parquet file, - for JSON lines on stdin, or a Python
    function that yields items, as module:function or path.py:function. Enqueueing the same pool
    again adds nothing; a pool that grew adds what is new. With --samples each item becomes several
    rows, and enqueueing it again with a higher number adds the rest.
    """
    config = session.config(experiment_name=experiment)
    job = PoolJob(
        source, samples=samples, priority=priority, limit=limit, other_recipe=other_recipe,
        skip_path=skip_path, as_json=as_json,
    )  # fmt: skip
    if dry_run:
        return run_async(dry_run_pool(session, config, job))

    async def enqueue_only() -> int:
        from batchgen.jobs.enqueue import recipe_of
        from batchgen.store import open_store

        recipe = recipe_of(config)
        with reading_pool(job) as pool:
            async with open_store(config.database, create=True) as store:
                await enqueue_pool(session, store, config, recipe, pool, job)
        return 0

    return run_async(enqueue_only())


@click.command(
    epilog=epilog(
        "batchgen work -c 20",
        "batchgen work --rpm 500 --tpm 200000 --max-items 100",
        "batchgen work -c 400 --adaptive",
        "batchgen work -c 400 --processes 4 --max-cost 25",
        "batchgen work --until 5000",
        "batchgen work -o results.jsonl",
    )
)
@slots_option
@rpm_option
@tpm_option
@adaptive_option
@only_experiment_option
@click.option("--max-items", type=click.IntRange(1), metavar="N", help="Stop after N items.")
@until_option
@click.option("--watch", is_flag=True, help="When nothing is left, wait for more.")
@processes_option
@max_cost_option
@max_tokens_option
@hedge_option
@grace_option
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
    help="Keep FILE up to date with what is done: JSON lines, in finishing order, each once, also "
         "when it is stopped or killed and run again.",
)  # fmt: skip
@click.option("--part", is_flag=True, hidden=True, help="One of the processes of --processes.")
@click.pass_obj
def work(
    session: Session, slots: int | None, rpm: int | None, tpm: int | None, adaptive: bool | None,
    experiment: str | None, max_items: int | None, until: int | None, watch: bool, processes: int,
    max_cost_usd: float | None, max_tokens: int | None, hedge: bool, grace_s: float | None,
    output: Path | None, part: bool,
) -> int:  # fmt: skip
    """Answer the pending items: claim, call, parse, store.

    Any number of workers may run on one database. Ctrl-C finishes the calls in flight and stops;
    a second one stops at once. Run it again to go on.
    """
    config = session.config()

    async def job() -> int:
        from batchgen.jobs.work import WorkFlags, spec_of
        from batchgen.store import open_store

        flags = WorkFlags(
            slots=slots, rpm=rpm, tpm=tpm, adaptive=adaptive, processes=processes,
            max_items=max_items, until=until, wait_for_more=watch,
            max_cost_usd=max_cost_usd, max_tokens=max_tokens, hedge=hedge, grace_s=grace_s,
        )  # fmt: skip
        async with open_store(config.database) as store:
            chosen = (await experiment_named(store, experiment)).id if experiment else None
            spec = spec_of(config, None if chosen is None else (chosen,), flags)
            if part:
                result = await work_as_part(session, store, config, spec)
            else:
                result = await work_on(session, store, config, spec, processes, output=output)
        return result.exit_code

    return run_async(job())


@click.command(epilog=epilog(
    "batchgen run data_pool.jsonl -c 20",
    "batchgen run data_pool.jsonl --until 5000",
    "batchgen run data_pool.jsonl --samples 4",
))  # fmt: skip
@click.argument("source")
@experiment_option
@samples_option
@slots_option
@rpm_option
@tpm_option
@adaptive_option
@limit_option
@recipe_option
@skip_option
@processes_option
@until_option
@max_cost_option
@max_tokens_option
@hedge_option
@grace_option
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
              help="Default: as export.")  # fmt: skip
@click.pass_obj
def run(
    session: Session, source: str, experiment: str | None, samples: int, slots: int | None,
    rpm: int | None, tpm: int | None, adaptive: bool | None, limit: int | None,
    other_recipe: str | None, skip_path: Path | None, processes: int, until: int | None,
    max_cost_usd: float | None, max_tokens: int | None, hedge: bool, grace_s: float | None,
    output: Path | None,
) -> int:  # fmt: skip
    """Enqueue a pool, answer it and export: all in one.

    The same as enqueue, work and export one after another; run it again to go on.
    """
    from batchgen.jobs.work import WorkFlags

    config = session.config(experiment_name=experiment)
    job = PoolJob(
        source, samples=samples, limit=limit, other_recipe=other_recipe, skip_path=skip_path
    )
    flags = WorkFlags(
        slots=slots, rpm=rpm, tpm=tpm, adaptive=adaptive, processes=processes, until=until,
        max_cost_usd=max_cost_usd, max_tokens=max_tokens, hedge=hedge, grace_s=grace_s,
    )  # fmt: skip
    return run_async(do_whole_job(session, config, job, flags, output))
