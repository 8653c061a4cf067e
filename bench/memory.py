"""The worker's memory: its peak, and whether it grows with the items."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from bench.measure import Figure, Options, Spent, Table, keep_raw, median, status_mb
from bench.project import CLIENT_CPU, Project, done, make_project, serving

NAME = "memory"
# Slots, latency of the server, and the goal for the peak. All slots have a call under way: what the
# CPU can do is less than what these slots could.
LOADS = ((20, 5, 120), (1000, 500, 200))
GOAL_GROWTH = 1.05
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True)
class Samples:
    at_s: list[float]
    rss_mb: list[float]

    def quarter_mb(self, number: int) -> float:
        """The median of the first, second, third or fourth quarter of the run."""
        part = len(self.rss_mb) / 4
        return median(self.rss_mb[int((number - 1) * part) : int(number * part)])


def run(options: Options) -> Table:
    items = 20_000 if options.quick else 200_000 if options.large else 60_000
    rows, figures, raw = [], [], {}
    for slots, latency_ms, goal_mb in LOADS:
        with serving(latency_ms=latency_ms) as server:
            project = make_project(options.work_dir / f"slots-{slots}", server.base_url, items)
            spent, samples = _work(project, slots)
        raw[str(slots)] = asdict(samples)
        growth = samples.quarter_mb(4) / samples.quarter_mb(2)
        rows.append((
            str(slots), f"{latency_ms} ms", f"{spent.peak_rss_mb:.0f}",
            *(f"{samples.quarter_mb(number):.1f}" for number in (1, 2, 3, 4)),
            f"{items / spent.wall_s:.0f}",
        ))  # fmt: skip
        peak = spent.peak_rss_mb
        figures += [
            Figure(f"peak RSS, c = {slots}", peak, "MB", f"<= {goal_mb}", peak <= goal_mb),
            Figure(f"RSS in the last quarter against the second, c = {slots}", growth, "x",
                   f"<= {GOAL_GROWTH:g}", growth <= GOAL_GROWTH),
        ]  # fmt: skip
    keep_raw(options, raw)
    return Table(
        title=f"Memory of a worker over {items} items",
        columns=("c", "latency", "peak MB", "1st quarter MB", "2nd", "3rd", "4th", "items/s"),
        rows=tuple(rows),
        figures=tuple(figures),
        notes=(
            "Resident memory of the process, looked at ten times a second; the quarters are of the "
            "run's time, and medians. Items of 500 bytes, answers of 1 kB.",
        ),
    )


def _work(project: Project, slots: int) -> tuple[Spent, Samples]:
    running = project.start("work", "-c", str(slots), cpu=CLIENT_CPU)
    samples = watched(lambda: running.ended, lambda: status_mb(running.pid, "VmRSS"))
    return done(running.wait()), samples


def watched(ended: Callable[[], bool], look: Callable[[], float]) -> Samples:
    """What `look` sees, ten times a second until `ended`."""
    start_s = time.monotonic()
    samples = Samples([], [])
    while not ended():
        seen = look()
        if seen:
            samples.at_s.append(time.monotonic() - start_s)
            samples.rss_mb.append(seen)
        time.sleep(_LOOK_EVERY_S)
    return samples
