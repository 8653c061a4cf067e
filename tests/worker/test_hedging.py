"""A straggler's second call: which of the two counts, and that neither is forgotten."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from batchgen.simulate import Behaviour, Simulator
from tests.kits.crashes import send
from tests.kits.project import Project, ended
from tests.kits.typist import Ended

Words = Callable[[int], Iterator[dict[str, Any]]]
OTHERS = 40  # of which thirty answers tell what is late
LATENCY_S = 0.05


@pytest.fixture
async def slow(project: Project, simulator: Simulator, words: Words) -> Project:
    """Items that take a moment each, and the last one, "late", whose calls the tests script."""
    for number in range(OTHERS):
        simulator.script(f"Say w{number}", Behaviour.ok("Hello", delay_s=LATENCY_S))
    project.pool([*words(OTHERS), {"word": "late"}])
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    return project


def calls_of_late(project: Project) -> list[tuple[str, str | None]]:
    return project.query(
        "select outcome, coalesce(response, reason) from attempts where item_id = ? order by seq",
        (OTHERS + 1,),
    )


async def with_a_second_call(
    project: Project, simulator: Simulator, second_came: asyncio.Event
) -> Ended:
    """Work, and set the event once "late" has been sent again."""
    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(project.batchgen("work", "-c", "5", "--hedge"))
        await simulator.received(2, "late")
        second_came.set()
    return working.result()


async def test_the_second_call_answers_for_one_that_hangs(
    slow: Project, simulator: Simulator
) -> None:
    simulator.script("Say late", "hang", Behaviour.ok("at last"))
    work = await slow.batchgen("work", "-c", "5", "--hedge")
    assert work.code == 0, work.err
    assert calls_of_late(slow) == [("answered", "at last"), ("unknown", None)]
    status = await slow.batchgen("status", "--json")
    assert status.json["total"]["unknown_calls"] == 1
    assert status.json["total"]["done"] == OTHERS + 1
    assert (await slow.batchgen("verify")).code == 0


async def test_the_first_call_counts_if_it_is_answered_first(
    slow: Project, simulator: Simulator
) -> None:
    second_came = asyncio.Event()
    simulator.script("Say late", Behaviour.ok("the first", after=second_came), "hang")
    work = await with_a_second_call(slow, simulator, second_came)
    assert work.code == 0, work.err
    assert simulator.calls_of("late") == 2
    assert calls_of_late(slow) == [("answered", "the first"), ("unknown", None)]


async def test_a_first_call_that_fails_leaves_it_to_the_second(
    slow: Project, simulator: Simulator
) -> None:
    second_came = asyncio.Event()
    first = Behaviour.error(500, message="broken", after=second_came)
    simulator.script("Say late", first, Behaviour.ok("the second", delay_s=1, after=second_came))
    work = await with_a_second_call(slow, simulator, second_came)
    assert work.code == 0, work.err
    assert calls_of_late(slow) == [("answered", "the second"), ("failed", "server")]
    assert slow.query("select unknown_calls, calls from totals") == [(0, OTHERS + 2)]
    assert slow.query("select tries from work where item_id = ?", (OTHERS + 1,)) == [(1,)]


async def test_when_both_fail_the_item_is_tried_again(slow: Project, simulator: Simulator) -> None:
    second_came = asyncio.Event()
    first = Behaviour.error(500, message="broken", after=second_came)
    simulator.script("Say late", first, Behaviour.error(503, delay_s=0), Behaviour.ok("at last"))
    work = await with_a_second_call(slow, simulator, second_came)
    assert work.code == 0, work.err
    kept = calls_of_late(slow)
    assert sorted(kept[:2]) == [("failed", "server"), ("failed", "server")]
    assert kept[-1] == ("answered", "at last")


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_there_is_no_second_call_without_a_free_slot(
    slow: Project, simulator: Simulator
) -> None:
    simulator.script("Say late", Behaviour.ok("at last", delay_s=2))
    work = await slow.batchgen("work", "-c", "1", "--hedge")
    assert work.code == 0, work.err
    assert simulator.max_in_flight == 1
    assert calls_of_late(slow) == [("answered", "at last")]


@pytest.mark.on_both_engines
@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
async def test_both_calls_are_known_after_the_worker_is_gone(
    slow: Project, simulator: Simulator, signum: signal.Signals
) -> None:
    simulator.script("Say late", "hang", "hang")
    process = await slow.start("work", "-c", "5", "--hedge", "--grace", "0")
    await simulator.received(2, "late")
    send(process, signum)
    stopped = await ended(process)
    assert stopped.code == (-9 if signum == signal.SIGKILL else 130), stopped.err
    work = await slow.batchgen("work")
    assert work.code == 0, work.err
    assert [outcome for outcome, _ in calls_of_late(slow)] == ["unknown", "unknown", "answered"]
    assert slow.query("select unknown_calls from totals") == [(2,)]
    assert (await slow.batchgen("verify")).code == 0


async def test_it_does_not_go_with_a_budget(slow: Project, simulator: Simulator) -> None:
    refused = await slow.batchgen("work", "--hedge", "--max-tokens-total", "100000")
    assert refused.code == 2
    assert refused.err.startswith("error: hedging pays for some answers twice")
    assert simulator.calls == 0
