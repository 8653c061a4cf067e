"""Several worker processes under one command: `batchgen work --processes P`.

The parent does no work itself. It starts `batchgen work --part` P times, and these meet in the
database like any workers: there are the limits they share, and the items of one that dies. A part
and its parent talk over the part's pipes, a JSON value a line:

    stdin     "drain", then perhaps "now"; its end tells that the parent is gone: "drain"
    stdout    {"stats": {...}} twice a second, {"say": "..."} for the user
    stderr    lines for the user

A Ctrl-C reaches every process of a terminal, so the parts ignore it: their parent alone stops them.
"""

import asyncio
import json
import os
import select
import signal
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import IO

from batchgen.errors import BatchgenError
from batchgen.jobs.work import Watcher, WorkResult, watched
from batchgen.shutdown import Stop
from batchgen.store import Store
from batchgen.worker import Stats, WorkSpec

_REPORT_EVERY_S = 0.5
_LONGEST_LINE = 1024 * 1024
_LATENCIES_TOLD = 200
_ROOM = 4096  # PIPE_BUF: what a pipe that can be written to takes whole, so keep below it
_TOLD_TO_STOP = 128 + signal.SIGTERM  # by `batchgen stop`; what the parent says gives 0 or 3
_ENDED_WELL = (0, 3, 4, _TOLD_TO_STOP)

Say = Callable[[str], None]


def shares(total: int, parts: int) -> list[int]:
    """`total` in so many parts, as even as can be."""
    return [total // parts + (number < total % parts) for number in range(parts)]


async def work_in_processes(
    store: Store, commands: Sequence[Sequence[str]], spec: WorkSpec, *, stop: Stop, say: Say,
    watch: Watcher,
) -> WorkResult:  # fmt: skip
    """Run the commands, each a `batchgen work --part`, until all have ended, one halts, or `stop`.

    One that dies leaves its items to the others. Raises BatchgenError when all have failed. Who is
    cancelled has drained them first.
    """
    stats = Stats()
    crew = _Crew(stats, say, stop, shares_items=spec.max_items is not None)
    async with watched(watch, store, spec, stats):
        await crew.run(commands)
    counts = await store.counts(spec.experiments)
    signum = stop.signum if stop.drain.is_set() else None
    return WorkResult(stats, counts, signum, spec.until)


@dataclass(slots=True)
class _Part:
    process: asyncio.subprocess.Process
    stats: Stats = field(default_factory=Stats)

    def tell(self, word: str) -> None:
        stdin = self.process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(f"{json.dumps(word)}\n".encode())


class _Crew:
    def __init__(self, stats: Stats, say: Say, stop: Stop, *, shares_items: bool) -> None:
        self._shares_items = shares_items
        self._stats = stats
        self._say = say
        self._stop = stop
        self._parts: list[_Part] = []
        self._warned: dict[str, _Part] = {}

    async def run(self, commands: Sequence[Sequence[str]]) -> None:
        try:
            for command in commands:
                self._parts.append(_Part(await _start(command)))
            stopping = asyncio.create_task(self._pass_on_stop(), name="pass on stop")
            try:
                async with asyncio.TaskGroup() as group:
                    for part in self._parts:
                        group.create_task(self._follow(part))
                        group.create_task(self._pass_on_errors(part))
            finally:
                stopping.cancel()
                await asyncio.wait([stopping])
        finally:
            await self._end()
        codes = {part.process.returncode or 0 for part in self._parts}
        if codes & set(_ENDED_WELL) == {_TOLD_TO_STOP}:
            self._stop.signum = self._stop.signum or signal.SIGTERM
            self._stop.drain.set()
        if not codes & set(_ENDED_WELL):
            raise BatchgenError(
                f"all {len(self._parts)} worker processes failed; the lines above say why. "
                "Nothing that was answered is lost; run the same command to go on."
            )

    async def _pass_on_stop(self) -> None:
        await self._stop.drain.wait()
        self._tell_all("drain")
        await self._stop.now.wait()
        self._tell_all("now")

    async def _follow(self, part: _Part) -> None:
        """What one part tells, until it has ended."""
        assert part.process.stdout is not None
        async for line in part.process.stdout:
            message = json.loads(line)
            if "say" in message:
                self._say_once(part, message["say"])
            else:
                part.stats = Stats(**message["stats"])
                self._add_up()
        code = await part.process.wait()
        if part.stats.halted:  # the reason holds for all
            self._tell_all("drain")
        elif code not in _ENDED_WELL and not self._stop.drain.is_set():
            how = f"was killed (signal {-code})" if code < 0 else f"failed (exit code {code})"
            self._say(f"warning: worker process {part.process.pid} {how}; {self._who_goes_on()}")
        part.stats.in_flight = 0
        self._add_up()

    def _say_once(self, part: _Part, text: str) -> None:
        """What several parts warn of is news from the first of them."""
        is_warning = text.startswith("warning: ")
        if not is_warning or self._warned.setdefault(text, part) is part:
            self._say(text)

    def _who_goes_on(self) -> str:
        if self._shares_items:
            return (
                "what is missing of its share of --max-items is left: run the command again, with "
                "so many"
            )
        return "the others do its items"

    async def _pass_on_errors(self, part: _Part) -> None:
        assert part.process.stderr is not None
        while text := await part.process.stderr.read(_LONGEST_LINE):
            for line in text.decode(errors="replace").splitlines():
                self._say(line)

    def _add_up(self) -> None:
        """All that is known of the parts, in the one `Stats` that is shown."""
        total, parts = self._stats, [part.stats for part in self._parts]
        for name in ("done", "failed", "retried", "calls", "in_flight",
                     "prompt_tokens", "completion_tokens"):  # fmt: skip
            setattr(total, name, sum(getattr(stats, name) for stats in parts))
        total.latencies_ms = deque(ms for stats in parts for ms in stats.latencies_ms)
        total.reasons = sum((Counter(stats.reasons) for stats in parts), Counter())
        total.paused = all(stats.paused for stats in parts)
        total.paused_until = min(stats.paused_until for stats in parts)
        total.limited_to_rpm = next(
            (stats.limited_to_rpm for stats in parts if stats.limited_to_rpm), None
        )
        total.trouble = next((stats.trouble for stats in parts if stats.trouble), "")
        total.halted = next((stats.halted for stats in parts if stats.halted), None)

    def _tell_all(self, word: str) -> None:
        for part in self._parts:
            part.tell(word)

    async def _end(self) -> None:
        """Whatever happened here, no part is left: the end of its stdin drains it."""
        for part in self._parts:
            if part.process.stdin is not None:
                part.process.stdin.close()
        for part in self._parts:
            await part.process.communicate()


async def _start(command: Sequence[str]) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, stderr=pipe, limit=_LONGEST_LINE
    )


