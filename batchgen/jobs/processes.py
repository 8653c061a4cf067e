"""Several worker processes under one command: `batchgen work --processes P`.

The parent does no work itself. It starts P processes, which are workers like any others: they meet
in the database, where the limits are that they share, the items of one that dies, the orders from
other terminals, and what each of them reports. Between a process and its parent there are only

    stdin     what it is to do, a line of JSON. The end of it says: claim no more, finish what is in
              flight; the parent is stopping, or gone
    SIGUSR1   leave what is in flight too
    stdout    what came of it, as JSON, when the process ends
    stderr    lines for the user

A Ctrl-C reaches every process of a terminal, so the workers ignore it: their parent alone stops
them. It does not do so by SIGTERM: where one comes to all processes at once (systemd, Slurm), the
parent's would be the second one, which leaves what is in flight.
"""

import asyncio
import json
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batchgen.config import Config, ModelConfig
from batchgen.errors import BatchgenError, Remedy, StoreError
from batchgen.jobs.work import WorkResult, result_of, work_with_log
from batchgen.llm.client import check_settings
from batchgen.shutdown import Stop
from batchgen.store import Store, open_store
from batchgen.worker import Halt, Stats, WorkSpec
from batchgen.worker.report import WorkerReport

_LOOK_EVERY_S = 0.5
_LONGEST_LINE = 1024 * 1024
_WRITABLE = 4096  # PIPE_BUF: what a pipe that can be written to takes whole
_ENDED_BY_SIGTERM = 128 + signal.SIGTERM  # or by `batchgen stop`; what the parent does gives 0 or 3
_ENDED_WELL = {0, 3, 4, _ENDED_BY_SIGTERM}
_STOPPED_AS_IT_BEGAN = {-signal.SIGTERM, -signal.SIGUSR1}
_SIGNALS_OF_THE_TERMINAL = (signal.SIGINT, signal.SIGHUP)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class WorkerTask:
    """What a worker process is to do. `verbose`: it tells of every failed attempt."""

    spec: WorkSpec
    config: Config
    verbose: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values. The API key stands beside the config, and is for a private pipe alone."""
        config = self.config
        return {
            "spec": self.spec.to_json(),
            "config": {
                "model": config.model.to_json(),
                "database": str(config.database),
                "log_dir": str(config.log_dir),
            },
            "api_key": config.model.api_key,
            "verbose": self.verbose,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "WorkerTask":
        """The task, its config being as far as a worker needs one."""
        spec, config = WorkSpec.from_json(values["spec"]), values["config"]
        return cls(
            spec,
            Config(
                model=ModelConfig.from_json(config["model"], values["api_key"]),
                database=Path(config["database"]),
                log_dir=Path(config["log_dir"]),
                directory=spec.directory,
            ),
            values["verbose"],
        )


def shares(total: int, parts: int) -> list[int]:
    """`total` in so many parts, as even as can be."""
    return [total // parts + (number < total % parts) for number in range(parts)]


def split(spec: WorkSpec, processes: int) -> list[WorkSpec]:
    """What each of them is to do: a share of the slots and, if they are limited, of the items."""
    slots = shares(spec.slots, processes)
    if spec.max_items is None:
        return [replace(spec, slots=share) for share in slots]
    items = shares(spec.max_items, processes)
    return [replace(spec, slots=s, max_items=i) for s, i in zip(slots, items, strict=True)]


async def work_in_processes(
    store: Store, config: Config, specs: Sequence[WorkSpec], *, stop: Stop, stats: Stats, say: Say,
    verbose: bool = False,
) -> WorkResult:  # fmt: skip
    """Run a worker process for each spec, until all have ended, one halts, or `stop`. `stats` tells
    meanwhile what the processes report.

    One that dies leaves its items to the others. Raises BatchgenError when all have failed. Who is
    cancelled has drained them first.
    """
    check_settings(config.model)
    processes = WorkerProcesses(
        store, stop, stats, say, shares_items=specs[0].max_items is not None
    )
    await processes.run([WorkerTask(spec, config, verbose) for spec in specs])
    return await result_of(store, specs[0], stop, stats)


@dataclass(slots=True)
class _Child:
    """A worker process, and what is known of its work."""

    process: asyncio.subprocess.Process
    calls: int = 0
    in_flight: int = 0
    halted: Halt | None = None

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

    async def run(self, tasks: Sequence[WorkerTask]) -> None:
        """Until all have ended. Raises BatchgenError when none of them ended well."""
        try:
            for task in tasks:
                self._children.append(_Child(await _start(task)))
            beside = [
                asyncio.create_task(self._pass_on_stop(), name="pass on stop"),
                asyncio.create_task(self._read_reports(), name="read the workers' reports"),
            ]
            try:
                async with asyncio.TaskGroup() as group:
                    for child in self._children:
                        group.create_task(self._follow(child))
                        group.create_task(self._pass_on_lines(child))
            finally:
                for task_beside in beside:
                    task_beside.cancel()
                await asyncio.wait(beside)
        finally:
            await self._end()
        codes = {child.process.returncode or 0 for child in self._children}
        ended_well = codes & self._good_codes()
        if ended_well == {_ENDED_BY_SIGTERM}:
            self._stop.signum = self._stop.signum or signal.SIGTERM
            self._stop.drain.set()
        if not ended_well:
            raise BatchgenError(
                f"all {len(self._children)} worker processes failed; the lines above say why. "
                "Nothing that was answered is lost.",
                Remedy.RUN_AGAIN,
            )

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
        result = await child.process.stdout.read()
        code = await child.process.wait()
        if result.endswith(b"\n"):  # else what it reported last is all that is known
            found = json.loads(result)
            child.calls = found["calls"]
            child.halted = found["halted"] and Halt.from_json(found["halted"])
        child.in_flight = 0
        self._add_up()
        if child.halted:  # the reason holds for all
            self._drain_all()
        elif code not in _ENDED_WELL and not self._stop.drain.is_set():
            how = f"was killed (signal {-code})" if code < 0 else f"failed (exit code {code})"
            self._say(f"warning: worker process {child.process.pid} {how}; {self._who_goes_on()}")

    def _who_goes_on(self) -> str:
        if self._shares_items:
            return "what is missing of its share of the items is left: run it again, with so many"
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
        if not complains or self._warned.setdefault(line, child) is child:
            self._say(line)

    def _add_up(self) -> None:
        self._stats.calls = sum(child.calls for child in self._children)
        self._stats.in_flight = sum(child.in_flight for child in self._children)
        self._stats.halted = next((one.halted for one in self._children if one.halted), None)

    async def _end(self) -> None:
        """Whatever happened here, no process is left."""
        self._drain_all()
        for child in self._children:
            await child.process.communicate()


async def _start(task: WorkerTask) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    with _signals_of_the_terminal_blocked():  # the process unblocks them when it ignores them
        process = await asyncio.create_subprocess_exec(
            # -P: a file of the user's beside the config is no module of ours.
            sys.executable, "-P", "-m", "batchgen.cli.worker_process",
            stdin=pipe, stdout=pipe, stderr=pipe, limit=_LONGEST_LINE,
        )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(json.dumps(task.to_json()).encode() + b"\n")
    return process


@contextmanager
def _signals_of_the_terminal_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS_OF_THE_TERMINAL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _on_signal(signum: signal.Signals, act: Callable[[], None]) -> None:
    """Like the loop's `add_signal_handler`, but it stays when the loop is closed: a signal that
    comes as the process ends must not make another end of it."""
    loop = asyncio.get_running_loop()

    def handle(*_: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(act)

    signal.signal(signum, handle)


class Parent:
    """In a worker process: what there is between it and its parent.

    Made before any code of the user's is loaded: from then on stdin is empty and stdout is stderr,
    so that a parser which prints or reads does not get in between.
    """

    def __init__(self) -> None:
        for signum in _SIGNALS_OF_THE_TERMINAL:
            signal.signal(signum, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS_OF_THE_TERMINAL)
        self._stdin = os.fdopen(os.dup(0), "rb", buffering=0)
        self._stdout = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)

    def task(self) -> WorkerTask | None:
        """What it gives to do; None: it is gone."""
        line = self._stdin.readline()
        return WorkerTask.from_json(json.loads(line)) if line.endswith(b"\n") else None

    @contextmanager
    def obeyed(self, stop: Stop) -> Iterator[None]:
        """While inside, `stop` follows what it says, and SIGTERM as anywhere: drain, then now."""
        loop = asyncio.get_running_loop()

        def drain() -> None:  # nothing more comes on stdin but its end
            loop.remove_reader(self._stdin)
            stop.drain.set()

        def leave() -> None:
            stop.drain.set()
            stop.now.set()

        def terminate() -> None:  # the parent's word does not make it the second one
            if stop.signum is not None:
                stop.now.set()
            stop.signum = signal.SIGTERM
            stop.drain.set()

        loop.add_reader(self._stdin, drain)
        _on_signal(signal.SIGUSR1, leave)
        _on_signal(signal.SIGTERM, terminate)
        try:
            yield
        finally:
            loop.remove_reader(self._stdin)

    def say(self, message: str) -> None:
        """A line for the user, unless the parent does not read: a suspended one must not hold the
        work up."""
        line = message.replace("\n", " ").encode(errors="replace")
        if select.select([], [2], [], 0)[1]:
            with suppress(OSError):  # it is gone; the end of stdin says so too
                os.write(2, line[: _WRITABLE - 1] + b"\n")

    def warn(self, message: str) -> None:
        self.say(f"warning: {message}")

    def tell_result(self, stats: Stats) -> None:
        halted = stats.halted and stats.halted.to_json()
        result = {"calls": stats.calls, "halted": halted}
        with suppress(OSError):
            self._stdout.write(json.dumps(result).encode() + b"\n")


async def work_for_parent(parent: Parent) -> int:
    """Do what the parent gives to do; the exit code of that."""
    task = parent.task()
    if task is None:
        return 1
    stop, stats = Stop(), Stats()
    with parent.obeyed(stop):
        try:
            async with open_store(task.config.database) as store:
                result = await work_with_log(
                    store, task.config, task.spec, stop=stop, stats=stats,
                    show=parent.warn, show_attempt=parent.say if task.verbose else None,
                )  # fmt: skip
        finally:
            parent.tell_result(stats)
    return result.exit_code
