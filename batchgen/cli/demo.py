"""demo: the whole job on a simulated model."""

from pathlib import Path

import click

from batchgen.cli.enqueueing import PoolFlags
from batchgen.cli.group import epilog
from batchgen.cli.run import run_pool
from batchgen.cli.session import Session, run_async
from batchgen.cli.starter import BASIC, copy_starter
from batchgen.config import load
from batchgen.simulate import Simulator


@click.command(epilog=epilog("batchgen demo", "batchgen demo -c 5"))
@click.option("-c", "--concurrency", "slots", type=click.IntRange(1, 1000), default=5,
              show_default=True, help="Calls in flight at once.")  # fmt: skip
@click.pass_obj
def demo(session: Session, slots: int) -> int:
    """Do the whole job on a built-in simulated model.

    No key, no network. Works in the directory batchgen-demo, on the shipped data pool and
    prompts. Run it again: all items are known and done, so nothing is called.
    """
    directory = Path("batchgen-demo")
    copy_starter(BASIC, directory, quietly=True)
    session.say("This is a simulation: a built-in model on this machine answers, nothing is paid.")
    return run_async(_demo(session, directory, slots))


async def _demo(session: Session, directory: Path, slots: int) -> int:
    async with Simulator(latency="lognormal:0.4:0.5").running() as url:
        overrides = {
            "base_url": url, "api_key": "simulated", "experiment_name": "demo",
            "concurrency": slots,
        }  # fmt: skip
        config = load(directory / "config.yaml", env={}, overrides=overrides, cwd=Path.cwd())
        pool = str(directory / "data_pool.jsonl")
        code = await run_pool(session, config, PoolFlags(source=pool), {})
    session.say(f"\nLook around:  batchgen --db {config.database} status")
    return code
