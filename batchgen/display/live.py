"""How a run goes: a live display on a terminal, plain lines elsewhere.

Both are drawn from the database alone, so they are the same for one worker, for several processes,
and for workers in other terminals.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

from msgspec import Struct
from rich.console import Console, ConsoleOptions
from rich.live import Live
from rich.text import Text

from batchgen.display.commands import Commands
from batchgen.display.drawing import (
    SHORTEST_BAR,
    Cell,
    bar,
    line,
    lines,
    number,
    share,
    wrapped,
)
from batchgen.display.history import History, Look
from batchgen.display.status import (
    duration,
    failed_calls_text,
    latency_text,
    left_s,
    run_held_back,
)
from batchgen.display.visible import visible, visible_line
from batchgen.jobs.status import Status
from batchgen.shutdown import uninterrupted

LIVE_EVERY_S = 0.5
PLAIN_EVERY_S = 5.0
_LONGEST_PLAIN_EVERY_S = 60.0  # a night then fills a thousand lines, not six thousand
_WIDE = 60  # so much is enough for what holds a run; what a server said may be cut off
_CLOCK = 16  # room for the longest remaining time


class RunDisplay:
    """The display of a run, and messages that do not tear it; on stderr, unless `console` is given.
    When nobody reads it any more, the run goes on without."""

    def __init__(
        self,
        commands: Commands,
        console: Console | None = None,
        *,
        plain_every_s: float = PLAIN_EVERY_S,
    ) -> None:
        self._commands = commands
        self._console = console or Console(stderr=True)
        self._plain_every_s = plain_every_s

    def say(self, message: str) -> None:
        with suppress(OSError, SystemExit):  # rich exits when nobody reads
            self._print(message)

    def warn(self, message: str) -> None:
        self.say(f"warning: {message}")

    @asynccontextmanager
    async def showing(self, look: Look) -> AsyncIterator[None]:
        """While inside, it shows how the run goes that begins now. On leaving it has its last look,
        which stays on the terminal; it raises what a look raised."""
        showing = asyncio.create_task(self._show(look), name="display")
        try:
            yield
        finally:
            await uninterrupted(_end(showing))

    async def _show(self, look: Look) -> None:
        history = History()
        status = await history.observe(look)
        with suppress(OSError, SystemExit):  # as above
            if _can_draw_on(self._console):
                await self._show_live(look, history, status)
            else:
                await self._show_lines(look, history)

    async def _show_lines(self, look: Look, history: History) -> None:
        """A line every few seconds, in a long run less often, until cancelled."""
        while True:
            pause_s = min(history.elapsed_s / 20, _LONGEST_PLAIN_EVERY_S)
            await asyncio.sleep(max(self._plain_every_s, pause_s))
            self._print(plain_line(await history.observe(look), history, self._commands))

    async def _show_live(self, look: Look, history: History, status: Status) -> None:
        """A display that is drawn anew in place, until cancelled."""
        # What a user's parser prints goes above the display, unless it goes somewhere else anyway.
        redirects = sys.stdout.isatty()
        with Live(console=self._console, auto_refresh=False, redirect_stdout=redirects) as live:
            try:
                while True:
                    live.update(LiveDisplay(status, history, self._commands), refresh=True)
                    await asyncio.sleep(LIVE_EVERY_S)
                    status = await history.observe(look)
            finally:
                status = await history.observe(look)
                last = LiveDisplay(status, history, self._commands, is_last=True)
                live.update(last, refresh=True)

    def _print(self, text: str) -> None:
        self._console.print(visible(text), highlight=False, markup=False, soft_wrap=True)


def _can_draw_on(console: Console) -> bool:
    drawable = console.is_terminal and not console.is_dumb_terminal
    return drawable and not console.options.ascii_only


async def _end(showing: asyncio.Task[None]) -> None:
    showing.cancel()
    await asyncio.wait([showing])  # for its last look, which needs the store
    if not showing.cancelled():
        showing.result()


def plain_line(status: Status, history: History, commands: Commands) -> str:
    """The newest look as one line, for a log file or a pipe."""
    total = status.total
    parts = [
        f"{total.finished}/{total.total} ({total.percent}%)",
        f"done {total.done}",
        f"failed {total.failed}",
        f"in flight {total.running}",
        f"{history.items_per_s:.1f} items/s",
        f"{history.tokens_per_s:.0f} tokens/s",
    ]
    if history.retried:
        parts.append(_retried(history))
    if latency := latency_text(status):
        parts.append(latency)
    parts.append(f"tokens {total.prompt_tokens} in, {total.completion_tokens} out")
    if total.cost_usd:
        parts.append(f"${total.cost_usd:.2f}")
    parts.append(f"{duration(history.elapsed_s)} so far")
    remaining_s = left_s(status, history.items_per_s)
    if remaining_s is not None:
        parts.append(f"{duration(remaining_s)} left")
    if held := run_held_back(status, history.items_per_s, commands):
        parts.append(visible_line(held))
    return " | ".join(parts)


def _retried(history: History) -> str:
    """How many calls, and what they had brought."""
    failed = failed_calls_text(history.failed_calls)
    return f"retried {history.retried:,}{f' ({failed})' if failed else ''}"


class LiveDisplay(Struct, frozen=True):
    """The newest look as it is drawn on a terminal of any width. Numbers keep their places from
    frame to frame, so that only what changes moves."""

    status: Status
    history: History
    commands: Commands
    is_last: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        width, total = options.max_width, self.status.total
        head, clock = share(total), self._clock()
        has_room = width - len(head) - _CLOCK - 4 >= SHORTEST_BAR
        right = f" {head}  {clock:>{_CLOCK}}" if has_room else f" {head}"
        yield line(bar(total, max(0, width - len(right))), Text(right))
        if clock and not has_room:
            yield line(Text(clock))
        yield from wrapped(self._counts(), width)
        yield from wrapped(self._speed(), width)
        yield from wrapped(self._sums(), width)
        if not self.is_last:
            held = run_held_back(self.status, self.history.items_per_s, self.commands)
            yield from lines(held, width, 1 if width >= _WIDE else 2, "yellow")

    def _clock(self) -> str:
        if self.is_last:
            return f"in {duration(self.history.elapsed_s)}"
        remaining_s = left_s(self.status, self.history.items_per_s)
        return "" if remaining_s is None else f"{duration(remaining_s)} left"

    def _counts(self) -> list[Cell]:
        total = self.status.total
        row = [
            (f"done {number(total.done, total)}", "green"),
            (f"failed {number(total.failed, total)}", "red" if total.failed else "dim"),
            (f"in flight {total.running:>3,}", "yellow" if total.running else "dim"),
        ]
        if self.history.retried:
            row.append((_retried(self.history), "yellow"))
        return row

    def _speed(self) -> list[Cell]:
        row = [
            (f"speed {self.history.items_per_s:>6.1f} items/s", ""),
            (f"{self.history.tokens_per_s:>6,.0f} tokens/s", ""),
        ]
        latency = latency_text(self.status, width=5)
        return [*row, (f"latency {latency}", "")] if latency else row

    def _sums(self) -> list[Cell]:
        total = self.status.total
        row = [(f"tokens {total.prompt_tokens:,} in, {total.completion_tokens:,} out", "dim")]
        if total.cost_usd:
            row.append((f"${total.cost_usd:,.2f}", "dim"))
        if not self.is_last:
            row.insert(0, (f"{duration(self.history.elapsed_s)} so far".ljust(17), "dim"))
        return row
