"""How a run goes: a live display on a terminal, plain lines elsewhere, for which nothing of rich is
loaded.

Both are drawn from the database alone, so they are the same for one worker, for several processes,
and for workers in other terminals.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from batchgen.display.batch_words import unfinished_line
from batchgen.display.commands import Commands
from batchgen.display.held import left_s, run_held_back
from batchgen.display.history import History, Look
from batchgen.display.status import latency_text, rate_unit, retried_text, servers_text
from batchgen.display.steps import step_progress_text
from batchgen.display.times import duration
from batchgen.display.visible import visible, visible_line
from batchgen.jobs.status import Status
from batchgen.shutdown import uninterrupted

if TYPE_CHECKING:
    from rich.console import Console

LIVE_EVERY_S = 0.5
PLAIN_EVERY_S = 5.0
_LONGEST_PLAIN_EVERY_S = 60.0  # a night then fills a thousand lines, not six thousand
_NOTHING_NEW_EVERY_S = 3600.0  # while a provider has batches, and says nothing else of them
_BEFORE_FIRST_DRAWING_S = 0.2  # rich takes a while to load: the first calls go out before


class RunDisplay:
    """The display of a run, and messages that do not tear it; on stderr, unless `console` is given.
    When nobody reads it any more, the run goes on without."""

    def __init__(
        self,
        commands: Commands,
        console: "Console | None" = None,
        *,
        plain_every_s: float = PLAIN_EVERY_S,
    ) -> None:
        self._commands = commands
        self._console = console
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
            is_over = False
            if self._console is None and _may_draw():
                is_over = await _is_cancelled_within(_BEFORE_FIRST_DRAWING_S)
                self._console = _rich_console()
            if self._console is not None and _can_draw_on(self._console):
                await self._show_live(self._console, look, history, status, is_over=is_over)
            elif not is_over:
                await self._show_lines(look, history)

    async def _show_lines(self, look: Look, history: History) -> None:
        """A line every few seconds, in a long run less often, until cancelled; and of batches
        when there is something new."""
        told, told_at_s = None, 0.0
        while True:
            pause_s = min(history.elapsed_s / 20, _LONGEST_PLAIN_EVERY_S)
            await asyncio.sleep(max(self._plain_every_s, pause_s))
            status = await history.observe(look)
            news = status.total, status.batches
            is_silent = history.elapsed_s - told_at_s < _NOTHING_NEW_EVERY_S
            if status.batches and news == told and is_silent:
                continue
            told, told_at_s = news, history.elapsed_s
            self._print(plain_line(status, history, self._commands))

    async def _show_live(
        self, console: "Console", look: Look, history: History, status: Status, *, is_over: bool
    ) -> None:
        """A display that is drawn anew in place, until cancelled; the last time then."""
        from batchgen.display.live import LiveDisplay, drawing_on

        with drawing_on(console) as live:
            try:
                while not is_over:
                    live.update(LiveDisplay(status, history, self._commands), refresh=True)
                    await asyncio.sleep(LIVE_EVERY_S)
                    status = await history.observe(look)
            finally:
                status = await history.observe(look)
                last = LiveDisplay(status, history, self._commands, is_last=True)
                live.update(last, refresh=True)

    def _print(self, text: str) -> None:
        if self._console is not None:
            self._console.print(visible(text), highlight=False, markup=False, soft_wrap=True)
        elif sys.stderr is not None:
            sys.stderr.write(f"{visible(text)}\n")
            sys.stderr.flush()


async def _is_cancelled_within(seconds: float) -> bool:
    """For the task that draws: it has its last look to draw then."""
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        return True
    return False


def _may_draw() -> bool:
    """Whether rich, which looks at the same, may take stderr for a terminal."""
    asked_for = any(os.environ.get(name) for name in ("FORCE_COLOR", "TTY_COMPATIBLE"))
    return asked_for or (sys.stderr is not None and sys.stderr.isatty())


def _rich_console() -> "Console":
    from rich.console import Console

    return Console(stderr=True)


def _can_draw_on(console: "Console") -> bool:
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
    ]
    if status.steps:
        parts.insert(1, step_progress_text(status.steps))
    if status.batches:
        parts.append(unfinished_line(status.batches, status.at_ms))
    if status.in_flight or not status.batches:
        parts += [
            f"in flight {status.in_flight}",
            f"{history.items_per_s:.1f} {rate_unit(status)}",
            f"{history.tokens_per_s:.0f} tokens/s",
        ]
    if history.retried:
        parts.append(retried_text(history.retried, history.failed_calls))
    if latency := latency_text(status):
        parts.append(latency)
    parts.append(f"tokens {total.prompt_tokens} in, {total.completion_tokens} out")
    if total.cost_usd:
        parts.append(f"${total.cost_usd:.2f}")
    parts.append(f"{duration(history.elapsed_s)} so far")
    remaining_s = left_s(status, history.items_per_s)
    if remaining_s is not None:
        parts.append(f"{duration(remaining_s)} left")
    if servers := servers_text(status):
        parts.append(servers)
    if held := run_held_back(status, history.items_per_s, commands):
        parts.append(visible_line(held))
    return " | ".join(parts)
