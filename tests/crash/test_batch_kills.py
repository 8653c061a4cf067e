"""SIGKILL of `work --batch` at each moment that differs, with a provider that fails as it may: then
the same command again, and what must be true after any end (`Job.assert_whole`).

| killed                                     | durable then            | the next one              |
|--------------------------------------------|-------------------------|---------------------------|
| 1 while a file is filled                   | claims of the dead      | gives them back untouched |
| 2 at the upload, before the seal           | the same                | the same                  |
| 3 after the seal, before it is asked for   | `creating`              | looks, and asks           |
| 4 made, and the reply is lost or not noted | `creating`              | looks, and finds it       |
| 5 as 4, and the list is behind             | `creating`              | asks; the twin turns up   |
|                                            |                         | later, and is cancelled   |
| 6 as 4, and there is no list               | `creating`              | leaves it to a person     |
| 7 while the provider works on it           | `open`                  | goes on                   |
| 8 in the download, between two chunks      | the chunks before       | downloads it again        |
| 9 by a parser                              | the answer              | parses it again           |
| 10 after the last chunk                    | no row is left in it    | closes it                 |
| 11 after that                              | `closed`                | deletes the files         |
"""

from collections.abc import AsyncIterator
from pathlib import Path
from signal import SIGKILL

import pytest
import pytest_asyncio

from batchgen.database_address import PostgresAddress
from tests.kits.batch_jobs import FEW, FOREVER, MOMENTS, MOST, Job, Line, Moment, calm_run, job_in
from tests.kits.crashes import contradictions, send
from tests.kits.processes import Process
from tests.kits.project import ended

