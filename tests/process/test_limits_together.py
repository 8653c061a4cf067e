"""Limits that hold for several workers at once, over real HTTP."""

import asyncio
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from batchgen.simulate import Simulator
from tests.kits.project import Project, ended

Words = Callable[[int], Iterator[dict[str, Any]]]


def most_within(window_s: float, at_s: Sequence[float]) -> int:
    return max(sum(0 <= at - first < window_s for at in at_s) for first in at_s)


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_two_commands_with_one_key_spread_their_requests(
    project: Project, simulator: Simulator, words: Words
) -> None:
    """240 a minute are four a second, of which two may go out at once."""
    project.pool(words(200))
    await project.batchgen("enqueue", "pool.jsonl")
    workers = [await project.start("work", "-c", "20", "--rpm", "240") for _ in range(2)]
    await simulator.received(17)
    for worker in workers:
        worker.send_signal(signal.SIGINT)
    assert [(await ended(worker)).code for worker in workers] == [130, 130]
    at_s = [request.at for request in simulator.requests]
    assert most_within(1, at_s) <= 10  # far fewer, but on a busy machine some go out late
    assert at_s[-1] - at_s[0] >= 2.5


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_tokens_of_all_workers_together_stay_within_the_limit(
    project: Project, simulator: Simulator
) -> None:
    """60,000 a minute are a thousand a second, of which half may go at once."""
    project.config(max_tokens=100)
    project.pool({"word": "w" * (number % 50)} for number in range(400))
    await project.batchgen("enqueue", "pool.jsonl")
    workers = [await project.start("work", "-c", "50", "--tpm", "60000") for _ in range(2)]
    await simulator.received(120)
    for worker in workers:
        worker.send_signal(signal.SIGINT)
    assert [(await ended(worker)).code for worker in workers] == [130, 130]
    times = [request.at for request in simulator.requests]
    ((tokens,),) = project.query("select sum(prompt_tokens + completion_tokens) from attempts")
    seconds = times[-1] - times[0]
    assert tokens <= 1000 * (seconds + 2) + 500
    assert tokens >= 400 * (seconds - 2)


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_what_a_server_says_of_its_limit_keeps_the_429_from_coming(
    tmp_path: Path, words: Words
) -> None:
    # So slow that a busy machine is done with a reply long before what it announces is out of date.
    simulator = Simulator(rpm=120, burst=5)
    async with simulator.running() as url:
        project = Project(tmp_path, url)
        project.config()
        project.write("prompts/user_prompts/default.txt", "Say {word}\n")
        project.pool(words(12))
        await project.batchgen("enqueue", "pool.jsonl")
        work = await project.process("work", "-c", "20")
    assert work.code == 0
    assert simulator.calls == 12


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_a_rate_is_found_kept_and_shown(tmp_path: Path, words: Words) -> None:
    simulator = Simulator(rpm=300, limit_headers=False)
    async with simulator.running() as url:
        project = Project(tmp_path, url)
        project.config()
        project.write("prompts/user_prompts/default.txt", "Say {word}\n")
        project.pool(words(30))
        await project.batchgen("enqueue", "pool.jsonl")
        work = await project.process("work", "-c", "20", "--processes", "2", "--adaptive")
        assert work.code == 0, work.err
        status = await project.batchgen("status")
        found = (await project.batchgen("status", "--json")).json["learned_requests_per_minute"]
    refused = project.query("select count(*) from attempts where reason = 'rate_limit'")
    assert 1 <= refused[0][0] <= 30
    assert 100 <= found <= 600
    [shown] = re.findall(r"takes about (\d+) requests/min \(found by adaptive\)", status.out)
    assert abs(int(shown) - found) <= 0.55  # both are rounded, to one and to a tenth of one


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_a_worker_that_a_limit_lets_send_nothing_says_so(
    project: Project, words: Words
) -> None:
    project.pool(words(3))
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    assert (await project.batchgen("work", "--rpm", "1", "--max-items", "1")).code == 0
    process = await project.start("work", "--rpm", "1")
    assert process.stderr is not None
    async with asyncio.timeout(60):
        line = await process.stderr.readline()
    assert b"limited to about 1 requests/min" in line
    process.kill()
    await ended(process)
