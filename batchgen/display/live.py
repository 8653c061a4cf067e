"""How a run goes: a live display on a terminal, plain lines elsewhere. All to stderr.

The counts are the database's, so they include what other workers do; rate and remaining time come
from their change over the last while. Latencies and pauses are this worker's own.
"""

import asyncio
import math
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchgen.display.texts import percentile_s
from batchgen.limits import limit_in_words
from batchgen.store import Counts, Store
from batchgen.worker import Stats, WorkSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.text import Text

LIVE_EVERY_S = 0.5
PLAIN_EVERY_S = 5.0
_LONGEST_PLAIN_EVERY_S = 60.0  # a night then fills a thousand lines, not six thousand
# Rates look back a quarter of the run: an answer may take minutes, and a short look would jump.
_SHORTEST_WINDOW_S = 30.0
_LONGEST_WINDOW_S = 600.0

Cell = tuple[str, str]  # text and style


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at a run; None where nothing is known yet."""

    total: int
    done: int
    failed: int
    in_flight: int
    retried: int
    items_per_s: float
    tokens_per_s: float
    p50_s: float | None
    p95_s: float | None
    elapsed_s: float
    left_s: float | None
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    note: str

    @property
    def finished(self) -> int:
        return self.done + self.failed

    @property
    def percent(self) -> int:
        """Rounded down: 100 only when nothing is left."""
        return 100 * self.finished // self.total if self.total else 100


class Meter:
    """Turns counts into rates."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque()
        self._started_s: float | None = None

    def look(self, counts: Counts, stats: Stats, now_s: float) -> Snapshot:
        """`now_s` is of the monotonic clock."""
        if self._started_s is None:
            self._started_s = now_s
        elapsed_s = now_s - self._started_s
        finished, tokens = counts.done + counts.failed, counts.completion_tokens
        self._seen.append((now_s, finished, tokens))
        window_s = min(max(_SHORTEST_WINDOW_S, elapsed_s / 4), _LONGEST_WINDOW_S)
        while now_s - self._seen[0][0] > window_s and len(self._seen) > 2:
            self._seen.popleft()
        since_s, finished_then, tokens_then = self._seen[0]
        span_s = now_s - since_s
        rate = (finished - finished_then) / span_s if span_s else 0.0
        return Snapshot(
            total=counts.total, done=counts.done, failed=counts.failed,
            in_flight=counts.running, retried=stats.retried, items_per_s=rate,
            tokens_per_s=(tokens - tokens_then) / span_s if span_s else 0.0,
            p50_s=percentile_s(stats.latencies_ms, 0.50),
            p95_s=percentile_s(stats.latencies_ms, 0.95),
            elapsed_s=elapsed_s, left_s=_left_s(counts.open, rate, stats),
            prompt_tokens=counts.prompt_tokens, completion_tokens=counts.completion_tokens,
            cost_usd=counts.cost_usd, note=_note(stats, rate, now_s),
        )  # fmt: skip


def _left_s(n: int, rate: float, stats: Stats) -> float | None:
    """What a limit allows is known before it can be measured."""
    if stats.paused:
        return None
    most = math.inf if stats.limited_to_rpm is None else stats.limited_to_rpm / 60
    rate = min(rate or most, most)
    return n / rate if 0 < rate < math.inf else None


def plain_line(look: Snapshot) -> str:
    """The snapshot as one line for a log file or a pipe."""
    parts = [
        f"{look.finished}/{look.total} ({look.percent}%)",
        f"done {look.done}",
        f"failed {look.failed}",
        f"in flight {look.in_flight}",
        f"{look.items_per_s:.1f} items/s",
        f"{look.tokens_per_s:.0f} tokens/s",
    ]
    if look.retried:
        parts.append(f"retried {look.retried}")
    if look.p50_s is not None and look.p95_s is not None:
        parts.append(f"p50 {look.p50_s:.2f} s, p95 {look.p95_s:.2f} s")
    parts.append(f"tokens {look.prompt_tokens} in, {look.completion_tokens} out")
    if look.cost_usd:
        parts.append(f"${look.cost_usd:.2f}")
    parts.append(f"{duration(look.elapsed_s)} so far")
    if look.left_s is not None:
        parts.append(f"{duration(look.left_s)} left")
    if look.note:
        parts.append(look.note)
    return " | ".join(parts)


def duration(seconds: float) -> str:
    """Two units at most, and no more precise than one can plan with: 8 s, 3 min 20 s, 23 min,
    5 h 12 min, 3 d 4 h."""
    whole = round(seconds)
    minutes, hours = whole // 60, whole // 3600
    if whole < 60:
        return f"{whole} s"
    if minutes < 10:
        return f"{minutes} min {whole % 60} s"
    if hours < 1:
        return f"{minutes} min"
    if hours < 48:
        return f"{hours} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"


async def show_plain(
    store: Store, spec: WorkSpec, stats: Stats, console: "Console", every_s: float = PLAIN_EVERY_S
) -> None:
    """A line every few seconds, in a long run less often, until cancelled."""
    meter = Meter()
    look = meter.look(await _counts(store, spec), stats, time.monotonic())
    while True:
        await asyncio.sleep(max(every_s, min(look.elapsed_s / 20, _LONGEST_PLAIN_EVERY_S)))
        counts = await _counts(store, spec)
        look = meter.look(counts, stats, time.monotonic())
        console.print(plain_line(look), highlight=False, markup=False, soft_wrap=True)


