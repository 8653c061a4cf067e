"""Statuses as one would see them, and how they look drawn."""

import io
from collections import Counter
from typing import Any

from rich.console import Console, RenderableType

from batchgen.display.history import History, Interval
from batchgen.jobs.experiments import ExperimentSummary
from batchgen.jobs.status import Status, WorkerStatus
from batchgen.store import Counts, Experiment
from batchgen.worker.report import WorkerReport
from tests.kits.terminal import plain

NOON_MS = 1_764_072_000_000


def counts(done: int = 0, failed: int = 0, running: int = 0, pending: int = 0) -> Counts:
    """As of calls that took half a second and a cent each."""
    calls = done + failed
    return Counts(
        pending=pending, running=running, done=done, failed=failed,
        reasons=Counter({"parse": failed} if failed else {}),
        calls=calls, latency_ms=500 * calls, prompt_tokens=20 * calls,
        completion_tokens=100 * calls, cost_usd=calls / 100,
    )  # fmt: skip


def experiment(name: str, standing: Counts) -> ExperimentSummary:
    return ExperimentSummary(Experiment(1, name, NOON_MS), standing)


def worker(number: int = 3, **change: Any) -> WorkerStatus:
    """Of 20 slots; what it reports may be given too."""
    reported = (set(WorkerReport.__struct_fields__) & change.keys()) - {"paused"}
    report: dict[str, Any] = {key: change.pop(key) for key in reported}
    report.setdefault("paused", change.get("paused", False))
    row: dict[str, Any] = {
        "id": number, "host": "box", "pid": 71, "slots": 20, "started_at": NOON_MS, "alive": True,
        "paused": False, "in_flight": 12, "report": WorkerReport(**report),
    }  # fmt: skip
    return WorkerStatus(**row | change)


def status(*experiments: Counts, **change: Any) -> Status:
    """Of experiments e1, e2 ... with these counts."""
    named = [experiment(f"e{number}", one) for number, one in enumerate(experiments, start=1)]
    look: dict[str, Any] = {
        "at_ms": NOON_MS, "experiments": tuple(named), "total": Counts.sum_of(experiments),
        "latency_p50_s": 0.5, "latency_p95_s": 12.5, "workers": (worker(),),
    }  # fmt: skip
    return Status(**look | change)


def watched(*finished: int, every_s: float = 2.0) -> History:
    """A look at each of these, of a thousand items."""
    history = History()
    for number, done in enumerate(finished):
        look = status(counts(done=done, pending=1000 - done))
        history.add(look, 100 + number * every_s)
    return history


def going(interval: Interval, elapsed_s: float, retried: int = 0) -> History:
    """A run that goes like this lately."""
    history = History()
    history.intervals.append(interval)
    history.elapsed_s, history.retried = elapsed_s, retried
    return history


def drawn(drawing: RenderableType, width: int, height: int = 40) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width, height=height, force_terminal=True, no_color=True)
    console.print(drawing)
    return [line.rstrip() for line in plain(file.getvalue()).splitlines()]
