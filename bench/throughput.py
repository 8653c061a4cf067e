"""Items per second at a latency, as a share of what the slots could do: c / L."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass

from bench.measure import Figure, Options, Table, interleaved, keep_raw, median, spend
from bench.project import CLIENT_CPU, ROOT, Project, Server, done, make_project, serving

NAME = "throughput"


@dataclass(frozen=True)
class Load:
    """`waves` times as many items as slots; the latency varies by the share `spread`, up and
    down."""

    slots: int
    latency_s: float
    spread: float
    waves: int
    has_goal: bool = True


# At each a core stays mostly free, so that waiting is all there is to it. With many slots and one
# latency for all, the slots go in step: all answers come at once and wait for one another, with any
# client. That is told too, without a goal.
LOADS = (
    Load(1, 0.5, 0, 16),
    Load(10, 0.5, 0, 16),
    Load(100, 1.0, 0.5, 12),
    Load(1000, 2.0, 0.5, 8),
    Load(100, 1.0, 0, 12, has_goal=False),
)
QUICK_LOADS = (
    Load(1, 0.2, 0, 10),
    Load(10, 0.2, 0, 10),
    Load(100, 0.5, 0.5, 8),
    Load(1000, 1.0, 0.5, 5),
)
GOAL = 0.97


@dataclass(frozen=True)
class Pace:
    """Of one run. `ideal_per_s` goes by how long the server really held a request."""

    items_per_s: float
    ideal_per_s: float
    held_s: float

    @property
    def share(self) -> float:
        return self.items_per_s / self.ideal_per_s


def run(options: Options) -> Table:
    rounds = 1 if options.quick else 2
    rows, figures, raw = [], [], {}
    for number, load in enumerate(QUICK_LOADS if options.quick else LOADS):
        with serving(latency_ms=1000 * load.latency_s, spread=load.spread, urgent=True) as server:
            path = options.work_dir / f"load-{number}"
            project = make_project(path, server.base_url, load.slots * load.waves)
            ours, wire = interleaved(
                rounds,
                _batchgen(project, server, load.slots),
                _wire(project, server, load.slots),
            )
        share = median(pace.share for pace in ours)
        wire_share = median(pace.share for pace in wire)
        rows.append((
            str(load.slots), f"{load.latency_s:g} s ± {100 * load.spread:.0f} %",
            f"{1000 * median(p.held_s for p in ours):.1f} ms",
            f"{median(p.items_per_s for p in ours):.1f}",
            f"{median(p.ideal_per_s for p in ours):.1f}", f"{share:.3f}", f"{wire_share:.3f}",
        ))  # fmt: skip
        if load.has_goal:
            shares = {"batchgen": [p.share for p in ours], "wire": [p.share for p in wire]}
            raw[str(load.slots)] = shares
            what = f"share of c / L, c = {load.slots}"
            met = _met(share, wire_share)
            figures.append(Figure(what, share, "of c / L", f">= {GOAL:g}", met))
    keep_raw(options, raw)
    return Table(
        title=f"Throughput at a latency, {rounds} rounds by turns with the bare wire",
        columns=("c", "L asked", "L held", "items/s", "c / L held", "share", "share of the wire"),
        rows=tuple(rows),
        figures=tuple(figures),
        notes=(
            "With one latency for all, many slots go in step: all answers come at once and wait "
            "for one another, with any client. So with c = 100 and more the goal is for a latency "
            "that varies; the last row shows the other.",
            "The steady state: from the end of the second wave of c answers to the end of the last "
            "but one, so neither start-up nor the tail, when slots have no next item, count.",
            "batchgen: by results.finished_at in its database, when the answer was durable. wire: "
            "when it had read the answer.",
            "Not told (-): a share below the goal that the bare wire did not pass by 1 % either.",
            "L held: from the request's last byte to the answer's first, by the server's clock.",
        ),
    )  # fmt: skip


def _met(share: float, wire_share: float) -> bool | None:
    """Where the bare wire falls short as much, the machine is too busy to tell."""
    if share < GOAL and share > 0.99 * wire_share:
        return None
    return share >= GOAL


def _batchgen(project: Project, server: Server, slots: int) -> Callable[[], Pace]:
    enqueued = project.path / "enqueued"
    project.database.rename(enqueued)

    def work() -> Pace:
        project.reuse(enqueued)
        server.reset()
        project.spend("work", "-c", str(slots), cpu=CLIENT_CPU, urgent=True)
        times = project.query("select finished_at from results order by finished_at")
        return _pace([at for (at,) in times], slots, server)

    return work


def _wire(project: Project, server: Server, slots: int) -> Callable[[], Pace]:
    times = project.path / "times.json"
    command = [
        sys.executable, "-m", "bench.baseline_wire", server.base_url, str(project.pool), str(slots),
        str(times),
    ]  # fmt: skip

    def work() -> Pace:
        server.reset()
        done(spend(command, CLIENT_CPU, cwd=ROOT, urgent=True))
        return _pace(sorted(json.loads(times.read_text())), slots, server)

    return work


def _pace(finished_at: list[int], slots: int, server: Server) -> Pace:
    held = server.stats()
    held_s = held["held_s"] / held["requests"]
    items_per_s = steady_rate(finished_at, slots)
    return Pace(items_per_s, slots / held_s, held_s)


def steady_rate(finished_at: list[int], slots: int) -> float:
    """Items/s between the ends of two waves. `finished_at` is in order, in ms; the answers come in
    waves of `slots`, as all slots begin at once."""
    first, last = 2 * slots - 1, len(finished_at) - slots - 1
    return 1000 * (last - first) / (finished_at[last] - finished_at[first])
