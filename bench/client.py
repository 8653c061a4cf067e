"""CPU of `batchgen work` per item, against the plain loop and against the bare wire."""

import sys
from collections.abc import Callable
from pathlib import Path

from bench.measure import Figure, Options, Spent, Table, interleaved, keep_raw, median, spend
from bench.project import CLIENT_CPU, ROOT, Project, Server, done, make_project, serving, set_server

NAME = "client"
SLOTS = 100
LATENCIES_MS = (0, 50)
CONTESTANTS = ("batchgen", "wire", "loop")
# By latency in ms. Against the wire it is for an item of a long run, without the start.
GOALS = {"wire": {0: 1.6, 50: 2.0}, "loop": {0: 0.2, 50: 0.2}}


def run(options: Options) -> Table:
    items, rounds = (1000, 1) if options.quick else (4000, 5)
    return compare(options, items, rounds)


def compare(options: Options, items: int, rounds: int) -> Table:
    """Each contestant `rounds` times at each latency, by turns."""
    work_dir = options.work_dir
    raw = {}
    rows: list[tuple[str, ...]] = []
    figures: list[Figure] = []
    for latency_ms in LATENCIES_MS:
        with serving(latency_ms=latency_ms) as server:
            few = _contestants(work_dir / f"few-{latency_ms}", server, SLOTS)
            many = _contestants(work_dir / f"many-{latency_ms}", server, items)
            spent = interleaved(rounds, *few, *many)
        starts, works = spent[: len(few)], spent[len(few) :]
        whole, bare = _ms_per_item(items, starts, works)
        for index, name in enumerate(CONTESTANTS):
            wall_s = median(one.wall_s for one in works[index])
            rows.append((
                f"{latency_ms} ms", name,
                f"{median(whole[index]):.3f}", f"{median(bare[index]):.3f}",
                f"{items / wall_s:.0f}", f"{median(s.peak_rss_mb for s in works[index]):.0f}",
            ))  # fmt: skip
        figures += _figures(latency_ms, whole, bare)
        raw[str(latency_ms)] = dict(zip(CONTESTANTS, whole, strict=True))
    keep_raw(options, raw)
    return Table(
        title=f"Client: CPU per item, {items} items, c = {SLOTS}, {rounds} rounds by turns",
        columns=("latency", "who", "CPU ms per item", "the same without start-up",
                 "items/s, start-up included", "peak RSS MB"),
        rows=tuple(rows),
        figures=tuple(figures),
        notes=(
            "Items of 500 bytes, answers of 1 kB; each contestant a process of its own, on one "
            "core, the server on the other; CPU is what wait4 tells of the whole process.",
            "batchgen runs with all on: live display on a terminal, log, parser tag:draft, durable "
            "commits. wire and loop keep the answers in a list and store nothing.",
            f"Without start-up: the same less a run of {SLOTS} items, of the same round.",
        ),
    )  # fmt: skip


def _contestants(path: Path, server: Server, items: int) -> list[Callable[[], Spent]]:
    project = make_project(path, server.base_url, items)
    set_server(project, server.base_url)
    enqueued = project.path / "enqueued"
    project.database.rename(enqueued)

    def batchgen() -> Spent:
        project.reuse(enqueued)
        spent = project.spend("work", "-c", str(SLOTS), cpu=CLIENT_CPU, terminal=True)
        assert _answered(project) == items
        return spent

    def baseline(name: str) -> Callable[[], Spent]:
        command = [sys.executable, "-m", f"bench.baseline_{name}", server.base_url]
        rest = [str(project.pool), str(SLOTS)]
        return lambda: done(spend([*command, *rest], CLIENT_CPU, cwd=ROOT))

    return [batchgen, *(baseline(name) for name in CONTESTANTS[1:])]


def _answered(project: Project) -> int:
    return int(project.query("select count(*) from work where state = 'done'")[0][0])


def _ms_per_item(
    items: int, starts: list[list[Spent]], works: list[list[Spent]]
) -> tuple[list[list[float]], list[list[float]]]:
    """By contestant and round: of the whole process, and without its start-up."""
    whole = [[1000 * one.cpu_s / items for one in rounds] for rounds in works]
    bare = [
        [1000 * (one.cpu_s - start.cpu_s) / (items - SLOTS)
         for one, start in zip(work, few, strict=True)]
        for work, few in zip(works, starts, strict=True)
    ]  # fmt: skip
    return whole, bare


def _figures(
    latency_ms: int, whole: list[list[float]], bare: list[list[float]]
) -> tuple[Figure, ...]:
    """Ratios of medians; of the whole process, and without its start, where a long run tends to."""
    found = []
    for what, ms in (("CPU per item", whole), ("CPU per item without start-up", bare)):
        for name, found_ms in zip(CONTESTANTS[1:], ms[1:], strict=True):
            ratio, goal = median(ms[0]) / median(found_ms), GOALS[name][latency_ms]
            found.append(Figure(
                f"{what} against {name}, latency {latency_ms} ms",
                ratio, "x", f"<= {goal:g}", ratio <= goal,
            ))  # fmt: skip
    return tuple(found)