class Part:
    """In a part: reports to the parent what a worker on its own would show.

    Made before any code of the user's is loaded: from then on stdin is empty and stdout is stderr,
    so that a parser which prints or reads does not get in between.
    """

    def __init__(self) -> None:
        self.orders = os.fdopen(os.dup(0), "rb", buffering=0)
        self._reports = os.dup(1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)

    async def show(self, store: Store, spec: WorkSpec, stats: Stats) -> None:  # noqa: ARG002
        """Until cancelled, and once more then."""
        try:
            while True:
                self._report(stats)
                await asyncio.sleep(_REPORT_EVERY_S)
        finally:
            self._report(stats)

    def say(self, message: str) -> None:
        self._tell({"say": message[: _ROOM // 8]})  # of which a character can take six bytes

    def warn(self, message: str) -> None:
        self.say(f"warning: {message}")

    def _report(self, stats: Stats) -> None:
        plain = {name: getattr(stats, name) for name in Stats.__slots__}
        newest = list(stats.latencies_ms)[-_LATENCIES_TOLD:]
        self._tell({"stats": plain | {"latencies_ms": newest}})

    def _tell(self, message: dict[str, object]) -> None:
        """Unless the parent does not read: a suspended one must not hold the work up."""
        try:
            if select.select([], [self._reports], [], 0)[1]:
                os.write(self._reports, f"{json.dumps(message)}\n".encode())
        except OSError:
            pass  # it is gone; the end of `orders` says so too


@asynccontextmanager
async def obeying_the_parent(stop: Stop, orders: IO[bytes]) -> AsyncIterator[None]:
    """While inside, `stop` follows what the parent says. A SIGTERM drains this part alone."""
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    loop.add_signal_handler(signal.SIGTERM, stop.drain.set)
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), orders
    )
    listening = asyncio.create_task(_listen(reader, stop), name="listen to the parent")
    try:
        yield
    finally:
        listening.cancel()
        await asyncio.wait([listening])
        transport.close()
        loop.remove_signal_handler(signal.SIGTERM)


async def _listen(reader: asyncio.StreamReader, stop: Stop) -> None:
    async for line in reader:
        stop.drain.set()
        if json.loads(line) == "now":
            stop.now.set()
    stop.drain.set()
