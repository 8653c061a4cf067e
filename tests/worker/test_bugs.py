"""A bug in batchgen itself costs the items that meet it, and nothing that was paid for."""

import asyncio
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from batchgen.config import Price, load
from batchgen.jobs.work import spec_of
from batchgen.llm.client import open_client
from batchgen.llm.prices import Prices
from batchgen.simulate import Behaviour, Simulator
from batchgen.store import open_store
from batchgen.worker.run import run_worker
from batchgen.worker.servers import Connection
from batchgen.worker.spec import WorkSpec
from batchgen.worker.stats import RunContext, Stats
from tests.kits.job import Job, Log
from tests.kits.project import KEY

pytestmark = pytest.mark.usefixtures("server")  # on both engines

NOT_A_NUMBER: Any = "not a number"


@pytest.fixture
def job(tmp_path: Path, simulator: Simulator) -> Job:
    return Job(tmp_path, simulator.base_url)


async def run(
    job: Job, words: list[str], stats: Stats, price: Price | None = None, **spec: Any
) -> None:
    """One worker, put together with what it cannot work with."""
    given = {"base_url": job.base_url, "api_key": KEY, "model": "simulated"}
    config = load(None, env={}, overrides=given, cwd=job.path)
    what: WorkSpec = replace(spec_of(config, concurrency=3), **spec)
    prices = Prices(replace(config.model, price=price))
    async with open_store(job.database, create=True) as store:
        await job.enqueue(store, words)
        async with open_client(config.model, timeout_s=60) as client:
            await run_worker(
                store, [Connection(client, prices)], what, RunContext(job.stop, job.log, stats),
                present={},
            )  # fmt: skip
        assert await store.verify() == []


async def test_an_answer_is_kept_when_what_follows_from_it_cannot_be_decided(job: Job) -> None:
    await run(job, ["a", "b"], Stats(calls=NOT_A_NUMBER))
    assert job.ends() == [("failed", "parse", 1)] * 2  # so that `reparse` takes the answer
    assert [job.calls(1), job.calls(2)] == [[("answered", None, 200)]] * 2
    assert job.error().startswith("internal error, please report it: TypeError: ")
    assert len(job.log.bugs) == 2


async def test_an_answer_is_kept_when_the_judge_fails_at_it(job: Job) -> None:
    """Whatever raises between a reply and its commit: here, what it cost cannot be told."""
    price = Price(NOT_A_NUMBER, NOT_A_NUMBER, NOT_A_NUMBER)
    await run(job, ["a", "b"], Stats(), price)
    assert job.ends() == [("failed", "parse", 1)] * 2
    assert [job.calls(1), job.calls(2)] == [[("answered", None, 200)]] * 2
    assert job.query("select count(*) from attempts where response like '%a%'") == [(2,)]


async def test_a_first_call_that_has_failed_is_known_when_the_second_is_left(
    job: Job, simulator: Simulator
) -> None:
    simulator.script("Say late", Behaviour.error(500, delay_s=0.5), "hang")
    simulator.script("Say other", Behaviour.ok("Hello", delay_s=3))  # long after the first failed
    stats = Stats(latencies_ms=deque([10] * 30))  # so that each call is late at once
    working = asyncio.create_task(run(job, ["late", "other"], stats, hedge=True, grace_s=0))
    await job.log.first(None).wait()
    job.stop.drain.set()
    await working
    assert job.calls(1) == [("failed", "server", 500), ("unknown", None, None)]
    assert job.ends()[0] == ("pending", None, 0)


async def test_a_watch_that_fails_ends_the_run_and_says_why(job: Job, simulator: Simulator) -> None:
    simulator.script("Say a", "hang")
    working = asyncio.create_task(run(job, ["a"], Stats(), grace_s=NOT_A_NUMBER))
    await simulator.received(1)
    job.stop.drain.set()
    async with asyncio.timeout(20):  # else the call would be waited for
        with pytest.raises(TypeError):
            await working
    assert job.calls() == [("unknown", None, None)]


class LogThatFails(Log):
    def bug(self, message: str, trace: str) -> None:
        raise OSError(message)


async def test_an_outcome_is_handed_in_before_it_is_logged(job: Job) -> None:
    job.log = LogThatFails()
    with pytest.raises(OSError, match="item 1: "):
        await run(job, ["a"], Stats(calls=NOT_A_NUMBER))
    assert job.calls() == [("answered", None, 200)]
