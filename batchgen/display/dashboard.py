"""`batchgen status --watch` on a terminal: what `status` says, drawn, with the last minutes of it.

`History` turns looks at the status into what changed between them; `Dashboard` is a look as it is
drawn, for a terminal of any size: nothing in it asks the clock or the database. `show` looks and
draws, until a signal.
"""

import asyncio
import textwrap
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.live import Live
from rich.text import Text

from batchgen.display.live import Cell, duration, wrapped
from batchgen.display.texts import learned_line, status_text, unknown_line
from batchgen.shutdown import Stop, stop_on_signal

Status = dict[str, Any]  # the object of `status --json`

EVERY_S = 2.0
_KEPT = 60  # steps: two minutes
_LATELY_S = 30.0  # the rate looks back as far: a step of two seconds jumps
_SPARKS = "▁▂▃▄▅▆▇█"
_LABEL = 9
_LONGEST_NAME = 24
_SHORTEST_BAR = 8
_SHORTEST_BAR_BESIDE = 30  # with the counts on the same line
_STYLES = {"done": "green", "failed": "red", "running": "yellow", "pending": "dim"}
_BLOCKS = {"done": "█", "failed": "█", "running": "▒", "pending": "░"}


# --- what changed ---


@dataclass(frozen=True, slots=True)
class Step:
    """What changed from one look to the next. `calls` are those whose end is known."""

    span_s: float
    items: int
    calls: int
    latency_ms: int
    cost_usd: float

    @property
    def items_per_s(self) -> float:
        return self.items / self.span_s

    @property
    def latency_s(self) -> float | None:
        return self.latency_ms / self.calls / 1000 if self.calls else None


class History:
    """The last steps, oldest first. One in which a total went back says nothing and is left out:
    items were put back to pending, or an experiment was deleted."""

    def __init__(self) -> None:
        self.steps: deque[Step] = deque(maxlen=_KEPT)
        self._before: tuple[float, ...] | None = None

    def look(self, now_s: float, status: Status) -> None:
        """`now_s` is of the monotonic clock."""
        total, experiments = status["total"], status["experiments"]
        seen = (
            now_s,
            total["done"] + total["failed"],
            sum(e["calls"] - e["unknown_calls"] for e in experiments),
            total["latency_ms"],
            total["cost_usd"],
        )
        before, self._before = self._before, seen
        if before is not None and now_s > before[0]:
            span_s, *changes = (now - then for now, then in zip(seen, before, strict=True))
            if min(changes) >= 0:
                items, calls, latency_ms, cost_usd = changes
                self.steps.append(Step(span_s, int(items), int(calls), int(latency_ms), cost_usd))

    @property
    def items_per_s(self) -> float | None:
        """Lately; None while nothing is known."""
        items, span_s = 0, 0.0
        for step in reversed(self.steps):
            items, span_s = items + step.items, span_s + step.span_s
            if span_s >= _LATELY_S:
                break
        return items / span_s if span_s else None

    @property
    def usd_per_h(self) -> float | None:
        span_s = sum(step.span_s for step in self.steps)
        return 3600 * sum(step.cost_usd for step in self.steps) / span_s if span_s else None


def sparkline(values: Sequence[float | None], width: int) -> str:
    """The newest values, a cell each, from nothing to the highest of them; blank where None."""
    shown = values[-width:] if width > 0 else ()
    most = max((value for value in shown if value), default=0.0)
    scale = (len(_SPARKS) - 1) / most if most else 0.0
    return "".join(" " if value is None else _SPARKS[round(value * scale)] for value in shown)


