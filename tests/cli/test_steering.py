"""Orders from another terminal: what running workers make of them, and who else does not."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batchgen.limits import Limits
from batchgen.simulate import Simulator
from batchgen.store import OrderChange, Orders, open_store
from batchgen.store.transactions.steering import change_orders, orders_of
from tests.kits.crashes import until
from tests.kits.database import look
from tests.kits.project import Project, ended
from tests.kits.table import open_table

Words = Callable[[int], Iterator[dict[str, Any]]]
ITEMS = 60
# What the worker tells of itself, a moment after it has obeyed.
PAUSED = "select count(*) from workers where report like '%\"paused\":true%'"
NONE_IN_FLIGHT = "select not exists (select 1 from work where state = 'running')"
PAUSED_WITH_4 = (
    "1 worker paused; 4 calls in flight will be finished and kept; batchgen resume goes on.\n"
)
DONE = "select count(*) from work where state = 'done'"
RUNNING = "select count(*) from work where state = 'running'"


@pytest.fixture
async def enqueued(project: Project, words: Words) -> Project:
    project.pool(words(ITEMS))
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    return project


async def test_a_paused_worker_sends_no_more_until_it_is_resumed(
    enqueued: Project, simulator: Simulator
) -> None:
    simulator.hold()
    process = await enqueued.start("work", "-c", "4")
    await simulator.received(4)
    paused = await enqueued.batchgen("pause")
    assert (paused.code, paused.out) == (0, PAUSED_WITH_4)
    await until(enqueued.database, PAUSED)
    simulator.release()
    await until(enqueued.database, DONE, 4)
    await until(enqueued.database, NONE_IN_FLIGHT)
    assert (simulator.calls, process.returncode) == (4, None)
    status = await enqueued.batchgen("status", "--json")
    (worker,) = status.json["workers"]
    assert (worker["paused"], worker["waits_for"]) == (True, "paused")
    assert "paused (batchgen resume goes on)" in (await enqueued.batchgen("status")).out
    again = await enqueued.batchgen("pause")
    assert again.out == "1 worker paused already; batchgen resume goes on.\n"
    resumed = await enqueued.batchgen("resume", "--json")
    assert (resumed.code, resumed.json) == (0, {"workers": 1})
    worked = await ended(process)
    assert worked.code == 0, worked.err
    assert simulator.calls == ITEMS


async def test_more_and_fewer_slots(enqueued: Project, simulator: Simulator) -> None:
    simulator.hold()
    process = await enqueued.start("work", "-c", "2")
    await simulator.received(2)
    simulator.release()  # these two: before the first answer, few calls go out with any slots
    simulator.hold()
    await simulator.received(4)
    assert (await enqueued.batchgen("set", "-c", "30")).out == (
        "1 worker set: 30 slots in all (worker 1: 2 -> 30).\n"
    )
    await simulator.received(2 + 30)
    assert simulator.in_flight == 30
    assert (await enqueued.batchgen("set", "-c", "1")).code == 0
    assert (await enqueued.batchgen("pause")).code == 0  # which it says when it has seen both
    await until(enqueued.database, PAUSED)
    simulator.release()
    await until(enqueued.database, NONE_IN_FLIGHT)
    simulator.max_in_flight = 0
    assert (await enqueued.batchgen("resume")).code == 0
    worked = await ended(process)
    assert worked.code == 0, worked.err
    assert (simulator.calls, simulator.max_in_flight) == (ITEMS, 1)


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_the_slots_are_shared_by_all_that_run(
    enqueued: Project, simulator: Simulator
) -> None:
    simulator.hold()
    first = await enqueued.start("work", "-c", "1")
    await simulator.received(1)
    second = await enqueued.start("work", "-c", "1")
    await simulator.received(2)
    refused = await enqueued.batchgen("set", "-c", "1")
    assert (refused.code, refused.err) == (
        2, "error: too few slots: 2 workers run, each with one at least, to share 1. "
        "Stop one (batchgen stop --worker ID), or take more.\n",
    )  # fmt: skip
    assert (await enqueued.batchgen("set", "-c", "7")).out == (
        "2 workers set: 7 slots in all (worker 1: 1 -> 4, worker 2: 1 -> 3).\n"
    )
    assert look(enqueued.database, "select slots from workers order by id") == [(4,), (3,)]
    await simulator.received(7)
    assert (await enqueued.batchgen("set", "-c", "9", "--worker", "1")).out == (
        "1 worker set: 9 slots in all (worker 1: 4 -> 9).\n"
    )
    await simulator.received(12)
    assert simulator.in_flight == 12
    simulator.release()
    assert [(await ended(one)).code for one in (first, second)] == [0, 0]


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_a_limit_holds_and_is_lifted(enqueued: Project, simulator: Simulator) -> None:
    simulator.hold()
    process = await enqueued.start("work", "-c", "10")
    await simulator.received(10)
    assert (await enqueued.batchgen("set", "--rpm", "1")).code == 0
    await until(enqueued.database, "select count(*) from workers where report is not null")
    simulator.release()
    await until(
        enqueued.database,
        'select count(*) from workers where report like \'%"by":"limit"%\'',
    )
    assert simulator.calls < ITEMS
    assert (await enqueued.batchgen("set", "--rpm", "0")).code == 0
    worked = await ended(process)
    assert worked.code == 0, worked.err
    assert simulator.calls == ITEMS


@pytest.mark.slow
@pytest.mark.on_both_engines
@pytest.mark.parametrize("options", [(), ("--processes", "2")])
async def test_stop_drains_and_exits_as_sigterm_does(
    enqueued: Project, simulator: Simulator, options: tuple[str, ...]
) -> None:
    simulator.hold()
    process = await enqueued.start("work", "-c", "4", *options)
    await simulator.received(4)
    stopping = await enqueued.start("stop", "--wait")
    await until(
        enqueued.database,
        "select count(*) from workers where stop = 'drain'",
        1 + len(options) // 2,
    )
    simulator.release()
    stopped, worked = await ended(stopping), await ended(process)
    assert (stopped.code, stopped.err) == (0, "")
    assert stopped.out in ("1 worker gone.\n", "2 workers gone.\n")
    assert worked.code == 143, worked.err
    assert "stopping, as it was told from elsewhere" in worked.err
    assert look(enqueued.database, RUNNING) == [(0,)]
    again = await enqueued.batchgen("stop", "--wait")
    assert (again.code, again.out) == (0, "No worker is running.\n")
    assert (await enqueued.batchgen("work")).code == 0
    assert simulator.calls == ITEMS


async def test_stop_now_leaves_the_calls_in_flight(enqueued: Project, simulator: Simulator) -> None:
    simulator.hold()
    process = await enqueued.start("work", "-c", "3")
    await simulator.received(3)
    assert (await enqueued.batchgen("stop", "--now")).out == (
        "1 worker told to stop; 3 calls in flight will be abandoned, and sent again by the next "
        "run.\n"
    )
    worked = await ended(process)
    assert worked.code == 143, worked.err
    assert enqueued.query("select unknown_calls from totals") == [(3,)]


async def test_a_straggler_is_shown(enqueued: Project, simulator: Simulator) -> None:
    simulator.script("Say w7", "hang")
    process = await enqueued.start("work", "-c", "4")
    await until(
        enqueued.database,
        "select count(*) from workers where report like '%\"stragglers\":[[%'",
    )
    status = await enqueued.batchgen("status", "--json")
    (worker,) = status.json["workers"]
    assert [late["item"] for late in worker["stragglers"]] == [8]
    assert "item 8: under way for" in (await enqueued.batchgen("status")).out
    process.kill()
    await ended(process)


async def test_to_wait_until_nobody_runs_is_over_at_once_if_nobody_does(enqueued: Project) -> None:
    stopped = await enqueued.batchgen("stop", "--wait", "--json")
    assert (stopped.code, stopped.json) == (0, {"workers": 0})


@pytest.mark.parametrize("command", ["pause", "resume", "stop", "set"])
async def test_nobody_is_there_to_obey(enqueued: Project, command: str) -> None:
    options = ["-c", "5"] if command == "set" else []
    refused = await enqueued.batchgen(command, *options)
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("error: no worker is running on ")
    other = await enqueued.batchgen(command, *options, "--worker", "77")
    assert other.err.startswith("error: no worker 77 is running on ")


async def test_there_is_something_to_set(enqueued: Project) -> None:
    refused = await enqueued.batchgen("set")
    assert (refused.code, refused.err) == (
        2, "error: nothing to set; give -c, --rpm or --tpm. See: batchgen set --help\n",
    )  # fmt: skip


async def test_orders_die_with_the_worker(enqueued: Project, simulator: Simulator) -> None:
    simulator.hold()
    process = await enqueued.start("work", "-c", "1")
    await simulator.received(1)
    assert (await enqueued.batchgen("pause")).code == 0
    process.kill()
    await ended(process)
    simulator.release()
    worked = await enqueued.batchgen("work")
    assert worked.code == 0, worked.err


# In the store


def test_an_order_changes_only_what_it_names(tmp_path: Path) -> None:
    with open_table(tmp_path / "batchgen.db") as table:
        worker, other = table.join(slots=3), table.join(slots=5)
        assert orders_of(table.transaction, worker) == Orders(3)
        assert table.run(change_orders, {worker: OrderChange(paused=True, rpm=0)}) == 1
        assert (
            table.run(
                change_orders,
                {worker: OrderChange(slots=9, tpm=7), 99: OrderChange()},
            )
            == 1
        )
        assert table.exchange(worker).orders == Orders(9, True, 0, 7)
        assert table.exchange(other).orders == Orders(5)
        table.leave(worker)
        assert orders_of(table.transaction, worker) is None


@pytest.mark.parametrize(
    "order", [OrderChange(paused=True), OrderChange(stop="drain"), OrderChange(stop="now")]
)
def test_nothing_is_claimed_after_an_order_to_hold(tmp_path: Path, order: OrderChange) -> None:
    with open_table(tmp_path / "batchgen.db") as table:
        table.enqueue("a", "b")
        worker, other = table.join(), table.join()
        table.run(change_orders, {worker: order})
        assert table.claim(worker, 1) == []
        assert len(table.claim(other, 2)) == 2


def test_a_stop_is_not_taken_back(tmp_path: Path) -> None:
    with open_table(tmp_path / "batchgen.db") as table:
        worker = table.join()
        table.run(change_orders, {worker: OrderChange(stop="now")})
        table.run(change_orders, {worker: OrderChange(stop="drain")})
        orders = table.exchange(worker).orders
        assert orders is not None
        assert orders.stop == "now"


async def test_a_worker_that_was_taken_for_dead_keeps_its_orders(tmp_path: Path) -> None:
    async with (
        open_store(tmp_path / "batchgen.db", create=True) as store,
        store.seat(4, 60.0, 5) as worker,
    ):
        await store.change_orders({worker.id: OrderChange(slots=9, paused=True)})
        assert (await worker.orders())[0] == Orders(9, paused=True)
        await worker.leave()
        assert (await worker.orders())[0] is None
        await worker.join()
        assert (await worker.orders())[0] == Orders(9, paused=True)


def test_a_limit_is_overruled_by_what_is_named() -> None:
    limits = Limits(60, 1000, adaptive=True)
    assert limits.overruled(None, None) == limits
    assert limits.overruled(500, None) == Limits(500, 1000, adaptive=True)
    assert limits.overruled(0, 0) == Limits(None, None, adaptive=True)
