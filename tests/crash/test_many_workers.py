"""Many workers on one database, joined and killed at random, and SQLite under many writers.

The same for as long as you like: `python3 dev.py chaos --seconds 600 --workers 8 --seed 7`.
"""

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from signal import SIGKILL

import pytest

from batchgen.simulate import Simulator
from tests.crash.chain_chaos import chain_chaos
from tests.crash.chaos import ACTS, ERRORS, Plan, chaos, churn
from tests.kits.crashes import contradictions, send, until
from tests.kits.database import look
from tests.kits.project import Project

pytestmark = pytest.mark.only_sqlite("stopped where SQLite waits; PostgreSQL has its own")

# Generous for a takeover on a loaded machine; a lease is a minute.
SOON_MS = 10_000
# Generous, too, for a turn to write; `dev.py chaos` wants it within a second.
TURN_S = 10.0


def plan(seconds: float, workers: int, *acts: str, errors: str = ERRORS, chunk: int = 300) -> Plan:
    seed = random.randrange(10**6)
    return Plan(
        seconds, workers, seed, acts=acts, errors=errors, chunk=chunk, longest_wait_s=TURN_S
    )


@pytest.mark.parametrize(
    "plan",
    [
        plan(3, 3, *ACTS),
        pytest.param(plan(60, 4, *ACTS), marks=pytest.mark.slow),
        pytest.param(plan(2, 6, "kill", errors="", chunk=200), marks=pytest.mark.slow),
        pytest.param(plan(2, 6, errors="", chunk=800), marks=pytest.mark.slow),
    ],
    ids=["everything happens", "for a minute", "some are killed", "each gets a fair share"],
)
async def test_chaos_loses_nothing_and_asks_nothing_twice(plan: Plan, tmp_path: Path) -> None:
    print(plan)  # with its seed
    result = await chaos(plan, tmp_path)
    print(result.text())
    assert result.problems == []
    assert result.calls >= result.items > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "seconds", [4, pytest.param(60, marks=pytest.mark.slow)], ids=["in short", "for a minute"]
)
async def test_chaos_leaves_the_chains_of_a_calm_run(seconds: float, tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    result = await chain_chaos(seconds, 3, seed, tmp_path)
    print(result.text())
    assert result.problems == []


async def test_a_new_worker_takes_over_from_dead_ones_as_it_joins(
    project: Project, simulator: Simulator
) -> None:
    """Not when their leases run out, in a minute."""
    project.pool({"word": f"w{number}"} for number in range(12))
    await project.batchgen("enqueue", "pool.jsonl")
    simulator.hold()
    dead = [await project.start("work", "-c", "3") for _ in range(2)]
    await simulator.received(6)
    for worker in dead:
        send(worker, SIGKILL)
        await worker.wait()
    heir = await project.start("work", "-c", "3")
    await simulator.received(9)
    await until(project.database, "select count(*) from attempts", 6)
    taken_over = "select min(finished_at), max(finished_at) from attempts where outcome = 'unknown'"
    [(first, last)] = look(project.database, taken_over)
    [(started_at, pid)] = look(project.database, "select started_at, pid from workers")
    assert pid == heir.pid
    print(f"taken over {last - started_at} ms after joining")
    assert started_at <= first <= last <= started_at + SOON_MS
    simulator.release()
    assert await heir.wait() == 0
    assert simulator.calls == 12 + 6
    assert contradictions(project, await project.batchgen("verify")) == []


@pytest.mark.slow
async def test_writers_that_reset_the_log_all_the_time_do_not_damage_the_file(
    tmp_path: Path,
) -> None:
    """SQLite before 3.51.3 does, without our gate. Some of the writers are killed."""
    acknowledged = await churn(tmp_path / "batchgen.db", seconds=3, writers=3, seed=7)
    assert acknowledged
    with closing(sqlite3.connect(tmp_path / "batchgen.db")) as db:
        assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
        kept = {name for (name,) in db.execute("select name from experiments")}
    assert acknowledged - kept == set()
