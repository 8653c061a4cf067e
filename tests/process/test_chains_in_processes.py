"""Steps in several worker processes, and functions that end the process which runs them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from batchgen.cli.worker_process import COMMAND
from batchgen.errors import BatchgenError
from batchgen.jobs.processes import work_in_processes
from batchgen.jobs.work import spec_of
from batchgen.shutdown import Stop
from batchgen.simulate import Simulator
from batchgen.store import Store, open_store
from batchgen.worker.stats import Stats
from tests.kits.chains import ChainJob

pytestmark = pytest.mark.usefixtures("server")  # on both engines

KILLS = """
import os, time

def score(item, values):
    if item["word"] == "w3":
        os._exit(0)
    return len(values["draft"])

def slow(item, values):
    time.sleep(0.05)
    return values["draft"]
"""


@pytest.fixture
async def other() -> AsyncIterator[Simulator]:
    """The server of a step."""
    server = Simulator()
    async with server.running():
        yield server


def job_of(path: Path, simulator: Simulator, other: Simulator, function: str) -> ChainJob:
    (path / "own.py").write_text(KILLS)
    steps: list[dict[str, Any]] = [
        {"name": "draft", "user": {"text": "Draft {word}"}},
        {"name": function, "function": f"{path}/own.py:{function}"},
        {"name": "end", "user": {"text": f"End {{{function}}} of {{word}}"},
         "model": {"base_url": other.base_url, "api_key": "sk-of-the-step", "model": "big"}},
    ]  # fmt: skip
    return ChainJob(path, simulator.base_url, steps)


async def work(job: ChainJob, store: Store, said: list[str], stop: Stop | None = None) -> None:
    """Two processes, until nothing is left or both have ended."""
    config = job.config(max_attempts=2)
    spec = spec_of(config, experiments=(3, 2, 1), concurrency=6)
    await work_in_processes(
        store, config, spec.split(2), COMMAND, stop=stop or Stop(), stats=Stats(), say=said.append
    )


def items(n: int) -> list[dict[str, Any]]:
    return [{"word": f"w{number}"} for number in range(n)]


async def test_processes_know_the_servers_and_functions_of_the_steps(
    tmp_path: Path, simulator: Simulator, other: Simulator
) -> None:
    job = job_of(tmp_path, simulator, other, "slow")
    async with open_store(job.database, create=True) as store:
        await job.enqueue(store, items(12))
        await work(job, store, [])
        assert await store.verify() == []
    assert [row[0] for row in job.ends("end")] == ["done"] * 12
    assert (simulator.calls, other.calls) == (12, 12)


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_a_function_that_ends_the_process_costs_its_own_row_alone(
    tmp_path: Path, simulator: Simulator, other: Simulator
) -> None:
    job, said = job_of(tmp_path, simulator, other, "score"), list[str]()
    async with open_store(job.database, create=True) as store:
        await job.enqueue(store, items(12))
        for _ in range(4):
            with suppress(BatchgenError):
                await work(job, store, said)
        assert await store.verify() == []
    ends = [(state, reason) for state, reason, _ in job.ends("score")]
    assert sorted(ends, key=str) == [("done", None)] * 11 + [("failed", "crash")]
    ((unknown,),) = job.query("select count(*) from attempts where outcome = 'unknown'")
    sent = simulator.calls + other.calls
    assert 12 + 11 <= sent <= 12 + 11 + unknown  # no more than what was in flight, or about to be
    assert any("the function of a step ended the process, by os._exit(0)" in one for one in said)


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_a_stop_leaves_rows_of_functions_that_run_to_the_next(
    tmp_path: Path, simulator: Simulator, other: Simulator
) -> None:
    job, stop = job_of(tmp_path, simulator, other, "slow"), Stop()
    async with open_store(job.database, create=True) as store:
        await job.enqueue(store, items(30))
        working = asyncio.create_task(work(job, store, [], stop))
        await other.received(3)
        stop.drain.set()
        await working
        states = job.query("select distinct state from work order by state")
        assert ("running",) not in states
        assert await store.verify() == []
        await work(job, store, [])
        assert await store.verify() == []
    assert [row[0] for row in job.ends("end")] == ["done"] * 30
    assert (simulator.calls, other.calls) == (30, 30)