FAULTS = {"whole": "", "lost_create": "lost_create=1", "late_list": FOREVER, "no_list": "no_list"}
QUICK = {
    "1-filling-whole", "2-uploaded-whole", "3-about_to_ask-whole", "4-made-whole",
    "4-made-late_list", "4-made-no_list", "7-under_way-whole", "8-in_the_second_chunk-whole",
    "10-about_to_close-whole", "11-deleting_files-whole",
}  # fmt: skip
SLOW = (pytest.mark.slow, pytest.mark.on_both_engines)
# A file of the user's, that takes its process along so many times.
PARSER = """
import os, pathlib, signal

def parse(text):
    seen = pathlib.Path(__file__).with_name("seen")
    times = seen.stat().st_size if seen.exists() else 0
    if "w003" in text and times < {deaths}:
        seen.write_text("x" * (times + 1))
        os.kill(os.getpid(), signal.SIGKILL)
    return text
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def calm(tmp_path_factory: pytest.TempPathFactory) -> list[Line]:
    return await calm_run(tmp_path_factory.mktemp("online"))


@pytest.fixture
async def job(tmp_path: Path, server: PostgresAddress | None) -> AsyncIterator[Job]:
    async with job_in(tmp_path, server) as made:
        yield made


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "moment" in metafunc.fixturenames:
        cells = {f"{one.name}-{name}": (one, name) for one in MOMENTS for name in FAULTS}
        metafunc.parametrize(("moment", "faults"), [
            pytest.param(*cell, id=name, marks=() if name in QUICK else SLOW)
            for name, cell in cells.items()
        ])  # fmt: skip


async def test_a_sender_that_is_killed_loses_nothing_and_pays_nothing_twice(
    job: Job, calm: list[Line], moment: Moment, faults: str
) -> None:
    job.faults = FAULTS[faults]
    has_twin = moment.number == 4 and faults == "late_list"
    if has_twin:
        job.provider.hold()
    async with moment.reach(job) as process:
        await kill(process)
    assert moment.left in job.states if moment.left else job.states == []
    if "creating" in job.states and faults == "no_list":
        await nobody_knows(job, is_made=moment.number == 4)
    if has_twin:
        await twin_turns_up(job, await job.sender())
    await job.again()
    await job.assert_whole(calm)


async def kill(process: Process) -> None:
    send(process, SIGKILL)
    assert (await ended(process)).code == -SIGKILL


async def nobody_knows(job: Job, *, is_made: bool) -> None:
    """However often it is tried; a person has looked."""
    asked = job.provider.times_asked("POST /batches")
    for _ in range(2):
        assert "has no list to look in" in (await job.again(code=4)).err
    assert job.provider.times_asked("POST /batches") == asked
    [(number,)] = job.project.query("select id from provider_batches where state = 'creating'")
    says = ["--create", str(number)]
    if is_made:
        (batch_id,) = set(job.provider.batch_ids) - known(job)
        says = ["--adopt", str(number), batch_id]
    said = await job.project.batchgen("batches", *says)
    assert said.code == 0, said.err


def known(job: Job) -> set[str]:
    found = job.project.query("select batch_id from provider_batches where batch_id is not null")
    return {batch_id for (batch_id,) in found}


async def twin_turns_up(job: Job, process: Process) -> None:
    """While all lines are held, so that nothing is answered before; then this run goes on to its
    end."""
    await job.provider.asked(3, "POST /batches")
    job.provider.list_batches()
    await job.provider.asked(1, "POST /batches/ID/cancel")
    job.provider.release()
    said = await ended(process)
    assert said.code == 0, said.err
    assert "had made it already" in said.err


@pytest.mark.parametrize("deaths", [1, pytest.param(2, marks=SLOW)])
async def test_a_parser_that_kills_the_sender_costs_no_answer(
    job: Job, calm: list[Line], deaths: int
) -> None:
    """Moment 9. At each death only this row was at it, or the next one is parsed alone."""
    job.project.write("prompts/code.py", PARSER.format(deaths=deaths))
    await job.begin(text="parser: prompts/code.py:parse\nwork: {max_attempts: 3}")
    for _ in range(deaths):
        assert (await ended(await job.sender())).code == -SIGKILL
        assert job.provider.bill.answers <= FEW
    await job.again()
    await job.assert_whole(calm)


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_a_row_at_which_each_process_dies_fails_alone(job: Job) -> None:
    job.project.write("prompts/code.py", PARSER.format(deaths=2))
    await job.begin(text="parser: prompts/code.py:parse\nwork: {max_attempts: 2}")
    for _ in range(2):
        assert (await ended(await job.sender())).code == -SIGKILL
    assert "1 failed" in (await job.again(code=3)).err
    assert contradictions(job.project, await job.project.batchgen("verify")) == []
    failed = job.project.query(
        "select w.item_id, r.reason from work w join results r on r.seq = w.result_seq"
        " where w.state <> 'done'"
    )
    assert failed == [(4, "crash")]
    assert job.provider.bill.answers == FEW


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_a_sender_that_is_killed_again_and_again_at_a_twin_goes_on(
    job: Job, calm: list[Line]
) -> None:
    """Moment 5: when it was asked for a second time, and when the twin is cancelled."""
    job.faults = FOREVER
    await job.begin(rows=MOST)
    job.provider.hold()
    for route, times in (("POST /batches", 1), ("POST /batches", 2)):
        job.provider.hold(route)
        process = await job.sender()
        await job.provider.asked(times, route)
        await kill(process)
        job.provider.release(route)
    job.provider.list_batches()
    job.provider.hold("POST /batches/ID/cancel")
    process = await job.sender()
    await job.provider.asked(1, "POST /batches/ID/cancel")
    await kill(process)
    job.provider.release()
    await job.again()
    assert job.provider.times_asked("POST /batches") == 2
    await job.assert_whole(calm)


async def test_what_a_twin_has_answered_is_counted_and_told(job: Job) -> None:
    job.faults = FOREVER
    await job.begin(rows=MOST)
    job.provider.hold("POST /batches")
    process = await job.sender()
    await job.provider.asked(1, "POST /batches")
    await kill(process)
    job.provider.release()
    job.provider.hold("GET /files/ID/content")
    process = await job.sender()
    await job.provider.asked(1, "GET /files/ID/content")
    job.provider.list_batches()
    job.provider.release()
    said = await ended(process)
    assert said.code == 0
    assert f"{MOST} of its requests were answered there" in said.err, said.err
    assert (job.provider.bill.answers, job.provider.bill.twice) == (2 * MOST, MOST)
    assert contradictions(job.project, await job.project.batchgen("verify")) == []
