"""`--until N`: exactly N items end as done, whoever does them and whatever fails on the way."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from batchgen.items import Done, Fail, Outcome, Reason, Retry
from batchgen.simulate import Behaviour, Simulator
from batchgen.store import Counts, Exchange
from batchgen.store.transactions import queue
from tests.kits.crashes import until
from tests.kits.project import Project, ended
from tests.kits.table import Table, answered, broken, claims, open_table

WANTED = 7


async def enqueue(project: Project, items: int, *options: str) -> None:
    project.pool({"word": f"w{number:02}"} for number in range(items))
    assert (await project.batchgen("enqueue", "pool.jsonl", *options)).code == 0


def states(project: Project) -> dict[str, int]:
    return dict(project.query("select state, count(*) from work group by 1 order by 1"))


@pytest.mark.parametrize(
    ("until", "wanted", "is_enough"),
    [(None, 5, False), (100, 5, False), (8, 3, False), (5, 0, False), (3, 0, True), (2, 0, True)],
)
def test_the_rule(until: int | None, wanted: int, is_enough: bool) -> None:
    counts = Counts(pending=5, running=2, done=3, ended=3, failed=9)
    assert (counts.wanted(until), counts.is_enough(until)) == (wanted, is_enough)


# The transaction


def wanted(table: Table, worker: int, slots: int, *outcomes: Outcome, until: int) -> Exchange:
    want = claims(slots, until=until)
    return table.run(queue.exchange, worker, outcomes, want, table.now)


def test_all_workers_together_claim_what_is_missing(tmp_path: Path) -> None:
    with open_table(tmp_path / "batchgen.db") as table:
        table.enqueue(*range(10))
        one, other = table.join(), table.join()
        first = wanted(table, one, 3, until=4).items
        (last,) = wanted(table, other, 3, until=4).items
        none = wanted(table, other, 2, until=4)
        assert (none.items, none.enough, none.open) == ([], False, 10)
        # One that fails, or waits for another try, makes room for one more.
        ends = [
            Outcome(first[0], (broken(),), Fail(Reason.SERVER, "no")),
            Outcome(first[1], (broken(),), Retry(table.now + 10_000, charged=True)),
            Outcome(first[2], (answered(),), Done()),
        ]
        assert len(wanted(table, one, 3, *ends, until=4).items) == 2
        assert table.take_over(one) == 2
        rest = wanted(table, other, 9, Outcome(last, (answered(),), Done()), until=4).items
        assert len(rest) == 2
        done = [Outcome(item, (answered(),), Done()) for item in rest]
        end = wanted(table, other, 9, *done, until=4)
        assert (end.items, end.enough, end.open) == ([], True, 5)


# The command


async def test_as_many_as_wanted_are_done_though_some_fail(
    project: Project, simulator: Simulator
) -> None:
    for word in ("w01", "w04"):
        simulator.script(word, *["400"] * 2)
    await enqueue(project, 20)
    work = await project.batchgen("work", "-c", "4", "--until", str(WANTED))
    assert work.code == 0, work.err
    assert f"{WANTED} of {WANTED} wanted are done; 11 left pending\n" in work.err
    assert "Run the same command" not in work.err
    assert states(project) == {"done": WANTED, "failed": 2, "pending": 11}
    assert simulator.calls == WANTED + 2
    again = await project.batchgen("work", "--until", str(WANTED))
    assert (again.code, simulator.calls) == (0, WANTED + 2)


async def test_a_pool_that_is_used_up_before_says_what_is_missing(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("w01", "400")
    project.pool({"word": f"w0{number}"} for number in range(4))
    run = await project.batchgen("run", "pool.jsonl", "--until", "5")
    assert run.code == 3
    assert (
        "3 of 5 wanted are done, 2 missing, and nothing is left to answer. Enqueue more, or put "
        "failed items back (batchgen retry); then run the same command.\n"
    ) in run.err
    assert len(project.export()) == 3
    project.pool({"word": f"w0{number}"} for number in range(9))
    more = await project.batchgen("run", "pool.jsonl", "--until", "5")
    assert more.code == 0, more.err
    assert len(project.export()) == 5


async def test_other_limits_end_it_before(project: Project) -> None:
    await enqueue(project, 5)
    work = await project.batchgen("work", "--max-items", "2", "--until", "4")
    assert work.code == 3
    assert "2 of 4 wanted are done, 2 missing.\nRun the same command to go on.\n" in work.err


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_several_processes_and_workers_do_not_overshoot(
    project: Project, simulator: Simulator
) -> None:
    await enqueue(project, 60)
    command = ("work", "-c", "6", "--until", "31")
    ends = await asyncio.gather(
        project.process(*command, "--processes", "2"), project.process(*command)
    )
    assert [end.code for end in ends] == [0, 0], ends
    assert states(project) == {"done": 31, "pending": 29}
    assert simulator.calls == 31


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_what_a_dead_worker_had_is_claimed_by_another(
    project: Project, simulator: Simulator
) -> None:
    await enqueue(project, 20)
    simulator.hold()
    command = ("work", "-c", "4", "--until", str(WANTED))
    killed = await project.start(*command)
    await simulator.received(4)
    heir = await project.start(*command)
    await simulator.received(WANTED)
    killed.send_signal(signal.SIGKILL)
    await killed.wait()
    simulator.release()
    work = await ended(heir)
    assert work.code == 0, work.err
    assert states(project) == {"done": WANTED, "pending": 20 - WANTED}
    assert simulator.calls == WANTED + 4


async def test_a_try_that_is_due_later_is_waited_for(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say", *[Behaviour.error(500, headers={"Retry-After": "1"})] * 2)
    await enqueue(project, 2)
    work = await project.batchgen("work", "--until", "2")
    assert work.code == 0, work.err
    assert (states(project), simulator.calls) == ({"done": 2}, 4)


async def test_one_that_watches_waits_for_more_and_ends_when_it_has_enough(
    project: Project, simulator: Simulator
) -> None:
    await enqueue(project, 2)
    watching = await project.start("work", "--watch", "--until", "4")
    await until(project.database, "select count(*) from work where state = 'done'", 2)
    await enqueue(project, 9)
    work = await ended(watching)
    assert work.code == 0, work.err
    assert states(project) == {"done": 4, "pending": 5}


async def test_an_experiment_counts_its_own_items(project: Project) -> None:
    await enqueue(project, 3, "--experiment", "one")
    assert (await project.batchgen("work", "--experiment", "one")).code == 0
    await enqueue(project, 3, "--experiment", "two")
    work = await project.batchgen("work", "--experiment", "two", "--until", "2")
    assert "2 of 2 wanted are done; 1 left pending\n" in work.err
    both = await project.batchgen("work", "--all", "--until", "5")
    assert (both.code, states(project)) == (0, {"done": 5, "pending": 1})


@pytest.mark.parametrize("value", ["0", "many"])
async def test_a_wrong_number_is_a_usage_error(project: Project, value: Any) -> None:
    assert (await project.batchgen("work", "--until", value)).code == 2
