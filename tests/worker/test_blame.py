"""Calls that are not served, as the server is down or as their items are bad by themselves: the one
costs no item anything and few calls, the other costs these items, and no run."""

from typing import Any

import pytest

from batchgen.simulate import Simulator
from batchgen.store.trial import MOST_CALLS
from tests.kits.project import Project
from tests.worker.test_trials import states, words

QUICK = "work: {max_attempts: 2, retry_wait_s: 0.02, stall_s: 20}\n"


def script_bad(simulator: Simulator, numbers: Any, behaviour: str) -> int:
    """Items that always fail so; how many these are."""
    for number in numbers:
        simulator.script(f"Say w{number:03}", *[behaviour] * 50)
    return len(numbers)


def counted(project: Project) -> list[Any]:
    """By state and reason; that somebody else was served may be known one call late."""
    assert project.query("select count(*) from work where tries > 3") == [(0,)]
    return project.query(
        "select w.state, coalesce(r.reason, ''), count(*) from work w"
        " left join results r on r.seq = w.result_seq group by 1, 2 order by 1"
    )


@pytest.mark.quick("every other one-500-20")
@pytest.mark.parametrize("slots", ["1", "20"])
@pytest.mark.parametrize("behaviour", ["500", "reset"])
@pytest.mark.parametrize(
    "bad",
    [range(25), range(0, 30, 2)],
    ids=["at the front", "every other one"],
)
async def test_items_that_a_server_fails_at_are_found_out(
    project: Project, simulator: Simulator, slots: str, behaviour: str, bad: Any
) -> None:
    n = script_bad(simulator, bad, behaviour)
    project.config(QUICK)
    project.pool(words(60))
    run = await project.batchgen("run", "pool.jsonl", "-c", slots)
    assert run.code == 3, run.err
    reason = "server" if behaviour == "500" else "connection"
    assert counted(project) == [("done", "", 60 - n), ("failed", reason, n)]


async def test_items_at_both_ends_that_are_rejected_stop_nobody(
    project: Project, simulator: Simulator
) -> None:
    script_bad(simulator, [*range(12), *range(188, 200)], "400")
    project.pool(words(200))
    run = await project.batchgen("run", "pool.jsonl", "-c", "50")
    assert run.code == 3, run.err
    assert states(project) == [("done", "", 1, 176), ("failed", "rejected", 1, 24)]


@pytest.mark.parametrize(
    "options",
    [
        ("-c", "200"),
        pytest.param(("-c", "200", "--processes", "3"), marks=pytest.mark.slow),
    ],
)
async def test_a_server_that_is_dead_from_the_start_costs_few_calls_and_no_item(
    project: Project, simulator: Simulator, options: tuple[str, ...]
) -> None:
    simulator.script("Say", *["500"] * 500)
    project.config("work: {stall_s: 2, retry_wait_s: 0.3}\n")
    project.pool(words(300))
    halted = await project.batchgen("run", "pool.jsonl", *options)
    assert halted.code == 4, halted.err
    assert halted.err.count("warning: the server answers nobody: ") == 1
    assert f"{simulator.base_url} (model.base_url)" in halted.err
    assert simulator.calls <= MOST_CALLS
    assert states(project) == [("pending", "", 0, 300)]
