"""Every way to end a process, at every moment that differs: then the same command again, and what
must be true after any end is true.

    every item is there once and in one state; the export is that of a calm run; no call but those
    in flight was made twice, and each is on record; the file and the tables are sound; nobody is
    left running

The two tables below are the matrix: a row a moment, a column an end. `--slow` runs all of it,
each cell at work with one, two and four workers, and on PostgreSQL with two.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from signal import SIGCONT, SIGINT, SIGKILL, SIGSTOP, SIGTERM
from typing import Any

import pytest
import pytest_asyncio

from batchgen.simulate import Behaviour, Simulator
from batchgen.store.sqlite.migrate import migrations
from tests.kits.crashes import (
    at_the_write_lock,
    contradictions,
    exported,
    gate_is_stuck,
    said,
    send,
    until,
)
from tests.kits.database import Stranger, locked
from tests.kits.processes import Process
from tests.kits.project import Project, ended
from tests.kits.typist import Typist

ITEMS = 60
BIG_ITEMS = 24  # of them; of a big pool the first 17 fill a chunk
SLOTS = 3
RETRIED = 4  # one more in a row, and the server counts as down: then no call goes out
REFUSED = 5
# Of those who end by a lease: longer than a machine with other work keeps a process waiting.
LEASE_S = 1.5
MANY = (1, 2, 4)
ON_SERVER = 2
OF_SQLITE = pytest.mark.only_sqlite("seen from its files")

Line = dict[str, Any]


class End(Enum):
    KILL = "SIGKILL"
    TERM = "SIGTERM"
    INT = "SIGINT"
    TWICE = "SIGINT twice"
    SUSPEND = "SIGSTOP and SIGCONT"


def pool(*, big: bool = False) -> Iterator[dict[str, Any]]:
    for number in range(ITEMS):
        item: dict[str, Any] = {"word": f"w{number:02}"}
        yield item | ({"metadata": "x" * 1_000_000} if big and number < BIG_ITEMS else {})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def calm(tmp_path_factory: pytest.TempPathFactory) -> list[Line]:
    """What a run that nobody disturbed exports."""
    async with Simulator().running() as base_url:
        undisturbed = Project(tmp_path_factory.mktemp("calm"), base_url)
        undisturbed.config()
        undisturbed.write("prompts/user_prompts/default.txt", "Say {word}\n")
        undisturbed.pool(pool())
        assert (await undisturbed.batchgen("run", "pool.jsonl")).code == 0
        return exported(undisturbed)


@dataclass
class WholeJob:
    """A pool that is to be answered, whatever happens. What is typed runs in this process."""

    project: Project
    simulator: Simulator
    type: Typist
    big: bool = False
    failed_calls: int = 0  # so many are asked again because the model did not answer

    async def enqueue(self) -> None:
        self.project.pool(pool(big=self.big))
        assert (await self.type("enqueue", "pool.jsonl")).code == 0

    async def run_but_for_some_that_are_refused(self) -> None:
        await self.enqueue()
        self.refuse_some()
        assert (await self.type("run", "pool.jsonl")).code == 3

    def refuse_some(self) -> None:
        for number in range(REFUSED):
            self.simulator.script(f"Say w{number:02}", Behaviour.error(400))
        self.failed_calls += REFUSED

    async def worker(self, *, fresh: bool = False) -> Process:
        return await self.project.start("-q", "work", "-c", str(SLOTS), fresh=fresh)

    async def again(self) -> None:
        """The rest of the job, by the command that one would type."""
        rest = await self.type("run", "pool.jsonl", "-c", str(SLOTS))
        assert rest.code == 0, rest.err

    async def assert_whole(self, calm: list[Line], calls_repeated: int = 0) -> None:
        """`calls_repeated`: at most so many calls were in flight at the ends."""
        assert contradictions(self.project, await self.type("verify")) == []
        assert self.project.query("select state, count(*) from work group by 1") == [
            ("done", ITEMS)
        ]
        assert self.simulator.calls <= ITEMS + self.failed_calls + calls_repeated
        [(on_record,)] = self.project.query("select count(*) from attempts")
        assert on_record >= self.simulator.calls
        lines = exported(self.project)
        if self.failed_calls:
            assert [without_attempts(line) for line in lines] == list(map(without_attempts, calm))
        elif self.big:
            assert [line["response"] for line in lines] == [line["response"] for line in calm]
        else:
            assert lines == calm


def without_attempts(line: Line) -> Line:
    return {name: value for name, value in line.items() if name != "attempts"}


@pytest.fixture
def job(project: Project, simulator: Simulator) -> WholeJob:
    return WholeJob(project, simulator, Typist(project.path, project.env))


# --- at work: the moments -----------------------------------------------------------------------
# All workers have all their calls in flight, held by the model. What is yielded are the workers,
# those to end first; on leaving, whatever held them lets go.


@asynccontextmanager
async def waiting_for_the_model(
    job: WholeJob, workers: list[Process]
) -> AsyncIterator[list[Process]]:
    yield workers
    job.simulator.release()


@asynccontextmanager
async def answered_but_not_committed(
    job: WholeJob, workers: list[Process]
) -> AsyncIterator[list[Process]]:
    """The one that waits for the write lock with its answers comes first."""
    with locked(job.project.database):
        job.simulator.release()
        pid = await at_the_write_lock(job.project.database, [each.pid for each in workers])
        yield sorted(workers, key=lambda each: each.pid != pid)


@asynccontextmanager
async def between_commits(job: WholeJob, workers: list[Process]) -> AsyncIterator[list[Process]]:
    """In full flow: at a moment that is another one each time."""
    job.simulator.release()
    await job.simulator.received(SLOTS * len(workers) + 6)
    yield workers


@asynccontextmanager
async def waiting_to_try_again(
    job: WholeJob, workers: list[Process]
) -> AsyncIterator[list[Process]]:
    job.simulator.release()
    await until(job.project.database, "select count(*) from work where available_at > 0", RETRIED)
    yield workers


AtWork = Callable[[WholeJob, list[Process]], AbstractAsyncContextManager[list[Process]]]

# The number of workers with which the quick set runs a cell; 0: `--slow` alone does, as all others.
AT_WORK: dict[AtWork, tuple[int, ...]] = {
    #                          KILL TERM INT TWICE SUSPEND
    waiting_for_the_model:      (0,   1,   0,   0,   0),
    answered_but_not_committed: (2,   0,   0,   0,   0),
    between_commits:            (1,   0,   0,   0,   0),
    waiting_to_try_again:       (0,   0,   0,   0,   0),
}  # fmt: skip


# --- one command: the moments -------------------------------------------------------------------
# What is yielded is a process that cannot go on. On leaving it can again; then it has ended, and
# what must be true before anything else is done is checked.


async def has_ended(process: Process, end: End) -> None:
    send(process, SIGCONT)
    codes = {End.KILL: {-9}, End.TERM: {-15}, End.INT: {130}, End.SUSPEND: {0}}
    over = await ended(process)
    # By -2 it tells of one more, that came when Python was about to exit with 130.
    assert over.code in codes.get(end, {130, -2}), over.err
    assert "Traceback" not in over.err


@asynccontextmanager
async def stuck(
    job: WholeJob, end: End, *command: str, table: str | None = None
) -> AsyncIterator[Process]:
    """A command that has to write and cannot, as a stranger has the write lock; on a server, of
    this table, if one is named."""
    stranger = Stranger(job.project.database, table)
    process = await job.project.start(*command)
    await at_the_write_lock(job.project.database, [process.pid])
    yield process
    stranger.let_go()
    await has_ended(process, end)


async def pinned(job: WholeJob, there: Callable[[], bool], *command: str) -> Process | None:
    """A command that is suspended while something is there that is there for a moment only; None
    when it was too fast."""
    process = await job.project.start(*command, fresh=True)
    while process.returncode is None and not there():
        await asyncio.sleep(0)
    send(process, SIGSTOP)
    with suppress(ChildProcessError):
        await asyncio.to_thread(wait_until_suspended, process.pid)
        if there():
            return process
    send(process, SIGCONT)
    await process.wait()
    return None


def wait_until_suspended(pid: int) -> None:
    """Of a fresh process: only its parent hears of it."""
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


@asynccontextmanager
async def enqueue_between_two_chunks(job: WholeJob, end: End) -> AsyncIterator[Process]:
    """The pool comes by a pipe, so that the process is where the test wants it."""
    job.big = True
    lines = job.project.pool(pool(big=True)).read_bytes()
    process = await job.project.start("enqueue", "-", stdin=b"")
    assert process.stdin is not None
    process.stdin.write(lines[:-10])
    await process.stdin.drain()
    await until(job.project.database, "select count(*) from items", 17)
    yield process
    if end is End.SUSPEND:
        process.stdin.write(lines[-10:])
    process.stdin.close()  # Ctrl-C in a terminal ends whoever writes into the pipe, too
    await has_ended(process, end)
    [(kept,)] = job.project.query("select count(*) from items")
    assert kept == (ITEMS if end is End.SUSPEND else 17)


@asynccontextmanager
async def enqueue_while_it_writes(job: WholeJob, end: End) -> AsyncIterator[Process]:
    job.project.pool([], "empty.jsonl")
    await job.type("enqueue", "empty.jsonl")  # makes the tables
    job.project.pool(pool())
    async with stuck(job, end, "enqueue", "pool.jsonl") as process:
        yield process
    assert job.project.query("select count(*) from items") in ([(0,)], [(ITEMS,)])


@asynccontextmanager
async def first_command_before_it_makes_its_tables(
    job: WholeJob, end: End
) -> AsyncIterator[Process]:
    job.project.pool(pool())
    job.project.file.touch()
    async with stuck(job, end, "enqueue", "pool.jsonl") as process:
        yield process
    assert job.project.query("pragma user_version") in ([(0,)], [(len(migrations()),)])


@asynccontextmanager
async def first_command_while_it_makes_its_tables(
    job: WholeJob, end: End
) -> AsyncIterator[Process]:
    job.project.pool(pool())
    journal = Path(f"{job.project.database}-journal")
    while (process := await pinned(job, journal.exists, "enqueue", "pool.jsonl")) is None:
        job.project.file.unlink()
    yield process
    await has_ended(process, end)


@asynccontextmanager
async def retry_while_it_writes(job: WholeJob, end: End) -> AsyncIterator[Process]:
    await job.run_but_for_some_that_are_refused()
    async with stuck(job, end, "retry") as process:
        yield process
    failed = job.project.query("select count(*) from work where state = 'failed'")
    assert failed in ([(REFUSED,)], [(0,)])
    await job.type("retry")


@asynccontextmanager
async def export_while_it_writes(job: WholeJob, end: End) -> AsyncIterator[Process]:
    """The items are big, so that there is a file to see before it is whole."""
    job.big = True
    await job.enqueue()
    await job.again()
    output = job.project.path / "output"
    before = (output / "default.jsonl").read_bytes()
    while (process := await pinned(job, lambda: any(output.glob(".*.part")), "export")) is None:
        pass
    yield process
    assert (output / "default.jsonl").read_bytes() == before
    await has_ended(process, end)
    assert (output / "default.jsonl").read_bytes() == before


@asynccontextmanager
async def export_before_it_is_recorded(job: WholeJob, end: End) -> AsyncIterator[Process]:
    """The new file is there, and the record of it is not."""
    await job.run_but_for_some_that_are_refused()
    before = len(exported(job.project))
    await job.type("retry")
    assert (await job.type("work")).code == 0
    async with stuck(job, end, "export", table="exports") as process:
        yield process
    assert (before, len(exported(job.project))) == (ITEMS - REFUSED, ITEMS)


OneCommand = Callable[[WholeJob, End], AbstractAsyncContextManager[Process]]

# 1: the quick set runs it too.
ONE_COMMAND: dict[OneCommand, tuple[int, ...]] = {
    #                                        KILL TERM INT TWICE SUSPEND
    enqueue_between_two_chunks:               (0,   0,   0,   0,   0),
    enqueue_while_it_writes:                  (1,   0,   0,   0,   0),
    first_command_before_it_makes_its_tables: (0,   0,   0,   0,   0),
    first_command_while_it_makes_its_tables:  (0,   0,   0,   0,   0),
    retry_while_it_writes:                    (1,   0,   0,   0,   0),
    export_while_it_writes:                   (0,   0,   0,   0,   0),
    export_before_it_is_recorded:             (1,   0,   0,   0,   0),
}  # fmt: skip


SEEN_FROM_FILES = (
    first_command_before_it_makes_its_tables, first_command_while_it_makes_its_tables,
)  # fmt: skip


# --- the cells ----------------------------------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "at_work" in metafunc.fixturenames:
        cells = [
            pytest.param(
                moment,
                end,
                n,
                id=f"{moment.__name__}-{end.value}-{n}",
                marks=[
                    *([] if n == in_fast else [pytest.mark.slow]),
                    *([] if n == ON_SERVER else [OF_SQLITE]),
                ],
            )
            for moment, row in AT_WORK.items()
            for end, in_fast in zip(End, row, strict=True)
            for n in MANY
        ]
        metafunc.parametrize(("at_work", "end", "n"), cells)
    if "one_command" in metafunc.fixturenames:
        cells = [
            pytest.param(
                moment,
                end,
                id=f"{moment.__name__}-{end.value}",
                marks=[
                    *([] if in_fast else [pytest.mark.slow]),
                    *([OF_SQLITE] if moment in SEEN_FROM_FILES else []),
                ],
            )
            for moment, row in ONE_COMMAND.items()
            for end, in_fast in zip(End, row, strict=True)
        ]
        metafunc.parametrize(("one_command", "end"), cells)


async def test_workers_that_are_ended_lose_nothing(
    job: WholeJob, calm: list[Line], at_work: AtWork, end: End, n: int
) -> None:
    """With several workers the last one is left alone, and takes over from the others."""
    if end is End.SUSPEND:
        job.project.config(f"work: {{lease_s: {LEASE_S}}}\n")
    await job.enqueue()
    if at_work is waiting_to_try_again:
        soon = Behaviour.error(500, headers={"retry-after-ms": "1500"})
        for number in range(RETRIED):
            job.simulator.script(f"Say w{number:02}", soon)
        job.failed_calls = RETRIED
    job.simulator.hold()
    workers = [await job.worker() for _ in range(n)]
    await job.simulator.received(SLOTS * n)
    async with at_work(job, workers) as in_order:
        victims = in_order[: n - 1] or in_order
        others = [worker for worker in workers if worker not in victims]
        await end_workers(job, victims, end, at_work)
        if end is End.SUSPEND and not others:
            others = [await job.worker()]
    if end is End.SUSPEND:
        await wake(job, victims, others, at_work)
    stopped = {End.KILL: -9, End.TERM: 143, End.INT: 130, End.TWICE: 130, End.SUSPEND: 0}
    codes = [await victim.wait() for victim in victims]
    also = {0} if at_work is between_commits else set()
    # By -2 it tells of one that came when Python was about to exit with 130.
    also |= {-2} if end is End.TWICE else set()
    assert set(codes) <= {stopped[end], *also}
    assert [await other.wait() for other in others] == [0] * len(others)
    await job.again()
    repeated = 0 if end in (End.TERM, End.INT) else SLOTS * len(victims)
    await job.assert_whole(calm, repeated)
    if at_work is waiting_for_the_model:
        assert job.simulator.calls == ITEMS + repeated


async def end_workers(job: WholeJob, victims: list[Process], end: End, at_work: AtWork) -> None:
    """Until they are gone or suspended past their leases; or have been told to drain."""
    first = {End.KILL: SIGKILL, End.TERM: SIGTERM, End.SUSPEND: SIGSTOP}.get(end, SIGINT)
    for victim in victims:
        send(victim, first)
    if end is End.TWICE:
        for victim in victims:
            await said(victim, "stopping: ")
            send(victim, SIGINT)
    # What is being written is written, whatever comes.
    at_once = end is End.TWICE and at_work is not answered_but_not_committed
    if end is End.KILL or at_once:
        for victim in victims:
            await victim.wait()
    if end is End.SUSPEND:
        await leases_are_over(job, victims)


async def leases_are_over(job: WholeJob, workers: list[Process]) -> None:
    now = "cast((julianday('now') - 2440587.5) * 86400000 as integer)"
    if job.project.server is not None:
        now = "extract(epoch from clock_timestamp()) * 1000"
    pids = ", ".join(str(worker.pid) for worker in workers)
    await until(
        job.project.database,
        f"select count(*) = 0 from workers where pid in ({pids}) and lease_until >= {now}",
    )


async def wake(
    job: WholeJob, victims: list[Process], others: list[Process], at_work: AtWork
) -> None:
    """When the others have done all; but one that was suspended while it wrote holds them up."""
    if not await gate_is_stuck(job.project.database):
        assert [await other.wait() for other in others] == [0] * len(others)
    for victim in victims:
        send(victim, SIGCONT)
    if at_work is waiting_for_the_model:
        for victim in victims:
            assert "taken for dead" in (await ended(victim)).err
        # A late answer was paid for, so it is kept, though another one counted.
        answered = job.project.query("select count(*) from attempts where outcome = 'answered'")
        assert answered == [(ITEMS + SLOTS * len(victims),)]


async def test_a_command_that_is_ended_loses_nothing(
    job: WholeJob, calm: list[Line], one_command: OneCommand, end: End
) -> None:
    """What it had to do is done or not, and never by halves."""
    async with one_command(job, end) as process:
        match end:
            case End.KILL | End.TERM:
                send(process, SIGKILL if end is End.KILL else SIGTERM)
                send(process, SIGCONT)
                await process.wait()
            case End.INT:
                send(process, SIGINT)
            case End.TWICE:
                await interrupt_until_it_ends(process)
            case End.SUSPEND:
                send(process, SIGSTOP)
    await job.again()
    await job.assert_whole(calm)


async def interrupt_until_it_ends(process: Process) -> None:
    """Two that come too close are one to the process, so there may have to be more."""
    async with asyncio.timeout(5):  # less than the retries of a locked file
        while process.returncode is None:
            send(process, SIGINT)
            send(process, SIGCONT)
            await asyncio.sleep(0.05)


@pytest.mark.on_both_engines
@pytest.mark.slow
@pytest.mark.parametrize("then", [SIGCONT, SIGKILL])
async def test_a_worker_that_is_suspended_while_it_writes_holds_the_others_up_and_no_more(
    job: WholeJob, calm: list[Line], then: Any
) -> None:
    """For less than its lease."""
    await job.enqueue()
    job.simulator.hold()
    workers = [await job.worker() for _ in range(2)]
    await job.simulator.received(SLOTS * 2)
    async with answered_but_not_committed(job, workers) as (sleeper, other):
        send(sleeper, SIGSTOP)
    send(sleeper, then)
    assert await other.wait() == 0
    assert await sleeper.wait() in (0, -9)
    await job.again()
    await job.assert_whole(calm, calls_repeated=SLOTS if then is SIGKILL else 0)


# The sleeper, in the heartbeat that it wakes up in, finds that the leases of all have run out.
@pytest.mark.slow
@pytest.mark.only_sqlite("writers of a server do not take turns")
async def test_workers_that_were_held_up_past_their_leases_are_not_taken_for_dead(
    job: WholeJob,
) -> None:
    """By one of them, which was suspended while it wrote; only what that one had goes out again."""
    job.project.config(f"work: {{lease_s: {LEASE_S}}}\n")
    await job.enqueue()
    job.simulator.hold()
    workers = [await job.worker(fresh=True) for _ in range(3)]
    await job.simulator.received(SLOTS * 3)
    with locked(job.project.database):
        pid = await at_the_write_lock(job.project.database, [worker.pid for worker in workers])
        (sleeper,) = (worker for worker in workers if worker.pid == pid)
        send(sleeper, SIGSTOP)
        await asyncio.to_thread(wait_until_suspended, pid)
    await leases_are_over(job, workers)
    send(sleeper, SIGCONT)
    job.simulator.release()
    assert [await worker.wait() for worker in workers] == [0] * 3
    assert contradictions(job.project, await job.type("verify")) == []
    assert job.simulator.calls <= ITEMS + SLOTS
