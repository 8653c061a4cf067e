"""`batchgen simulate` in a process of its own, for what needs a server with limits, and workers
that ask it for some seconds."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.machine import idle_s
from bench.measure import start
from bench.project import Project, make_project

_LEDGER = "ledger.jsonl"
_LONGEST_START_S = 120


class Ledger(NamedTuple):
    """(second since the first call, what it got) of each call. At `all_there_s` the last worker of
    all sides had joined; from then on `idle_share` of this machine's CPU was free."""

    calls: list[tuple[float, str]]
    all_there_s: float
    idle_share: float


@dataclass(frozen=True)
class Side:
    """A server, and the commands on so many items that ask it, with so many `processes` each."""

    server: tuple[str, ...]
    work: tuple[str, ...]
    items: int
    workers: int = 1
    processes: int = 1


def ledgers_of(path: Path, sides: Sequence[Side], seconds: float) -> list[Ledger]:
    """All at the same time, for so many seconds from when the last worker has joined, and each side
    has made its first call."""
    places = [path / str(number) for number, _ in enumerate(sides)]
    with ExitStack() as stack:
        projects = []
        for place, side in zip(places, sides, strict=True):
            place.mkdir(parents=True)
            url = stack.enter_context(simulating(place, *side.server))
            projects.append(make_project(place, url, side.items, parser="raw"))
        workers = [
            project.start("-q", "work", *side.work)
            for project, side in zip(projects, sides, strict=True)
            for _ in range(side.workers)
        ]
        _wait_for_all(projects, sides)
        all_there_at, idle_before_s = time.time(), idle_s()
        time.sleep(seconds)
        idle_share = (idle_s() - idle_before_s) / (seconds * (os.cpu_count() or 1))
        for worker in workers:
            os.kill(worker.pid, signal.SIGTERM)
        for worker in workers:
            worker.wait(timeout_s=60)
    return [_read(place / _LEDGER, all_there_at, idle_share) for place in places]


def _wait_for_all(projects: Sequence[Project], sides: Sequence[Side]) -> None:
    """Raises RuntimeError when some worker does not join in time."""
    until = time.monotonic() + _LONGEST_START_S
    waiting = list(zip(projects, sides, strict=True))
    while waiting:
        waiting = [
            (project, side)
            for project, side in waiting
            if not (project.path / _LEDGER).stat().st_size
            or project.query("select count(*) from workers")[0][0] < side.workers * side.processes
        ]
        if time.monotonic() > until:
            raise RuntimeError(f"not all workers have joined in {_LONGEST_START_S} s")
        time.sleep(0.1)


@contextmanager
def simulating(place: Path, *options: str) -> Iterator[str]:
    """Its base URL. It writes `ledger.jsonl` in `place`."""
    command = [
        sys.executable, "-m", "batchgen", "simulate", "--port", "0", "--ledger", _LEDGER, *options,
    ]  # fmt: skip
    ours, theirs = os.pipe()
    with os.fdopen(ours) as said, os.fdopen(theirs, "wb") as says:
        running = start(command, cwd=place, stdout=says)
        says.close()
        try:
            yield said.readline().split()[-1]
        finally:
            os.kill(running.pid, signal.SIGKILL)
            running.wait()


def _read(path: Path, all_there_at: float, idle_share: float) -> Ledger:
    with path.open() as lines:
        calls = [json.loads(line) for line in lines]
    first = calls[0]["time"]
    seen = [(call["time"] - first, call["outcome"]) for call in calls]
    return Ledger(seen, all_there_at - first, idle_share)
