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

from bench.measure import start
from bench.project import make_project

_LEDGER = "ledger.jsonl"

Ledger = list[tuple[float, str]]
"""(second since the first call, what it got) of each call."""


@dataclass(frozen=True)
class Side:
    """A server, and the workers on so many items that ask it."""

    server: tuple[str, ...]
    work: tuple[str, ...]
    items: int
    workers: int = 1


def ledgers_of(path: Path, sides: Sequence[Side], seconds: float) -> list[Ledger]:
    """All at the same time, for so many seconds from the last one's first call on."""
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
        while not all((place / _LEDGER).stat().st_size for place in places):
            time.sleep(0.1)
        time.sleep(seconds)
        for worker in workers:
            os.kill(worker.pid, signal.SIGTERM)
        for worker in workers:
            worker.wait(timeout_s=60)
    return [_read(place / _LEDGER) for place in places]


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


def _read(path: Path) -> Ledger:
    with path.open() as lines:
        calls = [json.loads(line) for line in lines]
    return [(call["time"] - calls[0]["time"], call["outcome"]) for call in calls]
