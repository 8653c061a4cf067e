"""demo: the whole job on a simulated model, with a kill in the middle."""

import asyncio
import os
import shlex
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import click

from batchgen.cli.enqueueing import PoolFlags, enqueue_pool, reading_pool
from batchgen.cli.group import epilog
from batchgen.cli.run import run_pool
from batchgen.cli.session import Session, counted, run_async
from batchgen.cli.starter import BASIC, copy_starter
from batchgen.config import Config, load
from batchgen.jobs.asked import asked_of
from batchgen.simulate import Simulator
from batchgen.store import Counts, open_store

_NAME = "demo"
_KEY = "simulated"
_MODEL = "simulated"
_LOOK_EVERY_S = 0.1


@click.command(epilog=epilog("batchgen demo", "batchgen demo -c 5 --samples 100"))
@click.option("-c", "--concurrency", "slots", type=click.IntRange(1, 1000), default=10,
              show_default=True, help="Calls in flight at once.")  # fmt: skip
@click.option("--samples", type=click.IntRange(1, 1000), default=40, show_default=True, metavar="N",
              help="Answers for each of the five items; more take longer.")  # fmt: skip
@click.pass_obj
def demo(session: Session, slots: int, samples: int) -> int:
    """Do the whole job on a built-in simulated model.

    No key, no network. Works in the directory batchgen-demo, on the shipped data pool and prompts.
    A third of the way its worker is killed, as a crash or a power failure would do it, and another
    one goes on. Run it again: all items are known and done, so nothing is called.
    """
    directory = Path("batchgen-demo")
    copy_starter(BASIC, directory, quietly=True)
    session.say("This is a simulation: a built-in model on this machine answers, nothing is paid.")
    return run_async(_demo(session, directory, slots, samples))


async def _demo(session: Session, directory: Path, slots: int, samples: int) -> int:
    async with Simulator(latency="lognormal:0.5:0.4").running() as url:
        overrides = {
            "base_url": url, "api_key": _KEY, "model": _MODEL, "experiment_name": _NAME,
            "concurrency": slots,
        }  # fmt: skip
        config = load(directory / "config.yaml", env={}, overrides=overrides, cwd=Path.cwd())
        pool = PoolFlags(source=str(directory / "data_pool.jsonl"), samples=samples)
        await _work_until_killed(session, config, pool, slots)
        code = await run_pool(session, config, pool, {}, force=True)
    command = f"{_program()} --db {shlex.quote(str(config.database))}"
    session.say(f"\nLook around:\n  {command} status\n  {command} show 1\n  {command} verify")
    return code


async def _work_until_killed(session: Session, config: Config, pool: PoolFlags, slots: int) -> None:
    """Enqueue the pool and let a worker answer a third of it, in a process that is killed then."""
    asked = asked_of(config)
    with reading_pool(pool, config, asked) as entries:
        async with open_store(config.database, create=True) as store:
            await enqueue_pool(session, store, config, asked, entries, pool)
            counts = await store.counts()
            enough = counts.done + counts.open // 3
            if counts.open < 3:
                return
            async with _worker(session, config, slots) as worker:
                while counts.done < enough and worker.returncode is None:
                    await asyncio.sleep(_LOOK_EVERY_S)
                    counts = await store.counts()
            counts = await store.counts()
    session.say(_killed_line(counts))


@asynccontextmanager
async def _worker(
    session: Session, config: Config, slots: int
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker in a process of its own, on the same terminal; killed in the end."""
    env = {
        "BATCHGEN_MODEL_BASE_URL": config.model.base_url, "BATCHGEN_MODEL_API_KEY": _KEY,
        "BATCHGEN_MODEL_MODEL": _MODEL, "BATCHGEN_OUTPUT_DATA_EXPERIMENT_NAME": _NAME,
    }  # fmt: skip
    arguments = ["--config", str(config.directory / "config.yaml")]
    arguments += ["--db", str(config.database), "work", "-c", str(slots)]
    arguments += ["-q"] if session.quiet else []
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "batchgen", *arguments, env={**os.environ, **env}
    )
    try:
        yield worker
    finally:
        if worker.returncode is None:
            worker.kill()
        await worker.wait()


def _killed_line(counts: Counts) -> str:
    return (
        f"\n\nThe worker was just killed (kill -9), with {counted(counts.running, 'call')} in "
        f"flight. Its {counts.done} answers are safe; only what was in flight is sent again.\n"
        "This is the same job, run again:\n"
    )


def _program() -> str:
    """How batchgen is called here, also where it is not on the PATH."""
    found = shutil.which("batchgen")
    return "batchgen" if found else shlex.join([sys.executable, "-m", "batchgen"])
