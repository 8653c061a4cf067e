"""Several workers under one command: what they do together, and how it ended.

The command does no work itself. It follows its workers, wherever they are, and ends as they did.
They are workers like any others: they meet in the database, where the limits are that they share,
the items of one that dies, the orders from other terminals, and what each of them reports.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol

from msgspec import Struct

from batchgen.errors import BatchgenError, MovedError, Remedy, StoreError
from batchgen.jobs.work import WorkResult, result_of
from batchgen.jobs.worker_process import TaskResult
from batchgen.shutdown import Stop, once_stopped_now, uninterrupted
from batchgen.store import Store, WorkerRow
from batchgen.worker.report import WorkerReport
from batchgen.worker.servers import IS_LEFT_OUT
from batchgen.worker.spec import WorkSpec
from batchgen.worker.stats import Halt, HaltKind, Stats

_LOOK_EVERY_S = 0.5
ENDED_BY_SIGTERM = 128 + signal.SIGTERM  # or by `batchgen stop`; what the parent does gives 0 or 3
STOPPED_AS_IT_BEGAN = -signal.SIGTERM
_ENDED_WELL = {0, 3, 4, ENDED_BY_SIGTERM}
_ENDED_WELL_WHEN_STOPPED = {STOPPED_AS_IT_BEGAN, -signal.SIGUSR1}

Say = Callable[[str], None]


class Member(Protocol):
    """A worker, as the command that has started it sees it."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def is_over(self) -> bool: ...

    def has_row(self, row: WorkerRow) -> bool:
        """Whether that is its own row of the database."""

    def drain(self) -> None:
        """Let it claim no more and finish what is in flight; it may have ended, or not have begun.
        To be told twice does no harm."""

    def leave(self) -> None:
        """Let it abandon what is in flight, too."""

    def words(self) -> AsyncIterator[bytes]:
        """What it says to the user, as it comes, until it has ended."""

    async def result(self) -> tuple[TaskResult | None, int]:
        """What came of its task when it has ended, and its exit code. None: it died before it could
        tell."""

    async def end(self) -> None:
        """It has been drained: return when nothing is left of it."""


Start = Callable[[], Awaitable[Member]]


class _Followed(Struct):
    """What is known of a member's work. It may have been several workers of the database, one after
    the other: `row` is the last, whose calls are `calls`."""

    member: Member
    row: int | None = None
    earlier_calls: int = 0
    calls: int = 0
    in_flight: int = 0
    halted: Halt | None = None
    code: int = 0
    vanished: bool = False  # it ended as if all were well, without a word of what came of its work


