"""Several worker processes under one command: `batchgen work --processes P`.

The parent does no work itself. It starts P processes, which are workers like any others: they meet
in the database, where the limits are that they share, the items of one that dies, the orders from
other terminals, and what each of them reports. Between a process and its parent there are only

    stdin     what it is to do, a line of JSON. The end of it says: claim no more, finish what is in
              flight; the parent is stopping, or gone
    SIGUSR1   abandon what is in flight too
    stdout    what came of it, as JSON, when the process ends
    stderr    lines for the user

A Ctrl-C reaches every process of a terminal, so the workers ignore it: their parent alone stops
them. It does not do so by SIGTERM: where one comes to all processes at once (systemd, Slurm), the
parent's would be the second one, which abandons what is in flight.
"""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from msgspec import Struct

from batchgen.config import Config
from batchgen.descriptors import allow_calls
from batchgen.errors import BatchgenError, Remedy, StoreError
from batchgen.jobs.work import WorkResult, result_of
from batchgen.jobs.worker_process import SIGNALS_OF_THE_TERMINAL, TaskResult, WorkerTask
from batchgen.shutdown import Stop, uninterrupted
from batchgen.store import Store
from batchgen.worker.report import WorkerReport
from batchgen.worker.servers import IS_LEFT_OUT
from batchgen.worker.spec import WorkSpec
from batchgen.worker.stats import Halt, HaltKind, Stats

_LOOK_EVERY_S = 0.5
_LONGEST_LINE = 1024 * 1024
_ENDED_BY_SIGTERM = 128 + signal.SIGTERM  # or by `batchgen stop`; what the parent does gives 0 or 3
_ENDED_WELL = {0, 3, 4, _ENDED_BY_SIGTERM}
_IN_THE_TASK = "BATCHGEN_DATABASE"  # which may have a password
_STOPPED_AS_IT_BEGAN = {-signal.SIGTERM, -signal.SIGUSR1}

Say = Callable[[str], None]


async def work_in_processes(
    store: Store, config: Config, specs: Sequence[WorkSpec], command: Sequence[str], *,
    stop: Stop, stats: Stats, say: Say, verbose: bool = False,
) -> WorkResult:  # fmt: skip
    """Run a worker process for each spec, until all have ended, one halts, or `stop`. `command`
    starts a process that calls `work_for_parent`. `stats` tells meanwhile what they report.

    Where nothing is open, none is started. One that dies leaves its items to the others. Raises
    BatchgenError when all have failed, and UsageError when the system does not allow so many calls.
    A caller that is cancelled, however often, drains them first and waits for their end.
    """
    allow_calls(max(spec.concurrency for spec in specs))  # each would fail by itself
    before = await result_of(store, specs[0], stop, stats)
    may_halt = specs[0].max_failures is not None
    if before.is_complete and not (specs[0].wait_for_more or may_halt):
        return before
    processes = WorkerProcesses(
        store, stop, stats, say, shares_items=specs[0].max_items is not None
    )
    await processes.run(command, [WorkerTask.of(spec, config, verbose=verbose) for spec in specs])
    return await result_of(store, specs[0], stop, stats)


class _Child(Struct):
    """A worker process, and what is known of its work."""

    process: asyncio.subprocess.Process
    calls: int = 0
    in_flight: int = 0
    halted: Halt | None = None
    vanished: bool = False  # it ended as if all were well, without a word of what came of its work

    def drain(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()

    def leave(self) -> None:
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGUSR1)


