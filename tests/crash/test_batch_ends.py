"""Ends of `work --batch` other than a kill: told to stop, once and twice, and suspended for longer
than its lease. The batches go on at the provider, and the same command goes on with them.

What only waits is given up at the first signal. A request to make a batch is not: it is waited for
as calls are, for `--grace`, since nobody would know what became of it.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from signal import SIGCONT, SIGINT, SIGSTOP, SIGTERM, Signals

import pytest
import pytest_asyncio

from batchgen.database_address import PostgresAddress
from tests.kits import batch_jobs
from tests.kits.batch_jobs import FEW, MOST, Job, Line, Reach, calm_run, job_in
from tests.kits.crashes import at_the_write_lock, gate_is_stuck, said, send
from tests.kits.database import locked
from tests.kits.processes import Process
from tests.kits.project import ended
from tests.kits.typist import Ended

SLOW = (pytest.mark.slow, pytest.mark.on_both_engines)
LEASE_S = 1.5
SAYS = {SIGINT: 130, SIGTERM: 143}
WAITING = (
    batch_jobs.uploaded, batch_jobs.looking, batch_jobs.under_way, batch_jobs.downloading,
    batch_jobs.deleting_files,
)  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def calm(tmp_path_factory: pytest.TempPathFactory) -> list[Line]:
    return await calm_run(tmp_path_factory.mktemp("online"))


@pytest.fixture
async def job(tmp_path: Path, server: PostgresAddress | None) -> AsyncIterator[Job]:
    async with job_in(tmp_path, server) as made:
        yield made


async def its_end(process: Process) -> Ended:
    """Far sooner than the provider is given up."""
    async with asyncio.timeout(30):
        return await ended(process)


def cells(*quick: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("reach", "signum"), [
        pytest.param(
            reach, signum, id=(name := f"{reach.__name__}-{signum.name}"),
            marks=() if name in quick else SLOW,
        )
        for reach in WAITING
        for signum in SAYS
    ])  # fmt: skip


@cells("uploaded-SIGINT", "under_way-SIGINT", "downloading-SIGTERM")
async def test_who_waits_for_the_provider_ends_when_it_is_told_to(
    job: Job, calm: list[Line], reach: Reach, signum: Signals
) -> None:
    async with reach(job) as process:
        send(process, signum)
        told = await its_end(process)
    assert told.code == SAYS[signum], told.err
    if reach is batch_jobs.under_way:
        assert f"stopping: {FEW} requests in provider batches go on" in told.err
    await job.again()
    await job.assert_whole(calm)


@pytest.mark.parametrize("signum", [SIGINT, pytest.param(SIGTERM, marks=SLOW)])
async def test_a_request_to_make_a_batch_is_waited_for(
    job: Job, calm: list[Line], signum: Signals
) -> None:
    async with batch_jobs.made(job) as process:
        send(process, signum)
        await said(process, "stopping: ")
    assert (await its_end(process)).code == SAYS[signum]
    assert job.states == ["open"]
    await job.again()
    await job.assert_whole(calm)


@pytest.mark.on_both_engines
@pytest.mark.slow
@pytest.mark.parametrize("how", ["twice", "for its grace"])
async def test_a_request_to_make_a_batch_is_not_waited_for_any_longer(
    job: Job, calm: list[Line], how: str
) -> None:
    job.options = () if how == "twice" else ("--grace", "0.2")
    async with batch_jobs.made(job) as process:
        send(process, SIGINT)
        await said(process, "stopping: ")
        if how == "twice":
            send(process, SIGINT)
        assert (await its_end(process)).code == 130
    assert job.states == ["creating"]
    await job.again()
    assert job.provider.times_asked("POST /batches") == 2
    await job.assert_whole(calm)


@pytest.mark.on_both_engines
@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
async def test_what_is_being_written_is_written(job: Job, calm: list[Line], times: int) -> None:
    """With answers in hand; and a second signal does not leave them behind."""
    await job.begin()
    job.provider.hold("GET /files/ID/content")
    process = await job.sender()
    await job.provider.asked(1, "GET /files/ID/content")
    with locked(job.project.database, "work"):
        job.provider.release()
        await at_the_write_lock(job.project.database, [process.pid])
        for _ in range(times):
            send(process, SIGINT)
            await said(process, "stopping")
    assert (await its_end(process)).code == 130
    await job.again()
    await job.assert_whole(calm)


PARSER = """
import pathlib

