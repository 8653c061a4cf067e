"""Several worker processes under one command: `batchgen work --processes P`.

The parent starts P processes, a `Crew`. Beside what passes through the database there are, between
a process and its parent, only

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
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from batchgen.config import Config
from batchgen.descriptors import allow_calls
from batchgen.jobs.crew import Crew, Member, Say
from batchgen.jobs.work import WorkResult
from batchgen.jobs.worker_process import SIGNALS_OF_THE_TERMINAL, TaskResult, WorkerTask
from batchgen.shutdown import Stop
from batchgen.store import Store, WorkerRow
from batchgen.worker.spec import WorkSpec
from batchgen.worker.stats import Stats

_LONGEST_LINE = 1024 * 1024
_IN_THE_TASK = "BATCHGEN_DATABASE"  # which may have a password


async def work_in_processes(
    store: Store, config: Config, specs: Sequence[WorkSpec], command: Sequence[str], *,
    stop: Stop, stats: Stats, say: Say, verbose: bool = False,
) -> WorkResult:  # fmt: skip
    """Run a worker process for each spec, as `Crew.work` does. `command` starts a process that
    calls `work_for_parent`. Raises UsageError when the system does not allow so many calls."""
    allow_calls(max(spec.concurrency for spec in specs))  # each would fail by itself
    tasks = [WorkerTask.of(spec, config, verbose=verbose) for spec in specs]
    crew = Crew(store, stop, stats, say, "worker processes")
    return await crew.work(specs[0], [partial(_start, command, task) for task in tasks])


class _Process:
    """A worker process of this machine."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.name = f"worker process {process.pid}"

    @property
    def is_over(self) -> bool:
        return self._process.returncode is not None

    def has_row(self, row: WorkerRow) -> bool:
        return (row.host, row.pid) == (os.uname().nodename, self._process.pid)

    def drain(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()

    def leave(self) -> None:
        if not self.is_over:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGUSR1)

    async def words(self) -> AsyncIterator[bytes]:
        assert self._process.stderr is not None
        while read := await self._process.stderr.read(_LONGEST_LINE):
            yield read

    async def result(self) -> tuple[TaskResult | None, int]:
        assert self._process.stdout is not None
        result = TaskResult.from_line(await self._process.stdout.read())
        return result, await self._process.wait()

    async def end(self) -> None:
        await self._process.communicate()


async def _start(command: Sequence[str], task: WorkerTask) -> Member:
    pipe = asyncio.subprocess.PIPE
    env = {name: value for name, value in os.environ.items() if name != _IN_THE_TASK}
    with _signals_of_the_terminal_blocked():  # the process unblocks them when it ignores them
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=pipe, limit=_LONGEST_LINE, env=env
        )
    assert process.stdin is not None
    process.stdin.write(json.dumps(task.to_json()).encode() + b"\n")
    return _Process(process)


@contextmanager
def _signals_of_the_terminal_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS_OF_THE_TERMINAL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
