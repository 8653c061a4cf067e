"""One of several worker processes, seen from inside: it reads its task, follows the orders of its
parent, and writes what came of it. What passes between the two is in `processes`."""

import asyncio
import json
import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

from batchgen.config import Config
from batchgen.database_address import DatabaseAddress, from_text, to_text
from batchgen.jobs.configured_servers import ConfiguredServer, configured_servers
from batchgen.jobs.log import LogFile
from batchgen.jobs.work import work_at
from batchgen.shutdown import Stop
from batchgen.store import open_store
from batchgen.worker.spec import WorkSpec
from batchgen.worker.stats import Halt, RunContext, Stats

SIGNALS_OF_THE_TERMINAL = (signal.SIGINT, signal.SIGHUP)
_PIPE_BUF = 4096  # what a pipe that can be written to takes whole


class WorkerTask(Struct, frozen=True):
    """What a worker process is to do, at the servers of the spec. `verbose`: it reports every
    failed attempt."""

    spec: WorkSpec
    servers: tuple[ConfiguredServer, ...]
    database: DatabaseAddress
    log_dir: Path
    verbose: bool = False

    @classmethod
    def of(cls, spec: WorkSpec, config: Config, *, verbose: bool) -> "WorkerTask":
        return cls(spec, configured_servers(config), config.database, config.log_dir, verbose)

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the API key and all that is secret: for a private pipe alone."""
        return {
            "spec": self.spec.to_json(),
            "servers": [server.to_json() for server in self.servers],
            "database": to_text(self.database),
            "log_dir": str(self.log_dir),
            "verbose": self.verbose,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "WorkerTask":
        """What `to_json` was called on."""
        return cls(
            WorkSpec.from_json(values["spec"]),
            tuple(ConfiguredServer.from_json(one) for one in values["servers"]),
            from_text(values["database"]),
            Path(values["log_dir"]),
            values["verbose"],
        )


class TaskResult(Struct, frozen=True):
    """What came of a task, beside what the database has. `was_terminated`: the process was sent a
    SIGTERM, and not an order to stop."""

    calls: int
    halted: Halt | None
    was_terminated: bool = False

    def to_line(self) -> bytes:
        halted = self.halted and self.halted.to_json()
        terminated = self.was_terminated
        values = {"calls": self.calls, "halted": halted, "was_terminated": terminated}
        return json.dumps(values).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "TaskResult | None":
        """None: it is no whole line, as the process died."""
        if not line.endswith(b"\n"):
            return None
        values = json.loads(line)
        halted = values["halted"] and Halt.from_json(values["halted"])
        return cls(values["calls"], halted, values["was_terminated"])


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
        for signum in SIGNALS_OF_THE_TERMINAL:
            signal.signal(signum, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS_OF_THE_TERMINAL)
        self._stdin = os.fdopen(os.dup(0), "rb", buffering=0)
        self._stdout = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        self._was_terminated = False

    def task(self) -> WorkerTask | None:
        """The task that the parent gives; None: the parent is gone."""
        line = self._stdin.readline()
        return WorkerTask.from_json(json.loads(line)) if line.endswith(b"\n") else None

    @contextmanager
    def controls(self, stop: Stop) -> Iterator[None]:
        """While inside, the parent's orders set `stop`, and SIGTERM does as anywhere: drain, then
        now."""
        loop = asyncio.get_running_loop()

        def drain() -> None:  # nothing more comes on stdin but its end
            loop.remove_reader(self._stdin)
            stop.drain.set()

        def leave() -> None:
            stop.drain.set()
            stop.now.set()

        def terminate() -> None:  # an order of the parent's is no first signal
            if stop.signum is not None:
                stop.now.set()
            stop.signum = signal.SIGTERM
            stop.drain.set()
            self._was_terminated = True

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
                os.write(2, line[: _PIPE_BUF - 1] + b"\n")

    def warn(self, message: str) -> None:
        self.say(f"warning: {message}")

    def write_result(self, stats: Stats) -> None:
        with suppress(OSError):
            result = TaskResult(stats.calls, stats.halted, self._was_terminated)
            self._stdout.write(result.to_line())


async def work_for_parent(parent: Parent, *, begun: Callable[[], object]) -> int:
    """Do the task that the parent gives; its exit code. `begun` is called once the first calls have
    gone out."""
    task = parent.task()
    if task is None:
        return 1
    stop, stats = Stop(), Stats()
    with parent.controls(stop):
        try:
            async with open_store(task.database) as store:
                show_attempt = parent.say if task.verbose else None
                with closing(LogFile(task.log_dir, parent.warn, show_attempt)) as log:
                    context = RunContext(stop, log, stats)
                    result = await work_at(store, task.servers, task.spec, context, begun=begun)
        finally:
            parent.write_result(stats)
    return result.exit_code
