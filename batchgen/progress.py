"""How a run goes: a live display on a terminal, plain lines elsewhere. All to stderr.

The counts are the database's, so they include what other workers do; rate and remaining time come
from their change over the last half minute.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchgen.committer import Scope
from batchgen.store import Counts, Store, now_ms
from batchgen.views import percentile_s
from batchgen.worker import Stats

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

LIVE_EVERY_S = 0.25
PLAIN_EVERY_S = 5.0
_WINDOW_S = 30.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at a run; None where nothing is known yet."""

    total: int
    done: int
    failed: int
    in_flight: int
    items_per_s: float
    tokens_per_s: float
    p50_s: float | None
    p95_s: float | None
    eta_s: float | None
    prompt_tokens: int
    completion_tokens: int
    note: str


class Meter:
    """Turns counts into rates."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque()

    def look(self, counts: Counts, stats: Stats, now_s: float, clock_ms: int) -> Snapshot:
        """`now_s` is monotonic, `clock_ms` the time of day."""
        finished, tokens = counts.done + counts.failed, counts.completion_tokens
        self._seen.append((now_s, finished, tokens))
        while now_s - self._seen[0][0] > _WINDOW_S and len(self._seen) > 2:
            self._seen.popleft()
        since_s, finished_then, tokens_then = self._seen[0]
        span_s = now_s - since_s
        rate = (finished - finished_then) / span_s if span_s else 0.0
        left = counts.total - finished
        return Snapshot(
            total=counts.total, done=counts.done, failed=counts.failed,
            in_flight=counts.running, items_per_s=rate,
            tokens_per_s=(tokens - tokens_then) / span_s if span_s else 0.0,
            p50_s=percentile_s(stats.latencies_ms, 0.50),
            p95_s=percentile_s(stats.latencies_ms, 0.95),
            eta_s=left / rate if rate > 0 else None,
            prompt_tokens=counts.prompt_tokens, completion_tokens=counts.completion_tokens,
            note=_note(stats, clock_ms),
        )  # fmt: skip


def plain_line(look: Snapshot) -> str:
    """The snapshot as one line for a log file or a pipe."""
    parts = [
        f"{look.done + look.failed}/{look.total}",
        f"done {look.done}",
        f"failed {look.failed}",
        f"in flight {look.in_flight}",
        f"{look.items_per_s:.1f} items/s",
    ]
    if look.p50_s is not None and look.p95_s is not None:
        parts.append(f"p50 {look.p50_s:.2f} s, p95 {look.p95_s:.2f} s")
    parts.append(f"tokens {look.prompt_tokens}+{look.completion_tokens}")
    if look.eta_s is not None:
        parts.append(f"{duration(look.eta_s)} left")
    if look.note:
        parts.append(look.note)
    return " | ".join(parts)


def duration(seconds: float) -> str:
    """Two units at most: 8 s, 3 min 20 s, 5 h 12 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


async def show_plain(store: Store, scope: Scope, stats: Stats, console: "Console") -> None:
    """A line every few seconds, until cancelled."""
    meter = Meter()
    meter.look(await store.counts(scope.experiments), stats, time.monotonic(), now_ms())
    while True:
        await asyncio.sleep(PLAIN_EVERY_S)
        counts = await store.counts(scope.experiments)
        look = meter.look(counts, stats, time.monotonic(), now_ms())
        console.print(plain_line(look), highlight=False, markup=False, soft_wrap=True)


async def show_live(store: Store, scope: Scope, stats: Stats, console: "Console") -> None:
    """A display that is drawn anew in place, until cancelled."""
    from rich.live import Live

    meter = Meter()
    with Live(console=console, auto_refresh=False, redirect_stdout=False) as live:
        try:
            while True:
                counts = await store.counts(scope.experiments)
                look = meter.look(counts, stats, time.monotonic(), now_ms())
                live.update(_drawn(look), refresh=True)
                await asyncio.sleep(LIVE_EVERY_S)
        finally:
            # The last frame stays on the screen, so let it be true.
            counts = await store.counts(scope.experiments)
            look = meter.look(counts, stats, time.monotonic(), now_ms())
            live.update(_drawn(look), refresh=True)


def _drawn(look: Snapshot) -> "RenderableType":
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    finished = look.done + look.failed
    head = Table.grid(padding=(0, 1), expand=True)
    head.add_column(ratio=1)
    head.add_column(justify="right", no_wrap=True)
    head.add_row(
        ProgressBar(total=max(look.total, 1), completed=finished),
        f"{finished}/{look.total}  {finished / max(look.total, 1):.0%}",
    )
    line = Text.assemble(
        (f"done {look.done}", "green"), "   ",
        (f"failed {look.failed}", "red" if look.failed else "dim"), "   ",
        f"in flight {look.in_flight}   {look.items_per_s:.1f} items/s",
        f"   {look.tokens_per_s:.0f} tokens/s",
    )  # fmt: skip
    eta = "" if look.eta_s is None else f"   {duration(look.eta_s)} left"
    latency = (
        "" if look.p50_s is None else f"latency p50 {look.p50_s:.2f} s  p95 {look.p95_s:.2f} s   "
    )
    below = Text(
        f"{latency}tokens {look.prompt_tokens} in, {look.completion_tokens} out{eta}", style="dim"
    )
    note = [Text(look.note, style="yellow", overflow="ellipsis", no_wrap=True)] if look.note else []
    return Group(head, line, below, *note)


def _note(stats: Stats, clock_ms: int) -> str:
    """What the user should know right now."""
    if stats.halted:
        return f"halted: {stats.halted}"
    wait_s = (stats.paused_until - clock_ms) / 1000
    if wait_s > 0:
        return f"paused {wait_s:.0f} s: {stats.trouble}"
    return ""
