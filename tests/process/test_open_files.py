"""How many open files the system allows: enough are taken for the calls, or none is made."""

import asyncio

import pytest

from batchgen.simulate import Behaviour, Simulator
from tests.kits.processes import Process
from tests.kits.project import Project, ended

SLOTS = 250

LIMITED = """
import resource, sys
soft, hard = int(sys.argv.pop(1)), int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from batchgen.cli import main
main()
"""


async def start(project: Project, soft: int, hard: int, *arguments: str) -> Process:
    script = str(project.write("limited.py", LIMITED))
    return await project.start(script, str(soft), str(hard), *arguments)


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_the_soft_limit_is_raised_for_as_many_calls_as_are_wanted(
    project: Project, simulator: Simulator
) -> None:
    project.pool({"word": f"w{number}"} for number in range(SLOTS))
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    all_came = asyncio.Event()
    few, rest = Behaviour.ok(), Behaviour.ok(after=all_came)  # a worker begins with few
    simulator.script("Say w", *[few] * 50, *[rest] * 200)
    worker = await start(project, 64, 1000, "work", "-c", str(SLOTS))
    await simulator.received(SLOTS)
    all_came.set()
    finished = await ended(worker)
    assert finished.code == 0, finished.err
    assert simulator.calls == SLOTS
    assert simulator.max_in_flight >= 200
    assert project.query("select outcome, count(*) from attempts group by 1 order by 1") == [
        ("answered", SLOTS)
    ]


async def test_more_calls_than_the_system_allows_are_refused_before_the_first(
    project: Project, simulator: Simulator
) -> None:
    project.pool({"word": f"w{number}"} for number in range(SLOTS))
    refused = await ended(await start(project, 64, 200, "run", "pool.jsonl", "-c", str(SLOTS)))
    assert (refused.code, simulator.calls) == (2, 0)
    assert refused.err.splitlines()[-1] == (
        "error: 250 calls at once need 350 open files, and the system allows this process 200 "
        "(ulimit -Hn). Take at most 100, or more processes."
    )
