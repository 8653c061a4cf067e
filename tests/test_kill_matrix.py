"""Every way to end a process, at every moment that differs: then the same command again, and what
must be true after any end is true.

    every item is there once and in one state; the export is that of a calm run; no call but those
    in flight was made twice, and each is on record; the file and the tables are sound; nobody is
    left running
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGCONT, SIGINT, SIGKILL, SIGSTOP, SIGTERM
from typing import Any

import pytest
import pytest_asyncio

from batchgen.simulate import Behaviour, Simulator
from tests.cli_kit import Typist
from tests.conftest import Project, ended
from tests.crash_kit import (
    Stranger,
    at_the_write_lock,
    contradictions,
    exported,
    locked,
    until,
)
from tests.test_stop import said

ITEMS = 24
SLOTS = 3
Process = asyncio.subprocess.Process
Line = dict[str, Any]

KILL, TERM, INT, TWICE = (SIGKILL,), (SIGTERM,), (SIGINT,), (SIGINT, SIGINT)
STOPPED_BY = {KILL: {-9}, TERM: {143, -15}, INT: {130}, TWICE: {130}}


def pool(items: int = ITEMS) -> list[dict[str, str]]:
    return [{"word": f"w{number:02}"} for number in range(items)]


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
class Job:
    """A pool that is to be answered, whatever happens. What is typed runs in this process."""

    project: Project
    simulator: Simulator
    type: Typist
    items: int = ITEMS

    async def enqueue(self, items: int = ITEMS) -> None:
        self.items = items
        self.project.pool(pool(items))
        assert (await self.type("enqueue", "pool.jsonl")).code == 0

    async def workers(self, n: int, *options: str) -> list[Process]:
        return [
            await self.project.start("-q", "work", "-c", str(SLOTS), *options) for _ in range(n)
        ]

    async def again(self) -> None:
        """The rest of the job, by the command that one would type."""
        rest = await self.type("run", "pool.jsonl", "-c", str(SLOTS))
        assert rest.code == 0, rest.err

    async def assert_whole(self, calls_repeated: int) -> None:
        """`calls_repeated`: at most so many calls were in flight at the ends."""
        assert contradictions(self.project, await self.type("verify")) == []
        assert self.project.query("select state, count(*) from work group by 1") == [
            ("done", self.items)
        ]
        assert self.simulator.calls <= self.items + calls_repeated
        [(on_record,)] = self.project.query("select count(*) from attempts")
        assert on_record >= self.simulator.calls


@pytest.fixture
def job(
    project: Project,
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Job:
    return Job(project, simulator, Typist(project.path, monkeypatch, capsys))


# --- at work ----------------------------------------------------------------------------------


async def end_workers(victims: list[Process], signals: Sequence[signal.Signals]) -> None:
    """Signal them, the second time when they said that they heard the first."""
    for victim in victims:
        victim.send_signal(signals[0])
    for signum in signals[1:]:
        for victim in victims:
            await said(victim, "stopping: ")
            victim.send_signal(signum)


@asynccontextmanager
async def waiting_for_the_model(job: Job, workers: list[Process]) -> AsyncIterator[list[Process]]:
    await job.simulator.received(SLOTS * len(workers))
    yield workers
    job.simulator.release()


@asynccontextmanager
async def answered_but_not_committed(
    job: Job, workers: list[Process]
) -> AsyncIterator[list[Process]]:
    """The one that waits for the write lock with its answers comes first."""
    await job.simulator.received(SLOTS * len(workers))
    with locked(job.project.database):
        job.simulator.release()
        pid = await at_the_write_lock(job.project.database, [each.pid for each in workers])
        yield sorted(workers, key=lambda each: each.pid != pid)


@asynccontextmanager
async def in_full_flow(job: Job, workers: list[Process]) -> AsyncIterator[list[Process]]:
    job.simulator.release()
    await job.simulator.received(ITEMS // 2)
    yield workers


@asynccontextmanager
async def waiting_to_try_again(job: Job, workers: list[Process]) -> AsyncIterator[list[Process]]:
    job.simulator.release()
    await until(job.project.database, "select count(*) from work where available_at > 0", 5)
    yield workers


Moment = Callable[[Job, list[Process]], Any]

AT_WORK: list[tuple[Moment, tuple[signal.Signals, ...], int]] = [
    (waiting_for_the_model, KILL, 1),
    (waiting_for_the_model, TWICE, 2),
    (answered_but_not_committed, KILL, 1),
    (answered_but_not_committed, KILL, 4),
    (answered_but_not_committed, TERM, 1),
    (answered_but_not_committed, INT, 2),
    (in_full_flow, KILL, 1),
    (in_full_flow, TERM, 2),
    (waiting_to_try_again, KILL, 1),
]


def name_of(cell: tuple[Moment, tuple[signal.Signals, ...], int]) -> str:
    moment, signals, workers = cell
    return f"{moment.__name__}-{'-'.join(each.name for each in signals)}-{workers}"


@pytest.mark.parametrize("cell", AT_WORK, ids=name_of)
async def test_workers_that_are_ended_lose_nothing(
    job: Job,
    calm: list[Line],
    cell: tuple[Moment, tuple[signal.Signals, ...], int],
) -> None:
    """With several workers the last one is left alone, and takes over from the others."""
    moment, signals, n = cell
    await job.enqueue()
    if moment is waiting_to_try_again:
        soon = Behaviour.error(500, headers={"retry-after-ms": "1500"})
        for number in range(6):
            job.simulator.script(f"Say w{number:02}", soon)
    job.simulator.hold()
    workers = await job.workers(n)
    async with moment(job, workers) as in_order:
        victims = in_order[: n - 1] or in_order
        await end_workers(victims, signals)
        if signals in (KILL, TWICE):
            codes = [await victim.wait() for victim in victims]
    if signals not in (KILL, TWICE):
        codes = [await victim.wait() for victim in victims]
    assert set(codes) <= STOPPED_BY[signals] | {0}
    assert [await worker.wait() for worker in workers if worker not in victims] == [0] * (
        n - len(victims)
    )
    await job.again()
    repeated = len(victims) * SLOTS if signals in (KILL, TWICE) else 0
    retried = 6 if moment is waiting_to_try_again else 0
    await job.assert_whole(repeated + retried)
    if not retried:
        assert exported(job.project) == calm


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_worker_that_is_suspended_past_its_lease_repeats_only_what_it_had(
    job: Job, calm: list[Line], workers: int
) -> None:
    """With one the next run takes over; with two the other one. Then it wakes up."""
    job.project.config("work: {lease_s: 0.5}\n")
    await job.enqueue()
    job.simulator.hold()
    sleeper, *others = await job.workers(workers)
    await job.simulator.received(SLOTS * workers)
    sleeper.send_signal(SIGSTOP)
    job.simulator.release()
    if not others:
        others = await job.workers(1)
    assert [await other.wait() for other in others] == [0] * len(others)
    sleeper.send_signal(SIGCONT)
    woken = await ended(sleeper)
    assert (woken.code, "taken for dead" in woken.err) == (0, True), woken.err
    await job.again()
    await job.assert_whole(calls_repeated=SLOTS)
    assert exported(job.project) == calm
    # A late answer was paid for, so it is kept, though another one counted.
    assert job.project.query("select count(*) from attempts where outcome = 'answered'") == [
        (ITEMS + SLOTS,)
    ]


@pytest.mark.parametrize("then", [SIGCONT, SIGKILL])
async def test_a_worker_that_is_suspended_while_it_writes_holds_the_others_up_and_no_more(
    job: Job, calm: list[Line], then: signal.Signals
) -> None:
    await job.enqueue()
    job.simulator.hold()
    sleeper, other = await job.workers(2)
    await job.simulator.received(SLOTS * 2)
    with locked(job.project.database):
        job.simulator.release()
        pid = await at_the_write_lock(job.project.database, [sleeper.pid, other.pid])
        if pid != sleeper.pid:
            sleeper, other = other, sleeper
        sleeper.send_signal(SIGSTOP)
    sleeper.send_signal(then)
    assert await other.wait() == 0
    assert await sleeper.wait() in (0, -9)
    await job.again()
    await job.assert_whole(calls_repeated=SLOTS if then is SIGKILL else 0)
    assert exported(job.project) == calm


# --- before and after work --------------------------------------------------------------------


@pytest.mark.parametrize("signals", [KILL, TERM, INT], ids=["SIGKILL", "SIGTERM", "SIGINT"])
async def test_an_enqueue_ended_between_two_chunks_keeps_the_first(
    job: Job, signals: Sequence[signal.Signals]
) -> None:
    """The pool comes by a pipe, so that the process is where the test wants it."""
    lines = job.project.pool(pool(12_000)).read_bytes()
    process = await job.project.start("enqueue", "-", stdin=b"")
    assert process.stdin is not None
    process.stdin.write(lines[: len(lines) - 100])
    await process.stdin.drain()
    await until(job.project.database, "select count(*) from items", 10_000)
    process.send_signal(signals[0])
    process.stdin.close()  # Ctrl-C in a terminal ends whoever writes into the pipe, too
    stopped = await ended(process)
    assert stopped.code in STOPPED_BY[tuple(signals)], stopped.err
    assert job.project.query("select count(*), max(id) from items") == [(10_000, 10_000)]
    assert (await job.type("enqueue", "pool.jsonl")).code == 0
    assert job.project.query("select count(*), max(id) from items") == [(12_000, 12_000)]
    assert contradictions(job.project, await job.type("verify")) == []


async def stuck(job: Job, *command: str) -> tuple[Process, Stranger]:
    """A command that has to write and cannot."""
    stranger = Stranger(job.project.database)
    process = await job.project.start(*command)
    await at_the_write_lock(job.project.database, [process.pid])
    return process, stranger


async def end_stuck(
    process: Process, stranger: Stranger, signals: Sequence[signal.Signals]
) -> None:
    process.send_signal(signals[0])
    if signals != INT:
        await process.wait()
    stranger.let_go()
    assert (await ended(process)).code in STOPPED_BY[tuple(signals)]


ONCE = pytest.mark.parametrize("signals", [KILL, INT], ids=["SIGKILL", "SIGINT"])


@ONCE
async def test_an_enqueue_ended_while_it_writes_is_whole_or_not_there(
    job: Job, calm: list[Line], signals: Sequence[signal.Signals]
) -> None:
    job.project.pool([], "empty.jsonl")
    await job.type("enqueue", "empty.jsonl")  # makes the tables
    job.project.pool(pool())
    process, stranger = await stuck(job, "enqueue", "pool.jsonl")
    await end_stuck(process, stranger, signals)
    await job.again()
    await job.assert_whole(calls_repeated=0)
    assert exported(job.project) == calm


@ONCE
async def test_a_retry_ended_while_it_writes_is_whole_or_not_there(
    job: Job, calm: list[Line], signals: Sequence[signal.Signals]
) -> None:
    for number in range(5):
        job.simulator.script(f"Say w{number:02}", Behaviour.error(400))
    await job.enqueue()
    assert (await job.type("work")).code == 3
    process, stranger = await stuck(job, "retry")
    await end_stuck(process, stranger, signals)
    failed = job.project.query("select count(*) from work where state = 'failed'")
    assert failed in ([(5,)], [(0,)])
    await job.type("retry")
    await job.again()
    await job.assert_whole(calls_repeated=5)
    assert [line["response"] for line in exported(job.project)] == [
        line["response"] for line in calm
    ]


@ONCE
async def test_an_export_ended_before_it_is_recorded_leaves_a_whole_file(
    job: Job, calm: list[Line], signals: Sequence[signal.Signals]
) -> None:
    """The new file is there, and the record of it is not."""
    await job.enqueue()
    for number in range(4):
        job.simulator.script(f"Say w{number:02}", Behaviour.error(400))
    assert (await job.type("run", "pool.jsonl")).code == 3
    assert exported(job.project) == calm[4:]
    await job.type("retry")
    assert (await job.type("work")).code == 0
    process, stranger = await stuck(job, "export")
    await end_stuck(process, stranger, signals)
    assert [line["response"] for line in exported(job.project)] == [
        line["response"] for line in calm
    ]
    await job.again()
    await job.assert_whole(calls_repeated=4)


@pytest.mark.parametrize("signals", [KILL, INT], ids=["SIGKILL", "SIGINT"])
async def test_an_export_ended_while_it_writes_leaves_the_old_file(
    job: Job, signals: Sequence[signal.Signals]
) -> None:
    """The items are big, so that there is a file to see before it is whole."""
    job.items = 60
    job.project.pool({"word": f"w{number} {'x' * 200_000}"} for number in range(job.items))
    await job.again()
    output = job.project.path / "output"
    before = (output / "default.jsonl").read_bytes()
    process = await job.project.start("export")
    while not any(output.glob(".*.part")) and process.returncode is None:
        await asyncio.sleep(0)
    process.send_signal(signals[0])
    assert await process.wait() in STOPPED_BY[tuple(signals)] | {0}
    assert (output / "default.jsonl").read_bytes() == before
    await job.again()
    await job.assert_whole(calls_repeated=0)
    assert (output / "default.jsonl").read_bytes() == before


@ONCE
async def test_a_first_command_ended_before_its_tables_are_made_leaves_none_or_all(
    job: Job, calm: list[Line], signals: Sequence[signal.Signals]
) -> None:
    job.project.pool(pool())
    job.project.database.touch()
    process, stranger = await stuck(job, "enqueue", "pool.jsonl")
    await end_stuck(process, stranger, signals)
    await job.again()
    await job.assert_whole(calls_repeated=0)
    assert exported(job.project) == calm


async def test_a_first_command_killed_while_it_makes_its_tables_leaves_none_or_all(
    job: Job, calm: list[Line]
) -> None:
    job.project.pool(pool())
    journal = Path(f"{job.project.database}-journal")
    for _ in range(3):
        process = await job.project.start("enqueue", "pool.jsonl")
        while process.returncode is None and not journal.exists():
            await asyncio.sleep(0)
        if process.returncode is None:
            process.send_signal(SIGKILL)
        await process.wait()
    await job.again()
    await job.assert_whole(calls_repeated=0)
    assert exported(job.project) == calm
