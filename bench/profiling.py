"""Where the time of `batchgen work` goes, by who caused it, by module and by function."""

import io
import json
import pstats
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from bench.machine import described
from bench.measure import spend
from bench.project import CLIENT_CPU, ROOT, Project, done, make_project, serving

ITEMS, SLOTS = 10_000, 100
_TOP = 40
# What only passes on to others; who caused something is told from what is beyond.
_PLUMBING = ("asyncio", "bench", "runpy", "selectors", "threading", "contextlib", "__main__")


def profile(work_dir: Path, items: int = ITEMS) -> str:
    """The profile of one run, as text; zero latency."""
    with serving() as server:
        project = make_project(work_dir, server.base_url, items)
        enqueued = work_dir / "enqueued"
        project.database.rename(enqueued)
        plain = _work(project, enqueued, [*project.command])
        sampled = _work(project, enqueued, _probe("sample", work_dir / "samples.json"))
        _work(project, enqueued, _probe("trace", work_dir / "trace"))
    samples = json.loads((work_dir / "samples.json").read_text())
    machine = ", ".join(f"{what} {value}" for what, value in described().items())
    parts = [
        f"batchgen work -c {SLOTS}, {items} items of 500 bytes, answers of 1 kB, zero latency.\n"
        f"{machine}\n"
        f"CPU ms per item, start-up included: {1000 * plain / items:.3f} without a profiler, "
        f"{1000 * sampled / items:.3f} with the sampler.",
        *_sampled(samples, 1000 * plain / items),
    ]
    parts += [
        f"Traced by cProfile: {file.stem.partition(' ')[2]}\n\n{_traced(file)}"
        for file in sorted(work_dir.glob("*.pstats"))
    ]
    return "\n\n".join(parts) + "\n"


def _probe(how: str, out: Path) -> list[str]:
    return [sys.executable, "-m", "bench.profile_probe", how, str(out)]


def _work(project: Project, enqueued: Path, command: list[str]) -> float:
    """CPU seconds of answering all."""
    project.reuse(enqueued)
    command = [*command, "work", "-c", str(SLOTS)]
    spent = done(spend(command, CLIENT_CPU, cwd=project.path, env={"PYTHONPATH": str(ROOT)},
                       terminal=True))  # fmt: skip
    return spent.cpu_s


def _sampled(samples: list[Any], ms_per_item: float) -> list[str]:
    total = sum(n for _, _, n in samples)
    by_thread, by_cause, by_module, by_self, inclusive = (Counter[str]() for _ in range(5))
    for thread, stack, n in samples:
        by_thread[thread] += n
        by_module[stack[0][0]] += n
        by_self[_name(stack[0])] += n
        by_cause[_cause(stack)] += n
        for place in {_name(frame) for frame in stack}:
            inclusive[place] += n
    ours = Counter({name: n for name, n in inclusive.items() if name.startswith("batchgen")})
    return [
        _listed("By thread", by_thread, total, ms_per_item),
        _listed("By the innermost function of batchgen, or else who the event loop called",
                by_cause, total, ms_per_item),
        _listed("By module, itself", by_module, total, ms_per_item),
        _listed("By function, itself", by_self, total, ms_per_item),
        _listed("By function, with what it calls", inclusive, total, ms_per_item),
        _listed("batchgen's functions, with what they call", ours, total, ms_per_item),
    ]  # fmt: skip


def _cause(stack: list[list[str]]) -> str:
    """The import system apart, as it is start-up."""
    if any(module.startswith(("importlib", "_frozen")) for module, _ in stack):
        return "(importing)"
    for frame in stack:
        if frame[0].partition(".")[0] == "batchgen":
            return _name(frame)
    for frame in reversed(stack):
        if frame[0].partition(".")[0] not in _PLUMBING:
            return f"{_name(frame)}, called by the event loop"
    return _name(stack[0])


def _name(frame: list[str]) -> str:
    return f"{frame[0]}:{frame[1]}"


def _listed(title: str, counts: Counter[str], total: int, ms_per_item: float) -> str:
    lines = [f"{title}\n", "  share  us per item"]
    for name, n in counts.most_common(_TOP):
        if n / total >= 0.003:
            lines.append(f"{100 * n / total:6.1f}%  {1000 * ms_per_item * n / total:10.1f}  {name}")
    return "\n".join(lines)


def _traced(file: Path) -> str:
    text = io.StringIO()
    stats = pstats.Stats(str(file), stream=text).strip_dirs().sort_stats("tottime")
    stats.print_stats(_TOP)
    return "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines()[2:])
