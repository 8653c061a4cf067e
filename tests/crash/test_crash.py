"""Killed at a random moment, again and again, and what the next run makes of it.

`tests/crash/test_kill_matrix.py` has the moments that one can name.
"""

import asyncio
import random
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from batchgen.simulate import Simulator
from tests.kits.crashes import send, until
from tests.kits.project import Project, without_times

Words = Callable[[int], Iterator[dict[str, Any]]]
SLOTS = 10


@pytest.fixture
def calm_lines(words: Words) -> Callable[[Project], "asyncio.Future[Any]"]:
    """What a run that nobody disturbed exports, from a project of its own, in SQLite."""

    async def run(project: Project) -> list[dict[str, Any]]:
        calm = Project(project.path / "calm", project.base_url)
        calm.env["BATCHGEN_DATABASE"] = "batchgen.db"
        calm.config()
        calm.write("prompts/user_prompts/default.txt", "Say {word}\n")
        calm.write("pool.jsonl", (project.path / "pool.jsonl").read_bytes())
        assert (await calm.batchgen("run", "pool.jsonl")).code == 0
        return [without_times(line) for line in calm.export()]

    return lambda project: asyncio.ensure_future(run(project))


async def assert_whole(project: Project) -> None:
    """No contradiction in the tables, no call under way, and SQLite finds the file sound."""
    verified = await project.batchgen("verify")
    assert verified.code == 0, verified.out + verified.err
    assert project.query("select count(*) from work where state = 'running'") == [(0,)]


async def test_a_worker_killed_while_waiting_repeats_only_what_was_in_flight(
    project: Project, simulator: Simulator, words: Words
) -> None:
    project.pool(words(30))
    await project.batchgen("enqueue", "pool.jsonl")
    simulator.hold()
    worker = await project.start("work", "-c", str(SLOTS))
    await simulator.received(4)  # the start is slow on purpose, so that a wrong key costs little
    send(worker, signal.SIGKILL)
    await worker.wait()
    in_flight = simulator.calls
    simulator.release()
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    assert simulator.calls == 30 + in_flight
    status = (await project.batchgen("status", "--json")).json
    assert status["total"]["unknown_calls"] == in_flight
    assert [line["attempts"] for line in project.export()] == [1] * 30
    await assert_whole(project)


@pytest.mark.on_both_engines
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_runs_killed_at_random_moments_lose_nothing_and_export_the_same_bytes(
    project: Project,
    simulator: Simulator,
    words: Words,
    slow: bool,
    calm_lines: Callable[[Project], Any],
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    project.pool(words(400))
    calm = await calm_lines(project)
    calls_before = simulator.calls
    kills = 0
    await project.batchgen("enqueue", "pool.jsonl")
    while kills < (10 if slow else 2):
        worker = await project.start("work", "-c", str(SLOTS))
        done_before = simulator.calls
        await simulator.received(done_before + rng.randrange(1, 30))
        await asyncio.sleep(rng.random() * 0.02)  # not to wait for something: to hit any moment
        send(worker, signal.SIGKILL)
        await worker.wait()
        kills += 1
    assert (await project.batchgen("run", "pool.jsonl", "-c", str(SLOTS))).code == 0
    assert [without_times(line) for line in project.export()] == calm
    assert simulator.calls - calls_before <= 400 + kills * SLOTS
    await assert_whole(project)


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_an_enqueue_killed_again_and_again_goes_on_without_a_second_copy(
    project: Project, words: Words
) -> None:
    """The pool comes by a pipe, and each time a few chunks more than the last time."""
    lines = project.pool(words(60_000)).read_bytes().splitlines(keepends=True)
    for kept in (20_000, 40_000):
        process = await project.start("enqueue", "-", stdin=b"")
        assert process.stdin is not None
        process.stdin.write(b"".join(lines[: kept + 5000]))
        await process.stdin.drain()
        await until(project.database, "select count(*) from items", kept)
        send(process, signal.SIGKILL)
        await process.wait()
        assert project.query("select count(*) from items") == [(kept,)]
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    assert project.query("select count(*), count(distinct input) from items") == [(60_000, 60_000)]
    await assert_whole(project)
