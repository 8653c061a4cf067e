"""The live display of a run, as rich draws it on a terminal."""

import sys
from collections.abc import Iterator

from msgspec import Struct
from rich.console import Console, ConsoleOptions
from rich.live import Live
from rich.text import Text

from batchgen.display.batch_words import unfinished_line
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
from batchgen.display.held import left_s, run_held_back
from batchgen.display.history import History
from batchgen.display.status import latency_text, rate_unit, retried_text
from batchgen.display.times import duration
from batchgen.jobs.status import Status

_WIDE = 60  # so much is enough for what holds a run; what a server said may be cut off
_CLOCK = 16  # room for the longest remaining time


def drawing_on(console: Console) -> Live:
    """What a user's parser prints goes above the display, unless it goes somewhere else anyway."""
    return Live(console=console, auto_refresh=False, redirect_stdout=sys.stdout.isatty())


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
        if self.status.steps:
            yield from wrapped(self._steps(), width)
        yield from wrapped(self._speed(), width)
        yield from wrapped(self._sums(), width)
        if self.status.batches:
            said = unfinished_line(self.status.batches, self.status.at_ms)
            yield from lines(said, width, 1 if width >= _WIDE else 2)
        if not self.is_last:
            if servers := self._servers():
                yield from wrapped(servers, width)
            held = run_held_back(self.status, self.history.items_per_s, self.commands)
            yield from lines(held, width, 1 if width >= _WIDE else 2, "yellow")

    def _clock(self) -> str:
        if self.is_last:
            return f"in {duration(self.history.elapsed_s)}"
        remaining_s = left_s(self.status, self.history.items_per_s)
        return "" if remaining_s is None else f"{duration(remaining_s)} left"

    def _counts(self) -> list[Cell]:
        total, in_flight = self.status.total, self.status.in_flight
        row = [
            (f"done {number(total.done, total)}", "green"),
            (f"failed {number(total.failed, total)}", "red" if total.failed else "dim"),
            (f"in flight {in_flight:>3,}", "yellow" if in_flight else "dim"),
        ]
        if self.history.retried:
            row.append((retried_text(self.history.retried, self.history.failed_calls), "yellow"))
        return row

    def _steps(self) -> list[Cell]:
        """How far each is: the sum stands above."""
        return [
            (
                f"{one.name} {number(one.counts.finished, one.counts)}/{one.counts.total:,}",
                "dim" if one.counts.total == one.counts.finished else "",
            )
            for one in self.status.steps
        ]

    def _speed(self) -> list[Cell]:
        row = [
            (f"speed {self.history.items_per_s:>6.1f} {rate_unit(self.status)}", ""),
            (f"{self.history.tokens_per_s:>6,.0f} tokens/s", ""),
        ]
        latency = latency_text(self.status, width=5)
        return [*row, (f"latency {latency}", "")] if latency else row

    def _servers(self) -> list[Cell]:
        """Each, where there are several."""
        servers = self.status.servers
        if len(servers) < 2:
            return []
        return [
            (f"{one.name} left out", "yellow")
            if one.left_out
            else (f"{one.name} {one.in_flight:>3,} in flight, {one.per_minute:>5,}/min", "dim")
            for one in servers
        ]

    def _sums(self) -> list[Cell]:
        total = self.status.total
        row = [(f"tokens {total.prompt_tokens:,} in, {total.completion_tokens:,} out", "dim")]
        if total.cost_usd:
            row.append((f"${total.cost_usd:,.2f}", "dim"))
        if not self.is_last:
            row.insert(0, (f"{duration(self.history.elapsed_s)} so far".ljust(17), "dim"))
        return row
