"""A sender that is killed at an exact point: `python -m tests.kits.killed_sender DATABASE POINT`.

Two of four rows go into a batch of it."""

import asyncio
import os
import signal
import sys
from typing import Any

from batchgen.clock import now_ms
from batchgen.database_address import from_text
from batchgen.store import WorkerKind, claim_of, open_store
from batchgen.store.transactions.batches import Batches, give_up
from tests.kits.sending import kept_answer, new_batch
from tests.kits.table import claims

POINTS = ("claimed", "sealed", "created", "answered", "giving up", "closed")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(database: str, point: str) -> None:
    async with open_store(from_text(database)) as store, store.sending() as is_alone:
        assert is_alone
        async with store.seat(4, 60.0, 3, kind=WorkerKind.SENDER) as seat:
            items = (await seat.exchange([], claims(4))).items
            await _goes_on(store.batches, seat.id, items, point)


async def _goes_on(group: Batches, sender_id: int, items: list[Any], point: str) -> None:
    for step in POINTS:
        match step:
            case "sealed":
                await group.seal(sender_id, new_batch(), [claim_of(one) for one in items[:2]])
            case "created":
                times = {"created_at": None, "expires_at": None}
                await group.created(1, "batch_1", status="validating", **times)
            case "answered":
                await group.collect(1, [kept_answer(items[0])])
            case "giving up":
                await group._db.write(  # the first of several transactions
                    give_up, 1, "given up", was_sent=True, most=1, now=now_ms()
                )
            case "closed":
                await group.abandon(1)
        if step == point:
            die()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
