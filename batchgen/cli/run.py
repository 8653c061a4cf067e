"""run: enqueue, work and export, all in one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from batchgen.cli.enqueueing import (
    OPTIONS,
    PoolFlags,
    enqueue_pool,
    pool_options,
    reading_pool,
)
from batchgen.cli.exporting import export_to
from batchgen.cli.group import epilog
from batchgen.cli.options import force_option
from batchgen.cli.parsing import use_asked
from batchgen.cli.session import Session, run_async
from batchgen.cli.working import (
    ONLINE,
    BatchFlags,
    batch_options,
    processes_option,
    work_on,
    work_options,
)
from batchgen.config import Config
from batchgen.export import Overwriting
from batchgen.jobs.asked import asked_of
from batchgen.jobs.export import check_output
from batchgen.jobs.lookup import experiment_named
from batchgen.jobs.scope import scope_of
from batchgen.jobs.work import check_options, spec_of
from batchgen.store import open_store


@click.command(epilog=epilog(
    "batchgen run data_pool.jsonl -c 20",
    "batchgen run data_pool.jsonl --until 5000",
    "batchgen run data_pool.jsonl --samples 4",
    "batchgen run data_pool.jsonl --batch",
    "batchgen run data.csv --prompt 'Translate into French: {text}' --system '' --experiment fr",
))  # fmt: skip
@pool_options
@work_options
@batch_options
@processes_option
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
              help="Default: as export.")  # fmt: skip
@force_option
@click.pass_obj
def run(
    session: Session, pool: PoolFlags, options: dict[str, Any], in_batches: BatchFlags,
    processes: int, output: Path | None, force: bool,
) -> int:  # fmt: skip
    """Enqueue a pool, answer it and export: all in one.

    The same as enqueue, work and export one after another; run it again to go on. When it halts,
    what is done so far is exported.
    """
    in_batches.check(processes=processes)
    config = session.config(OPTIONS, **pool.settings)
    return run_async(
        run_pool(
            session, config, pool, options, processes, output, force=force, in_batches=in_batches
        )
    )


async def run_pool(
    session: Session, config: Config, pool: PoolFlags, options: Mapping[str, Any],
    processes: int = 1, output: Path | None = None, *, force: bool = False,
    in_batches: BatchFlags = ONLINE,
) -> int:  # fmt: skip
    """All three steps, on one open database. `options` are those of `spec_of`: what is wrong with
    them is said before anything is enqueued."""
    check_options(config, options)
    asked = asked_of(config)
    name = config.output_data.experiment_name
    with reading_pool(pool, config, asked) as entries:
        async with open_store(config.database, create=True) as store:
            await use_asked(session, store, config, asked)
            await enqueue_pool(session, store, config, asked, entries, pool)
            experiment = await experiment_named(store, name)
            overwriting = Overwriting((*config.own_files, Path(pool.source)), force)
            await check_output(store, config.output_data, experiment, output, overwriting)
            scope = await scope_of(store, (name,))
            spec = spec_of(config, experiments=scope.ids, **options)
            present = await use_asked(session, store, config, asked)
            result = await work_on(
                session, store, config, spec, processes, present=present, in_batches=in_batches
            )
            has_halted = result.exit_code == 4
            if result.exit_code in (0, 3) or (has_halted and result.counts.done):
                await export_to(session, store, config, experiment, output, force=force)
    return result.exit_code