async def show_live(store: Store, spec: WorkSpec, stats: Stats, console: "Console") -> None:
    """A display that is drawn anew in place, until cancelled."""
    from rich.live import Live

    if console.is_dumb_terminal:
        await show_plain(store, spec, stats, console)
        return
    meter = Meter()
    # What a user's parser prints goes above the display, unless it goes somewhere else anyway.
    with Live(console=console, auto_refresh=False, redirect_stdout=sys.stdout.isatty()) as live:
        try:
            while True:
                counts = await _counts(store, spec)
                look = meter.look(counts, stats, time.monotonic())
                live.update(Drawing(look), refresh=True)
                await asyncio.sleep(LIVE_EVERY_S)
        finally:
            # The last frame stays on the screen, so let it be true.
            counts = await _counts(store, spec)
            look = meter.look(counts, stats, time.monotonic())
            live.update(Drawing(look, last=True), refresh=True)


async def _counts(store: Store, spec: WorkSpec) -> Counts:
    """What the run is about: with `until`, no more pending items than are still wanted."""
    counts = await store.counts(spec.experiments)
    if spec.until is not None:
        missing = max(0, spec.until - counts.done - counts.running)
        counts.pending = min(counts.pending, missing)
    return counts


@dataclass(frozen=True, slots=True)
class Drawing:
    """A snapshot as it looks on a terminal of any width. Numbers keep their places from frame to
    frame, so that only what changes moves."""

    look: Snapshot
    last: bool = False

    def __rich_console__(
        self, console: "Console", options: "ConsoleOptions"
    ) -> "Iterator[RenderableType]":
        from rich.text import Text

        width = options.max_width
        yield _bar(self.look, last=self.last)
        yield from wrapped(_counts_row(self.look), width)
        yield from wrapped(_speed_row(self.look), width)
        yield from wrapped(_total_row(self.look, last=self.last), width)
        if not self.last:  # the line is there with nothing to say too, or the display would jump
            yield Text(self.look.note or " ", style="yellow", overflow="ellipsis", no_wrap=True)


def _bar(look: Snapshot, *, last: bool) -> "RenderableType":
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    if last:
        clock = f"in {duration(look.elapsed_s)}"
    else:
        clock = "" if look.left_s is None else f"{duration(look.left_s)} left"
    head = Table.grid(padding=(0, 1), expand=True)
    head.add_column(ratio=1)
    head.add_column(justify="right", no_wrap=True)
    head.add_row(
        ProgressBar(total=max(look.total, 1), completed=look.finished),
        f"{_number(look.finished, look)}/{look.total:,} {look.percent:>3}%  {clock:>16}",
    )
    return head


def _counts_row(look: Snapshot) -> list[Cell]:
    row = [
        (f"done {_number(look.done, look)}", "green"),
        (f"failed {_number(look.failed, look)}", "red" if look.failed else "dim"),
        (f"in flight {look.in_flight:>3,}", ""),
    ]
    if look.retried:
        row.append((f"retried {look.retried:,}", "yellow"))
    return row


def _speed_row(look: Snapshot) -> list[Cell]:
    row = [
        (f"speed {look.items_per_s:>6.1f} items/s", ""),
        (f"{look.tokens_per_s:>6,.0f} tokens/s", ""),
    ]
    if look.p50_s is not None and look.p95_s is not None:
        row.append((f"latency p50 {look.p50_s:>5.2f} s, p95 {look.p95_s:>5.2f} s", ""))
    return row


def _total_row(look: Snapshot, *, last: bool) -> list[Cell]:
    row = [(f"tokens {look.prompt_tokens:,} in, {look.completion_tokens:,} out", "dim")]
    if look.cost_usd:
        row.append((f"${look.cost_usd:,.2f}", "dim"))
    if not last:
        row.insert(0, (f"{duration(look.elapsed_s)} so far".ljust(17), "dim"))
    return row


def _number(n: int, look: Snapshot) -> str:
    """`n`, as wide as the largest count of this run."""
    return f"{n:>{len(f'{look.total:,}')},}"


def wrapped(row: list[Cell], width: int) -> "Iterator[Text]":
    """The cells, three blanks apart, on as many lines as it takes: a cell is never torn."""
    from rich.text import Text

    line = Text(no_wrap=True, overflow="ellipsis")
    for text, style in row:
        gap = "   " if line else ""
        if line and len(line) + len(gap) + len(text) > width:
            yield line
            line, gap = Text(no_wrap=True, overflow="ellipsis"), ""
        line.append(gap).append(text, style)
    yield line


def _note(stats: Stats, rate: float, now_s: float) -> str:
    """What the user should know right now: why nothing moves."""
    if stats.halted:
        return "halted: waiting for the calls in flight"
    if stats.paused:
        return "paused from another terminal: batchgen resume goes on"
    wait_s = stats.paused_until / 1000 - now_s
    because = f": {stats.trouble}" if stats.trouble else ""
    if wait_s >= 1:
        return f"paused for {duration(math.ceil(wait_s))}{because}"
    if stats.trouble and not rate:
        return f"nothing finished lately{because}"
    if stats.limited_to_rpm:
        return limit_in_words(stats.limited_to_rpm)
    return ""