# --- how it looks ---


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One look. Lists that are too long for the terminal's height are cut, with what was cut."""

    database: str
    clock: str
    status: Status
    history: History

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        width = options.max_width
        head = [_head(self.database, self.clock, width), Text()]
        if not self.status["experiments"]:
            yield from head
            yield from _sentence(status_text(self.status), width)
            return
        middle = [Text(), *self._middle(width)]
        room = options.max_height - len(head) - len(middle)
        experiments = _experiments(self.status, width)
        workers = [_worker(worker, width) for worker in self.status["workers"]]
        for_workers = max(room // 2, room - sum(map(len, experiments))) - 1
        cut_workers = [Text(), *_cut(workers, for_workers)] if workers else []
        yield from head
        yield from _cut(experiments, room - len(cut_workers))
        yield from middle
        yield from cut_workers

    def _middle(self, width: int) -> Iterator[Text]:
        """What is known of all experiments together."""
        total = self.status["total"]
        rate = self.history.items_per_s
        if rate is None:
            rate = self.status["items_per_s"]
        yield from self._courses(rate, width)
        tokens = f"{total['prompt_tokens']:,} in, {total['completion_tokens']:,} out"
        yield from _row("tokens", [(tokens, "")], width)
        if total["cost_usd"]:
            yield from _row("spend", _spend(total["cost_usd"], self.history.usd_per_h), width)
        if rate and (n := _open(total)):
            yield from _row("left", [(f"about {duration(n / rate)}", "")], width)
        if total["reasons"]:
            reasons = ", ".join(f"{reason} {n:,}" for reason, n in total["reasons"].items())
            yield from _sentence(f"failed because of: {reasons}", width, "red")
        if learned := self.status["learned_requests_per_minute"]:
            yield from _sentence(learned_line(learned), width)
        if total["unknown_calls"]:
            yield from _sentence(unknown_line(total), width, "yellow")

    def _courses(self, rate: float, width: int) -> Iterator[Text]:
        """Now, and how it came to that; what happened at one time stands below each other."""
        steps = self.history.steps
        texts = [f"{rate:>6.1f} items/s"]
        p50_s, p95_s = self.status["latency_p50_s"], self.status["latency_p95_s"]
        if p50_s is not None and p95_s is not None:
            texts.append(f"p50 {p50_s:>5.2f} s, p95 {p95_s:>5.2f} s")
        rows: list[tuple[str, str, list[float | None]]] = [
            ("rate", "cyan", [step.items_per_s for step in steps]),
            ("latency", "magenta", [step.latency_s for step in steps]),
        ]
        longest = max(map(len, texts))
        for text, (name, style, values) in zip(texts, rows, strict=False):
            yield from _spark_row(name, text.ljust(longest), values, style, width)


def _head(database: str, clock: str, width: int) -> Text:
    line = Text(database, style="bold")
    line.truncate(max(1, width - len(clock) - 2), overflow="ellipsis")
    return _line(line, Text(" " * (width - line.cell_len - len(clock))), Text(clock, style="dim"))


def _experiments(status: Status, width: int) -> list[list[Text]]:
    """A block of lines each, those that still need work first; above them one for all."""
    rows = sorted(status["experiments"], key=lambda row: not _open(row))
    if len(rows) > 1:
        rows.insert(0, {"name": "all", **status["total"]})
    names = min(max(cell_len(row["name"]) for row in rows), _LONGEST_NAME, width // 3)
    shares = max(len(_share(row)) for row in rows)
    if width - names - shares - 2 < _SHORTEST_BAR:
        shares = len("100%")
    digits = max(len(f"{row['total']:,}") for row in rows)
    return [_experiment(row, names, shares, digits, width) for row in rows]


def _experiment(
    row: dict[str, Any], names: int, shares: int, digits: int, width: int
) -> list[Text]:
    """One line where there is room beside the bar, or the counts below it."""
    cells = [
        (f"{state} {row[state]:>{digits},}", style if row[state] else "dim")
        for state, style in _STYLES.items()
    ]
    name = Text(row["name"], style="bold")
    name.truncate(names, overflow="ellipsis", pad=True)
    share = _share(row)[-shares:].rjust(shares)
    room = width - names - shares - 2
    beside = sum(3 + len(text) for text, _ in cells)
    if room - beside >= _SHORTEST_BAR_BESIDE:
        gaps = [Text(f"   {text}", style) for text, style in cells]
        return [_line(name, Text(" "), _bar(row, room - beside), Text(f" {share}"), *gaps)]
    bar = _bar(row, max(0, room))
    return [_line(name, Text(" "), bar, Text(f" {share}")), *_row("", cells, width, names + 1)]


def _open(counts: dict[str, Any]) -> int:
    return int(counts["pending"] + counts["running"])


def _share(counts: dict[str, Any]) -> str:
    finished, total = counts["done"] + counts["failed"], counts["total"]
    percent = 100 * finished // total if total else 100
    return f"{finished:,}/{total:,} {percent:>3}%"


def _bar(counts: dict[str, Any], width: int) -> Text:
    """Rounded down, as the percentage: it is full only when nothing is left."""
    bar, so_far, drawn = Text(), 0, 0
    total = counts["total"]
    for state, style in _STYLES.items():
        so_far += counts[state]
        until = width * so_far // total if total else width
        bar.append(_BLOCKS[state] * (until - drawn), style)
        drawn = until
    return bar


def _spend(cost_usd: float, usd_per_h: float | None) -> list[Cell]:
    spent: list[Cell] = [(f"${cost_usd:,.4f}", "")]
    return spent if usd_per_h is None else [*spent, (f"${usd_per_h:,.2f} per hour", "")]


def _worker(worker: dict[str, Any], width: int) -> list[Text]:
    """What a worker tells of itself is there only when it has told it."""
    parts = [f"worker {worker['id']}: pid {worker['pid']} on {worker['host']}"]
    in_flight, slots = worker.get("in_flight"), worker["slots"]
    parts.append(f"{slots} slots" if in_flight is None else f"{in_flight}/{slots} in flight")
    if not worker["alive"]:
        parts.append("gone: the next worker takes over its items")
    else:
        parts.append(worker.get("waits_for") or "alive")
    lines = _sentence(", ".join(parts), width, "" if worker["alive"] else "dim")
    for late in worker.get("stragglers") or ():
        text = f"item {late['item']}: under way for {duration(late['for_s'])}"
        lines += [_line(Text(f"  {text}", style="yellow"))]
    return lines


def _cut(blocks: Sequence[list[Text]], room: int) -> Iterator[Text]:
    """As many as fit, and at least one."""
    n = len(blocks)
    if sum(map(len, blocks)) > room:
        n = 1
        while sum(map(len, blocks[: n + 1])) < room:
            n += 1
    for block in blocks[:n]:
        yield from block
    if n < len(blocks):
        yield Text(f"and {len(blocks) - n:,} more", style="dim", no_wrap=True)


def _spark_row(
    name: str, text: str, values: Sequence[float | None], style: str, width: int
) -> Iterator[Text]:
    """The sparkline beside its number, or below it when that leaves too little room."""
    room = width - _LABEL - len(text) - 2
    beside = room >= _SHORTEST_BAR
    line = sparkline(values, room if beside else width - _LABEL)
    if beside:
        yield _line(Text(f"{name:<{_LABEL}}", style="dim"), Text(f"{text}  "), Text(line, style))
        return
    yield from _row(name, [(text.rstrip(), "")], width)
    yield from _row("", [(line, style)], width)


def _row(name: str, cells: list[Cell], width: int, label: int = _LABEL) -> Iterator[Text]:
    """A name in front of cells, which go on below each other when the width asks for it."""
    for line in wrapped(cells, width - label):
        yield _line(Text(f"{name:<{label}}", style="dim"), line)
        name = ""


def _sentence(text: str, width: int, style: str = "") -> list[Text]:
    """Wrapped between words; what is below the first line is indented. A server's words may be in
    it: they do not steer the terminal."""
    text = "".join(char if char.isprintable() else " " for char in text)
    lines = textwrap.wrap(text, max(10, width), subsequent_indent="  ")
    return [_line(Text(line, style)) for line in lines]


def _line(*parts: Text) -> Text:
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


# --- on the terminal ---


async def show(look: Callable[[], Awaitable[Status]], database: str, console: Console) -> int:
    """Draw every look on a screen of its own, until a signal; its exit code. The terminal is then
    as it was."""
    history, stop = History(), Stop()
    with stop_on_signal(stop, announce=lambda: None):
        status = await look()
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while not stop.drain.is_set():
                history.look(time.monotonic(), status)
                clock = f"{datetime.now().astimezone():%H:%M:%S}"
                live.update(Dashboard(database, clock, status, history), refresh=True)
                try:
                    await asyncio.wait_for(stop.drain.wait(), EVERY_S)
                except TimeoutError:
                    status = await look()
    return 128 + (stop.signum or 0)
