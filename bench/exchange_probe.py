"""One worker that exchanges items with a work table for a while, without any calls.

    python -m bench.exchange_probe DATABASE BATCH SECONDS [--rpm N]

It says "ready" when it has joined, begins when it gets a line, and prints what it took as JSON:
items, seconds, CPU seconds, and the times of its exchanges in milliseconds, sorted.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence

from batchgen.database_address import from_text
from batchgen.items import Done, Item, Outcome
from batchgen.limits import Limits
from batchgen.store import ClaimRequest, ServerWant, open_store
from bench.table import answered

_WARM_UP = 5


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("database")
    parser.add_argument("batch", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--rpm", type=int)
    parser.add_argument("--claims", action="store_true", help="only claims, nothing is finished")
    given = parser.parse_args()
    limits = Limits(rpm=given.rpm) if given.rpm else Limits()
    want = ClaimRequest((ServerWant("s" if given.rpm else "", given.batch, limits),), (1,))
    async with (
        open_store(from_text(given.database)) as store,
        store.seat(slots=given.batch, lease_s=60, max_crashes=5) as worker,
    ):
        items: Sequence[Item] = ()
        for _ in range(_WARM_UP):
            items = (await worker.exchange(_outcomes(items), want)).items
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        times, n = [], 0
        began_s, cpu_from_s = time.perf_counter(), time.process_time()
        while (from_s := time.perf_counter()) < began_s + given.seconds:
            outcomes = [] if given.claims else _outcomes(items)
            items = (await worker.exchange(outcomes, want)).items
            times.append(1000 * (time.perf_counter() - from_s))
            n += len(items)
            if not items and not given.rpm:
                raise RuntimeError("the table is too small")
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_from_s
        if not given.claims:
            await worker.exchange(_outcomes(items), want)
    print(json.dumps({"items": n, "wall_s": wall_s, "cpu_s": cpu_s, "ms": sorted(times)}))


def _outcomes(items: Sequence[Item]) -> list[Outcome]:
    attempt = answered()
    return [Outcome(item, (attempt,), Done(None)) for item in items]


if __name__ == "__main__":
    asyncio.run(main())
