"""`batchgen status --watch` on a terminal: what `status` says, drawn, with the last minutes of it.

`Dashboard` is one look as it is drawn, for a terminal of any size: nothing in it asks the clock or
the database. `show_dashboard` looks and draws, until a signal.
"""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime

from msgspec import Struct
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.live import Live
from rich.text import Text

from batchgen.display.batch_words import unfinished_line
from batchgen.display.commands import Commands
from batchgen.display.drawing import (
    SHORTEST_BAR,
    STYLES,
    Cell,
    bar,
    line,
    sentence,
    share,
    sparkline,
    wrapped,
)
from batchgen.display.held import left_s, worker_held_back
from batchgen.display.history import History, Look
from batchgen.display.status import (
    SENDS_BATCHES,
    gone_text,
    latency_text,
    learned_line,
    moved_line,
    rate_unit,
    reasons_text,
    server_lines,
    status_text,
    unknown_line,
)
from batchgen.display.steps import stale_lines
from batchgen.display.times import duration
from batchgen.display.visible import visible_line
from batchgen.jobs.experiments import ExperimentSummary
from batchgen.jobs.status import Status, WorkerStatus
from batchgen.shutdown import Stop, stop_on_signal
from batchgen.store import Counts

EVERY_S = 2.0
_LABEL = 9
_LONGEST_NAME = 24
_SHORTEST_BAR_BESIDE = 30  # with the counts on the same line


def screen() -> Console | None:
    """What a dashboard can be drawn on, if stdout is that."""
    console = Console()
    drawable = console.is_terminal and not console.is_dumb_terminal
    return console if drawable and not console.options.ascii_only else None


async def show_dashboard(look: Look, database: str, console: Console, commands: Commands) -> int:
    """Draw every look on a screen of its own, until a signal; its exit code. The terminal is then
    as it was."""
    history, stop = History(), Stop()
    with stop_on_signal(stop, announce=lambda: None):
        status = await history.observe(look)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while not stop.drain.is_set():
                clock = f"{datetime.now().astimezone():%H:%M:%S}"
                live.update(Dashboard(database, clock, status, history, commands), refresh=True)
                try:
                    await asyncio.wait_for(stop.drain.wait(), EVERY_S)
                except TimeoutError:
                    status = await history.observe(look)
    return 128 + (stop.signum or 0)