def parse(text):
    with (pathlib.Path(__file__).with_name("pipe")).open() as pipe:
        pipe.read()
    return text
"""


@pytest.mark.on_both_engines
@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
async def test_a_parser_that_is_at_work_is_left_when_it_is_told_to_stop_now(
    job: Job, calm: list[Line], times: int
) -> None:
    """At the first signal it may end; its answers are durable in any case."""
    pipe = job.project.path / "prompts" / "pipe"
    os.mkfifo(pipe)
    job.project.write("prompts/code.py", PARSER)
    await job.begin(text="parser: prompts/code.py:parse")
    job.options = ("-c", "1")
    process = await job.sender()
    await job.provider.asked(1, "GET /files/ID/content")
    writer = await opened_to_write(pipe)
    for _ in range(times):
        send(process, SIGINT)
        await said(process, "stopping")
    if times == 1:
        os.close(writer)
    assert (await its_end(process)).code == 130
    if times == 2:
        os.close(writer)
    pipe.unlink()
    pipe.write_text("")
    await job.again()
    await job.assert_whole(calm)


async def opened_to_write(pipe: Path) -> int:
    """When somebody reads there."""
    return await asyncio.to_thread(os.open, pipe, os.O_WRONLY)


# --- suspended ----------------------------------------------------------------------------------


async def suspend(job: Job, process: Process) -> None:
    """Until its lease is over; not while it writes, which would hold up all others."""
    send(process, SIGSTOP)
    while await gate_is_stuck(job.project.database):
        send(process, SIGCONT)
        send(process, SIGSTOP)


async def test_what_a_suspended_sender_had_goes_to_others_and_it_seals_nothing(
    job: Job, calm: list[Line]
) -> None:
    await job.begin(text=f"parser: raw\nwork: {{lease_s: {LEASE_S}}}")
    job.provider.hold("POST /files")
    process = await job.sender()
    await job.provider.asked(1, "POST /files")
    await suspend(job, process)
    online = await job.project.process("work", "-c", "3")
    assert online.code == 0, online.err
    assert sum(job.provider.bill.online.values()) == FEW
    send(process, SIGCONT)
    job.provider.release()
    told = await its_end(process)
    assert (told.code, job.states) == (0, []), told.err
    assert "taken for dead" in told.err
    await job.assert_whole(calm)


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_a_suspended_sender_keeps_the_batch_that_it_has_sealed(
    job: Job, calm: list[Line]
) -> None:
    """And nothing else."""
    await job.begin(text=f"parser: raw\nwork: {{lease_s: {LEASE_S}}}")
    job.provider.hold("POST /batches")
    process = await job.sender()
    await job.provider.asked(1, "POST /batches")
    await suspend(job, process)
    online = await job.project.process("work", "-c", "3")
    assert online.code == 0, online.err
    assert sum(job.provider.bill.online.values()) == FEW - MOST
    send(process, SIGCONT)
    job.provider.release()
    told = await its_end(process)
    assert (told.code, job.states) == (0, ["closed"]), told.err
    await job.assert_whole(calm)


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_nobody_else_sends_while_the_sender_is_suspended(job: Job, calm: list[Line]) -> None:
    async with batch_jobs.under_way(job) as process:
        await suspend(job, process)
        second = await job.again(code=2)
        assert "another process sends and collects" in second.err
        send(process, SIGCONT)
    assert (await its_end(process)).code == 0
    await job.assert_whole(calm)
