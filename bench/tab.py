"""What a worker at full speed loses by a tab of `batchgen view` that is open beside it."""

import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from os import kill

from msgspec import Struct

from bench.measure import Figure, Options, Table, cpu_s_of, keep_raw, median
from bench.project import CLIENT_CPU, Project, Server, make_project, serving
from bench.table import fill
from bench.viewer import Viewed, viewed

NAME = "tab"
PAGE = "/e/default"
GOAL = 0.98
TURN_S = 6
EVERY_S = 2  # as the page asks for itself
SLOTS = 100
_SOON_S = 5  # until the worker is at full speed
_MOST_A_SECOND = 6_000
_VERSION = re.compile(rb'data-version="([^"]*)"')


class Turn(Struct, frozen=True):
    """`viewer_cpu_s` is that of the page's process."""

    items: int
    wall_s: float
    cpu_s: float
    viewer_cpu_s: float


def run(options: Options) -> Table:
    turns = 1 if options.quick else 10
    rows = (2 * turns * TURN_S + _SOON_S) * _MOST_A_SECOND
    with serving() as server:
        project = make_project(options.work_dir / "tab", server.base_url, items=1)
        fill(project.database, rows)
        closed, opened = _by_turns(project, server, turns)
    keep_raw(options, {name: [[one.items, one.wall_s, one.cpu_s, one.viewer_cpu_s] for one in of]
                       for name, of in (("closed", closed), ("open", opened))})  # fmt: skip
    speed = median(map(_items_a_second, opened)) / median(map(_items_a_second, closed))
    cpu = median(map(_us_an_item, closed)) / median(map(_us_an_item, opened))
    goal = f">= {GOAL:g}"
    return Table(
        title=f"A tab that is open: {turns} turns of {TURN_S} s each with it and without",
        columns=("tab", "items/s", "CPU us an item", "CPU of the page, ms a second"),
        rows=tuple(
            (name, f"{median(map(_items_a_second, of)):.0f}", f"{median(map(_us_an_item, of)):.1f}",
             f"{1000 * median(one.viewer_cpu_s / one.wall_s for one in of):.1f}")
            for name, of in (("closed", closed), ("open", opened))
        ),
        figures=(
            Figure("items a second with a tab open to without", speed, "x", goal, speed >= GOAL),
            Figure("items a second of CPU with a tab open to without", cpu, "x", goal, cpu >= GOAL),
        ),
        notes=(
            f"One worker, {SLOTS} slots, zero latency, {rows:,} rows. The tab is the page of the "
            f"experiment, which asks for itself every {EVERY_S} s, and for its plots.",
            "What the browser draws is not in it. The page has no core of its own: the worker has "
            "one, the model's server the other.",
        ),
    )  # fmt: skip


def _by_turns(project: Project, server: Server, turns: int) -> tuple[list[Turn], list[Turn]]:
    """Without the tab, and with it, while one worker works."""
    found: tuple[list[Turn], list[Turn]] = ([], [])
    with viewed(project) as viewer:
        worker = project.start("work", "-c", str(SLOTS), cpu=CLIENT_CPU)
        try:
            while server.stats()["requests"] < 1:
                time.sleep(0.1)
            tab = Tab(viewer)
            tab.look()  # what it loads once is no part of it
            time.sleep(_SOON_S)
            for turn in range(2 * turns):
                look = tab.look if turn % 2 else _nothing
                found[turn % 2].append(_turn(worker.pid, viewer.pid, server, look))
            assert not worker.ended, "it has had too few rows"
        finally:
            with suppress(ProcessLookupError):
                kill(worker.pid, signal.SIGINT)
            worker.wait()
    return found


class Tab:
    """Asks as `view.js` and `plots.js` do."""

    def __init__(self, viewer: Viewed) -> None:
        self._viewer, self._seen = viewer, ""

    def look(self) -> None:
        text = self._viewer.ask(PAGE, **{"Batchgen-Seen": self._seen})
        if text:
            version = _VERSION.search(text)
            assert version is not None
            self._seen = version[1].decode()
            self._viewer.ask("/series.json?experiment=default&span=all")


def _nothing() -> None:
    pass


def _turn(worker: int, viewer: int, server: Server, look: Callable[[], None]) -> Turn:
    def state() -> tuple[int, float, float, float]:
        requests = int(server.stats()["requests"])
        return requests, time.monotonic(), cpu_s_of(worker), cpu_s_of(viewer)

    before = state()
    for n in range(TURN_S // EVERY_S):
        time.sleep(max(0.0, before[1] + n * EVERY_S - time.monotonic()))
        look()
    time.sleep(max(0.0, before[1] + TURN_S - time.monotonic()))
    items, wall_s, cpu_s, viewer_cpu_s = (
        one - other for one, other in zip(state(), before, strict=True)
    )
    return Turn(int(items), wall_s, cpu_s, viewer_cpu_s)


def _items_a_second(turn: Turn) -> float:
    return turn.items / turn.wall_s


def _us_an_item(turn: Turn) -> float:
    return 1e6 * turn.cpu_s / turn.items