class Crew:
    """`noun` is what its members are. `stats` tells meanwhile what they report."""

    def __init__(self, store: Store, stop: Stop, stats: Stats, say: Say, noun: str) -> None:
        self._store = store
        self._stop = stop
        self._stats = stats
        self._say = say
        self._noun = noun
        self._shares_items = False  # each has a number of its own, which nobody does in its place
        self._crew: list[_Followed] = []
        self._warned: dict[str, _Followed] = {}

    async def work(self, spec: WorkSpec, starts: Sequence[Start]) -> WorkResult:
        """Start them, and follow them until all have ended, one halts, or it is stopped. `spec` is
        what one of them is to do.

        Where nothing is open, none is started. One that dies leaves its items to the others. Raises
        BatchgenError when none of them ended well. A caller that is cancelled, however often,
        drains them first and waits for their end.
        """
        before = await result_of(self._store, spec, self._stop, self._stats)
        may_halt = spec.max_failures is not None
        if before.is_complete and not (spec.wait_for_more or may_halt):
            return before
        self._shares_items = spec.max_items is not None
        async with once_stopped_now(self._stop, self._store.hurry):
            await self._run(starts)
        return await result_of(self._store, spec, self._stop, self._stats)

    async def _run(self, starts: Sequence[Start]) -> None:
        try:
            for start in starts:
                self._crew.append(_Followed(await start()))
            await self._follow_all()
        finally:
            await uninterrupted(self._end())
        codes = {one.code for one in self._crew if not one.vanished}
        ended_well = codes & self._good_codes()
        if ended_well == {ENDED_BY_SIGTERM}:
            self._stop.signum = self._stop.signum or signal.SIGTERM
            self._stop.drain.set()
        if not ended_well:
            if moved := await self._moved():
                raise moved
            raise BatchgenError(
                f"all {len(self._crew)} {self._noun} failed; the lines above say why. "
                "What was written is kept. Mend what they name.",
                Remedy.RUN_AGAIN,
            )

    async def _follow_all(self) -> None:
        """Until all have ended. An error in any of these tasks, which would be a bug, ends it."""
        async with asyncio.TaskGroup() as group:
            for one in self._crew:
                group.create_task(self._pass_on_words(one))
            watches = [
                group.create_task(self._pass_on_stop()),
                group.create_task(self._read_reports()),
            ]
            await asyncio.wait([group.create_task(self._follow(one)) for one in self._crew])
            for watch in watches:
                watch.cancel()

    def _good_codes(self) -> set[int]:
        return _ENDED_WELL | (_ENDED_WELL_WHEN_STOPPED if self._stop.drain.is_set() else set())

    async def _pass_on_stop(self) -> None:
        await self._stop.drain.wait()
        self._drain_all()
        await self._stop.now.wait()
        for one in self._crew:
            one.member.leave()

    def _drain_all(self) -> None:
        for one in self._crew:
            one.member.drain()

    async def _read_reports(self) -> None:
        while True:
            with suppress(StoreError):  # then the next look tells
                for row in await self._store.workers():
                    one = next((one for one in self._crew if one.member.has_row(row)), None)
                    if one is not None and row.alive:
                        _take_report(one, row)
                self._add_up()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _follow(self, one: _Followed) -> None:
        """Until it has ended."""
        result, one.code = await one.member.result()
        if result is not None:  # else what it reported last is all that is known
            one.calls = result.calls
            one.halted = result.halted
        one.in_flight = 0
        self._add_up()
        one.vanished = result is None and one.code in _ENDED_WELL
        if one.halted and _holds_for_all(one.halted):
            self._drain_all()
        elif one.halted and not all(other.member.is_over for other in self._crew):
            why = one.halted.why.rstrip(".")
            self._say(f"warning: {one.member.name} has ended: {why}; {self._who_goes_on()}")
        elif (one.vanished or one.code not in _ENDED_WELL) and not self._stop.drain.is_set():
            if await self._moved():
                return  # none does its items here; the end says so
            code = one.code
            how = f"was killed (signal {-code})" if code < 0 else f"failed (exit code {code})"
            self._say(f"warning: {one.member.name} {how}; {self._who_goes_on()}")

    async def _moved(self) -> MovedError | None:
        """Workers that begin, and have not joined yet, do not stop a move."""
        try:
            return await self._store.moved_error()
        except StoreError:
            return None

    def _who_goes_on(self) -> str:
        if self._shares_items:
            return "the rest of its share of the items is left; run it again for that many"
        return "the others do its work"

    async def _pass_on_words(self, one: _Followed) -> None:
        """What it says, whole lines; what several of them complain of is said once."""
        begun = b""
        async for read in one.member.words():
            *lines, begun = (begun + read).split(b"\n")
            for line in lines:
                self._say_once(one, line.decode(errors="replace"))
        if begun:
            self._say_once(one, begun.decode(errors="replace"))

    def _say_once(self, one: _Followed, line: str) -> None:
        complains = line.startswith(("warning: ", "error: "))
        what, is_left_out, _ = line.partition(IS_LEFT_OUT)
        complaint = what + is_left_out  # how many items failed there differs between them
        if not complains or self._warned.setdefault(complaint, one) is one:
            self._say(line)

    def _add_up(self) -> None:
        self._stats.calls = sum(one.earlier_calls + one.calls for one in self._crew)
        self._stats.in_flight = sum(one.in_flight for one in self._crew)
        halts = [one.halted for one in self._crew if one.halted]
        are_all = len(halts) == len(self._crew)
        self._stats.halted = next((one for one in halts if are_all or _holds_for_all(one)), None)

    async def _end(self) -> None:
        """Whatever happened here, nothing is left of them."""
        self._drain_all()
        for one in self._crew:
            await one.member.end()


def _take_report(one: _Followed, row: WorkerRow) -> None:
    if one.row not in (None, row.id):
        one.earlier_calls += one.calls
    one.row = row.id
    one.calls = WorkerReport.from_json(row.report).calls
    one.in_flight = row.calls


def _holds_for_all(halt: Halt) -> bool:
    """Where a server takes few calls at once, one worker may be served nothing beside others that
    are."""
    return halt.kind is not HaltKind.SHUT_OUT
