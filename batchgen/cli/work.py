"""work: the pending items are answered."""

from pathlib import Path
from typing import Any

import click

from batchgen.cli.group import epilog
from batchgen.cli.options import only_experiment_option
from batchgen.cli.session import Session, run_async
from batchgen.cli.working import processes_option, work_on, work_options
from batchgen.jobs.lookup import experiment_named
from batchgen.jobs.work import spec_of
from batchgen.store import open_store


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
@work_options
@processes_option
@only_experiment_option
@click.option("--max-items", type=click.IntRange(1), metavar="N", help="Stop after N items.")
@click.option("--watch", "wait_for_more", is_flag=True, help="When nothing is left, wait for more.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
    help="Keep FILE up to date with what is done: JSON lines, in finishing order, each once, also "
         "when it is stopped or killed and run again.",
)  # fmt: skip
@click.pass_obj
def work(
    session: Session, options: dict[str, Any], processes: int, experiment: str | None,
    output: Path | None,
) -> int:  # fmt: skip
    """Answer the pending items: claim, call, parse, store.

    Any number of workers may run on one database. Ctrl-C finishes the calls in flight and stops;
    a second one stops at once. Run it again to go on.
    """
    config = session.config()

    async def job() -> int:
        async with open_store(config.database) as store:
            chosen = ((await experiment_named(store, experiment)).id,) if experiment else None
            spec = spec_of(config, experiments=chosen, **options)
            return (await work_on(session, store, config, spec, processes, output=output)).exit_code

    return run_async(job())
