"""`batchgen work --processes P`: what a second process adds.

The server needs a share of a core, so a machine with two cores cannot give two workers a core
each. Nothing is pinned, and beside the speed-up as it is, the figures say what the CPU allows: how
much of it batchgen could have had, and what an item costs with one process and with two.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

from bench.machine import idle_s
from bench.measure import Figure, Options, Spent, Table, interleaved, median
from bench.project import Project, make_project, serving
from bench.throughput import steady_rate

NAME = "processes"
SLOTS = 100
GOAL = 1.8
_CORES_FOR_TWO = 3  # two for the workers, one for the server
_FEW = 200  # items of a run that is mostly start-up


@dataclass(frozen=True)
class Run:
    """`available_cpu_s` is the CPU that this machine could have given to batchgen: all but what the
    server and everybody else took. `started_cpu_s` is what starting so many processes takes."""

    items_per_s: float
    spent: Spent
    items: int
    started_cpu_s: float
    available_cpu_s: float

    @property
    def cpu_ms_per_item(self) -> float:
        return 1000 * (self.spent.cpu_s - self.started_cpu_s) / (self.items - _FEW)

    @property
    def share_used(self) -> float:
        return self.spent.cpu_s / self.available_cpu_s


def run(options: Options) -> Table:
    with serving(cpu=None) as server:
        items, rounds = (4_000, 1) if options.quick else (20_000, 3)
        few = make_project(options.work_dir / "few", server.base_url, _FEW)
        many = make_project(options.work_dir / "many", server.base_url, items)
        if "--processes" not in many.spend("work", "--help").output:
            skipped = "skipped: this `batchgen work` has no --processes"
            return Table("Processes", ("note",), ((skipped,),), (), ())
        for project in (few, many):
            project.database.rename(project.path / "enqueued")
        one, two = interleaved(rounds, *(_worker(few, many, items, p) for p in (1, 2)))
    speed_up = median(r.items_per_s for r in two) / median(r.items_per_s for r in one)
    dearer = median(r.cpu_ms_per_item for r in two) / median(r.cpu_ms_per_item for r in one)
    cores = os.cpu_count() or 1
    met = speed_up >= GOAL if cores >= _CORES_FOR_TWO else None
    return Table(
        title=f"Processes: {items} items, zero latency, c = {SLOTS} each, {rounds} rounds by turns",
        columns=("P", "items/s", "CPU ms per item, without start-up", "cores that batchgen used",
                 "of the CPU it could have had"),
        rows=tuple(
            (str(p), f"{median(r.items_per_s for r in found):.0f}",
             f"{median(r.cpu_ms_per_item for r in found):.3f}",
             f"{median(r.spent.cpu_s / r.spent.wall_s for r in found):.2f}",
             f"{median(r.share_used for r in found):.2f}")
            for p, found in ((1, one), (2, two))
        ),
        figures=(
            Figure("items/s, two processes against one", speed_up, "x", f">= {GOAL:g}", met),
            Figure("CPU per item without start-up, two processes against one", dearer, "x", "",
                   None),
            Figure("what two free cores could give at that cost", 2 / dearer, "x", f">= {GOAL:g}",
                   None),
        ),
        notes=(
            "Nothing is pinned. items/s is the steady state, from the finishing times.",
            f"This machine has {cores} cores for the workers, the server and the rest"
            + ("." if cores >= _CORES_FOR_TWO else ": too few to give two processes a core each, "
               "so the first figure says nothing about the goal; the last one is what the cost of "
               "an item allows. While others want the CPU too, two processes also get twice the "
               "share of one."),
        ),
    )  # fmt: skip


def _worker(few: Project, many: Project, items: int, processes: int) -> Callable[[], Run]:
    def spend(project: Project) -> Spent:
        project.reuse(project.path / "enqueued")
        return project.spend("work", "-c", str(SLOTS), "--processes", str(processes))

    def work() -> Run:
        started = spend(few)
        free_before_s = idle_s()
        spent = spend(many)
        free_s = idle_s() - free_before_s
        times = many.query("select finished_at from results order by finished_at")
        rate = steady_rate([at for (at,) in times], SLOTS * processes)
        return Run(rate, spent, items, started.cpu_s, spent.cpu_s + free_s)

    return work