class WorkerProcesses:
    def __init__(
        self, store: Store, stop: Stop, stats: Stats, say: Say, *, shares_items: bool
    ) -> None:
        self._store = store
        self._stop = stop
        self._stats = stats
        self._say = say
        self._shares_items = shares_items
        self._children: list[_Child] = []
        self._warned: dict[str, _Child] = {}

    async def run(self, command: Sequence[str], tasks: Sequence[WorkerTask]) -> None:
        """Until all have ended. Raises BatchgenError when none of them ended well."""
        try:
            for task in tasks:
                self._children.append(_Child(await _start(command, task)))
            await self._follow_all()
        finally:
            await uninterrupted(self._end())
        said = [child for child in self._children if not child.vanished]
        codes = {child.process.returncode or 0 for child in said}
        ended_well = codes & self._good_codes()
        if ended_well == {_ENDED_BY_SIGTERM}:
            self._stop.signum = self._stop.signum or signal.SIGTERM
            self._stop.drain.set()
        if not ended_well:
            raise BatchgenError(
                f"all {len(self._children)} worker processes failed; the lines above say why. "
                "Nothing that was answered is lost. Mend what they name.",
                Remedy.RUN_AGAIN,
            )

    async def _follow_all(self) -> None:
        """Until all have ended. An error in any of these tasks, which would be a bug, ends it."""
        async with asyncio.TaskGroup() as group:
            for child in self._children:
                group.create_task(self._pass_on_lines(child))
            watches = [
                group.create_task(self._pass_on_stop()),
                group.create_task(self._read_reports()),
            ]
            await asyncio.wait([group.create_task(self._follow(one)) for one in self._children])
            for watch in watches:
                watch.cancel()

    def _good_codes(self) -> set[int]:
        return _ENDED_WELL | (_STOPPED_AS_IT_BEGAN if self._stop.drain.is_set() else set())

    async def _pass_on_stop(self) -> None:
        await self._stop.drain.wait()
        self._drain_all()
        await self._stop.now.wait()
        for child in self._children:
            child.leave()

    def _drain_all(self) -> None:
        for child in self._children:
            child.drain()

    async def _read_reports(self) -> None:
        by_pid = {child.process.pid: child for child in self._children}
        while True:
            with suppress(StoreError):  # then the next look tells
                for row in await self._store.workers():
                    child = by_pid.get(row.pid)
                    if child is not None and row.alive:
                        report = WorkerReport.from_json(row.report)
                        child.calls = report.calls
                        child.in_flight = row.calls
                self._add_up()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _follow(self, child: _Child) -> None:
        """Until it has ended."""
        assert child.process.stdout is not None
        result = TaskResult.from_line(await child.process.stdout.read())
        code = await child.process.wait()
        if result is not None:  # else what it reported last is all that is known
            child.calls = result.calls
            child.halted = result.halted
        child.in_flight = 0
        self._add_up()
        child.vanished = result is None and code in _ENDED_WELL
        if child.halted and _holds_for_all(child.halted):
            self._drain_all()
        elif child.halted and any(one.process.returncode is None for one in self._children):
            who, why = f"worker process {child.process.pid}", child.halted.why
            self._say(f"warning: {who} has ended: {why.rstrip('.')}; {self._who_goes_on()}")
        elif (child.vanished or code not in _ENDED_WELL) and not self._stop.drain.is_set():
            how = f"was killed (signal {-code})" if code < 0 else f"failed (exit code {code})"
            self._say(f"warning: worker process {child.process.pid} {how}; {self._who_goes_on()}")

    def _who_goes_on(self) -> str:
        if self._shares_items:
            return "the rest of its share of the items is left; run it again for that many"
        return "the others do its items"

    async def _pass_on_lines(self, child: _Child) -> None:
        """What it says on stderr, whole lines; what several processes complain of is said once."""
        assert child.process.stderr is not None
        begun = b""
        while read := await child.process.stderr.read(_LONGEST_LINE):
            *lines, begun = (begun + read).split(b"\n")
            for line in lines:
                self._say_once(child, line.decode(errors="replace"))
        if begun:
            self._say_once(child, begun.decode(errors="replace"))

    def _say_once(self, child: _Child, line: str) -> None:
        complains = line.startswith(("warning: ", "error: "))
        what, is_left_out, _ = line.partition(IS_LEFT_OUT)
        complaint = what + is_left_out  # how many items failed there differs between processes
        if not complains or self._warned.setdefault(complaint, child) is child:
            self._say(line)

    def _add_up(self) -> None:
        self._stats.calls = sum(child.calls for child in self._children)
        self._stats.in_flight = sum(child.in_flight for child in self._children)
        halts = [one.halted for one in self._children if one.halted]
        are_all = len(halts) == len(self._children)
        self._stats.halted = next((one for one in halts if are_all or _holds_for_all(one)), None)

    async def _end(self) -> None:
        """Whatever happened here, no process is left."""
        self._drain_all()
        for child in self._children:
            await child.process.communicate()


def _holds_for_all(halt: Halt) -> bool:
    """Where a server takes few calls at once, one worker may be served nothing beside others that
    are."""
    return halt.kind is not HaltKind.SHUT_OUT


async def _start(command: Sequence[str], task: WorkerTask) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    env = {name: value for name, value in os.environ.items() if name != _IN_THE_TASK}
    with _signals_of_the_terminal_blocked():  # the process unblocks them when it ignores them
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=pipe, limit=_LONGEST_LINE, env=env
        )
    assert process.stdin is not None
    process.stdin.write(json.dumps(task.to_json()).encode() + b"\n")
    return process


@contextmanager
def _signals_of_the_terminal_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS_OF_THE_TERMINAL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