class Dashboard(Struct, frozen=True):
    """One look. Lists that are too long for the terminal's height are cut, with what was cut."""

    database: str
    clock: str
    status: Status
    history: History
    commands: Commands

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        width = options.max_width
        head = [_head(self.database, self.clock, width), Text()]
        if not self.status.experiments:
            yield from head
            yield from sentence(status_text(self.status, self.commands), width)
            return
        middle = [Text(), *self._middle(width)]
        room = options.max_height - len(head) - len(middle)
        experiments = _experiments(self.status, width)
        workers = [sentence(text, width) for text in server_lines(self.status)]
        workers += [self._worker(worker, width) for worker in self.status.workers]
        for_workers = max(room // 2, room - sum(map(len, experiments))) - 1
        cut_workers = [Text(), *_cut(workers, for_workers)] if workers else []
        yield from head
        yield from _cut(experiments, room - len(cut_workers))
        yield from middle
        yield from cut_workers

    def _middle(self, width: int) -> Iterator[Text]:
        """What is known of all experiments together."""
        total, recent = self.status.total, self.history.recent
        if self.status.moved_to:
            yield from sentence(moved_line(self.status.moved_to), width, "yellow")
        rate = recent.items_per_s if recent else self.status.items_per_s
        yield from self._rate_and_latency(rate, width)
        tokens = f"{total.prompt_tokens:,} in, {total.completion_tokens:,} out"
        yield from _row("tokens", [(tokens, "")], width)
        if total.cost_usd:
            spent = [(f"${total.cost_usd:,.4f}", "")]
            spent += [(f"${recent.usd_per_h:,.2f} per hour", "")] if recent else []
            yield from _row("spend", spent, width)
        remaining_s = left_s(self.status, rate)
        if remaining_s:
            yield from _row("left", [(f"about {duration(remaining_s)}", "")], width)
        if total.reasons:
            yield from sentence(f"failed because of: {reasons_text(total)}", width, "red")
        if self.status.learned_rpm:
            yield from sentence(learned_line(self.status.learned_rpm), width)
        for text in stale_lines(self.status, self.commands):
            yield from sentence(text, width, "yellow")
        if self.status.unknown.calls:
            yield from sentence(unknown_line(self.status.unknown), width, "yellow")
        if self.status.batches:
            yield from sentence(unfinished_line(self.status.batches, self.status.at_ms), width)

    def _rate_and_latency(self, rate: float, width: int) -> Iterator[Text]:
        """Now, and how it came to that; what happened at one time stands below each other."""
        intervals = self.history.intervals
        texts = [f"{rate:>6.1f} {rate_unit(self.status)}"]
        if latency := latency_text(self.status, width=5):
            texts.append(latency)
        rows: list[tuple[str, str, list[float | None]]] = [
            ("rate", "cyan", [one.items_per_s for one in intervals]),
            ("latency", "magenta", [one.latency_s for one in intervals]),
        ]
        longest = max(map(len, texts))
        for text, (name, style, values) in zip(texts, rows, strict=False):
            yield from _spark_row(name, text.ljust(longest), values, style, width)

    def _worker(self, worker: WorkerStatus, width: int) -> list[Text]:
        does = f"{worker.slots} slots"
        if worker.sends_batches:
            does = SENDS_BATCHES
        elif worker.alive:
            does = f"{worker.in_flight}/{worker.slots} in flight"
        state = gone_text(worker)
        if worker.alive:
            state = worker_held_back(worker, self.status.at_ms, self.commands) or "alive"
        text = f"worker {worker.id}: pid {worker.pid} on {worker.host}, {does}, {state}"
        lines = sentence(text, width, "" if worker.alive else "dim")
        for late in worker.report.stragglers if worker.alive else ():
            for_s = (self.status.at_ms - late.began_at) / 1000
            text = f"  item {late.item_id}: under way for {duration(for_s)}"
            lines.append(line(Text(text, style="yellow")))
        return lines


def _head(database: str, clock: str, width: int) -> Text:
    name = Text(visible_line(database), style="bold")
    name.truncate(max(1, width - len(clock) - 2), overflow="ellipsis")
    return line(name, Text(" " * (width - name.cell_len - len(clock))), Text(clock, style="dim"))


def _experiments(status: Status, width: int) -> list[list[Text]]:
    """A block of lines each, those that still need work first; above them one for all."""
    blocks = [_rows_of(one) for one in status.experiments]
    blocks.sort(key=lambda block: not block[0][1].open)
    rows = [row for block in blocks for row in block]
    if len(rows) > 1:
        rows.insert(0, ("all", status.total))
    names = min(max(cell_len(name) for name, _ in rows), _LONGEST_NAME, width // 3)
    shares = max(len(share(counts)) for _, counts in rows)
    if width - names - shares - 2 < SHORTEST_BAR:
        shares = len("100%")
    digits = max(len(f"{counts.total:,}") for _, counts in rows)
    return [_experiment(name, counts, names, shares, digits, width) for name, counts in rows]


def _rows_of(summary: ExperimentSummary) -> list[tuple[str, Counts]]:
    """An experiment, and below it its steps."""
    steps = summary.steps if len(summary.steps) > 1 else ()
    return [(summary.name, summary.counts), *((f"  {one.name}", one.counts) for one in steps)]


def _experiment(
    name: str, counts: Counts, names: int, shares: int, digits: int, width: int
) -> list[Text]:
    """One line where there is room beside the bar, or the counts below it."""
    numbers = [(state, getattr(counts, state), style) for state, style in STYLES.items()]
    cells = [(f"{state} {n:>{digits},}", style if n else "dim") for state, n, style in numbers]
    title = Text(visible_line(name), style="bold")
    title.truncate(names, overflow="ellipsis", pad=True)
    right = Text(f" {share(counts)[-shares:].rjust(shares)}")
    room = width - names - shares - 2
    beside = sum(3 + len(text) for text, _ in cells)
    if room - beside >= _SHORTEST_BAR_BESIDE:
        gaps = [Text(f"   {text}", style) for text, style in cells]
        return [line(title, Text(" "), bar(counts, room - beside), right, *gaps)]
    head = line(title, Text(" "), bar(counts, max(0, room)), right)
    return [head, *_row("", cells, width, names + 1)]


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
    beside = room >= SHORTEST_BAR
    sparks = Text(sparkline(values, room if beside else width - _LABEL), style)
    if beside:
        yield line(Text(f"{name:<{_LABEL}}", style="dim"), Text(f"{text}  "), sparks)
        return
    yield from _row(name, [(text.rstrip(), "")], width)
    yield line(Text(" " * _LABEL), sparks)


def _row(name: str, cells: Sequence[Cell], width: int, label: int = _LABEL) -> Iterator[Text]:
    """A name in front of cells, which go on below each other when the width asks for it."""
    for part in wrapped(cells, width - label):
        yield line(Text(f"{name:<{label}}", style="dim"), part)
        name = ""
