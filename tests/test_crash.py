"""Workers that are killed at any moment, and what the next run makes of it.

`--chaos-seed` repeats a random run; the seed of each is printed.
"""

import asyncio
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batchgen.simulate import Simulator
from tests.conftest import Project, ended, without_times

Words = Callable[[int], Iterator[dict[str, Any]]]
SLOTS = 10


@pytest.fixture
def calm_lines(words: Words) -> Callable[[Project], "asyncio.Future[Any]"]:
    """What a run that nobody disturbed exports, from a project of its own."""

    async def run(project: Project) -> list[dict[str, Any]]:
        calm = Project(project.path / "calm", project.base_url)
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
    worker.send_signal(signal.SIGKILL)
    await worker.wait()
    in_flight = simulator.calls
    simulator.release()
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    assert simulator.calls == 30 + in_flight
    status = (await project.batchgen("status", "--json")).json
    assert status["total"]["unknown_calls"] == in_flight
    assert [line["attempts"] for line in project.export()] == [1] * 30
    await assert_whole(project)


async def test_runs_killed_at_random_moments_lose_nothing_and_export_the_same_bytes(
    project: Project, simulator: Simulator, words: Words, calm_lines: Callable[[Project], Any]
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    project.pool(words(400))
    calm = await calm_lines(project)
    calls_before = simulator.calls
    kills = 0
    await project.batchgen("enqueue", "pool.jsonl")
    while kills < 8:
        worker = await project.start("work", "-c", str(SLOTS))
        done_before = simulator.calls
        await simulator.received(done_before + rng.randrange(1, 30))
        await asyncio.sleep(rng.random() * 0.02)  # not to wait for something: to hit any moment
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
        kills += 1
    assert (await project.batchgen("run", "pool.jsonl", "-c", str(SLOTS))).code == 0
    assert [without_times(line) for line in project.export()] == calm
    assert simulator.calls - calls_before <= 400 + kills * SLOTS
    await assert_whole(project)


async def test_an_enqueue_killed_half_way_goes_on_without_a_second_copy(
    project: Project, words: Words
) -> None:
    project.pool(words(60_000))
    for _ in range(3):
        process = await project.start("enqueue", "pool.jsonl")
        await rows_in(project, more_than=0)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    assert project.query("select count(*), count(distinct input) from items") == [(60_000, 60_000)]
    assert project.query("select count(*) from items where id > 60000") == [(0,)]
    await assert_whole(project)


async def rows_in(project: Project, *, more_than: int) -> None:
    """Until the database has rows, seen from outside."""
    while not (project.database.exists() and count_items(project) > more_than):
        await asyncio.sleep(0.001)


def count_items(project: Project) -> int:
    try:
        [(n,)] = project.query("select count(*) from items")
    except Exception:  # the schema is being made at this moment
        return 0
    return int(n)


async def test_two_workers_share_the_items_and_one_takes_over_when_the_other_dies(
    project: Project, simulator: Simulator, words: Words
) -> None:
    project.pool(words(40))
    await project.batchgen("enqueue", "pool.jsonl")
    simulator.hold()
    first = await project.start("work", "-c", "4")
    await simulator.received(4)
    second = await project.start("work", "-c", "4")
    await simulator.received(8)
    first.send_signal(signal.SIGKILL)
    await first.wait()
    simulator.release()
    assert (await ended(second)).code == 0
    assert simulator.calls == 40 + 4
    assert len(set(simulator.ledger)) == 40
    await assert_whole(project)


async def test_an_export_killed_half_way_leaves_the_old_file(
    project: Project, simulator: Simulator, words: Words
) -> None:
    project.pool(words(50))
    await project.batchgen("run", "pool.jsonl")
    before = (project.path / "output/default.jsonl").read_bytes()
    process = await project.start("export", "-o", "output/default.jsonl")
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert (project.path / "output/default.jsonl").read_bytes() == before
    assert (await project.batchgen("export")).code == 0
    left_over = {file.name for file in Path(project.path / "output").iterdir()}
    assert {name for name in left_over if not name.endswith(".part")} == {"default.jsonl"}
