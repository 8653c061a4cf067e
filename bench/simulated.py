"""`batchgen simulate` in a process of its own, for what needs a server with limits."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.measure import start


@contextmanager
def simulating(place: Path, *options: str) -> Iterator[str]:
    """Its base URL. It writes `ledger.jsonl` in `place`."""
    command = [
        sys.executable, "-m", "batchgen", "simulate", "--port", "0", "--ledger", "ledger.jsonl",
        *options,
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
