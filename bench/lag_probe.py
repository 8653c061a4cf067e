"""batchgen's command line with a watch on its event loop; run by bench/lag.py.

    python -m bench.lag_probe LAGS.json work -c 1000

A task beside the job wants to run every few milliseconds and notes how late it is. While the loop
is held up, every turn it should have had counts, not only the first.
"""

import asyncio
import json
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

EVERY_S = 0.005
_run = asyncio.run


def main() -> None:
    file, *sys.argv[1:] = sys.argv[1:]
    lags: list[tuple[float, float]] = []

    def run(job: Coroutine[Any, Any, int]) -> int:
        return _run(_watched(job, lags))

    setattr(asyncio, "run", run)  # noqa: B010  mypy knows only its own signature

    from batchgen.cli import main

    try:
        main()
    finally:
        Path(file).write_text(json.dumps(lags))


async def _watched(job: Coroutine[Any, Any, int], lags: list[tuple[float, float]]) -> int:
    watching = asyncio.create_task(_watch(lags))
    try:
        return await job
    finally:
        watching.cancel()


async def _watch(lags: list[tuple[float, float]]) -> None:
    """When, by the clock of time.monotonic, and the lag in milliseconds."""
    loop = asyncio.get_running_loop()
    due_s = loop.time() + EVERY_S
    while True:
        await asyncio.sleep(max(0, due_s - loop.time()))
        now_s = loop.time()
        while due_s <= now_s:
            lags.append((round(due_s, 4), round(1000 * (now_s - due_s), 3)))
            due_s += EVERY_S


if __name__ == "__main__":
    main()
