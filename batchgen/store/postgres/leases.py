"""What one process at a time may do in a database: enqueue, and parse stored answers again. Which
one does stands in a row, until when by the server's clock; it renews that while it lives.

A process that stopped for longer than its lease finds that another one has taken it: then what it
writes under the lease is refused.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from batchgen.errors import Remedy, StoreError, UsageError
from batchgen.shutdown import uninterrupted
from batchgen.store.postgres.processes import has_ended, this_machine
from batchgen.store.transaction import Transaction

if TYPE_CHECKING:
    from batchgen.store.database import Database

ENQUEUEING = "enqueueing"
REPARSING = "reparsing"
_LEASE_MS = 30_000
_RENEW_S = 5.0


class Lease:
    """Of one thing, in one database. A process may ask for it several times: it is one's own only
    within `held`."""

    def __init__(self, database: "Database", name: str) -> None:
        self._db = database
        self._name = name
        self._number: int | None = None  # none: it is not ours

    async def holder(self) -> str | None:
        """None: it is ours now. Else who has it, for a message."""
        taken = await self._db.write_beside(_take, self._name)
        if isinstance(taken, int):
            self._number = taken
            return None
        return taken

    def check(self, db: Transaction) -> None:
        """In a transaction that is to be done under the lease: nobody takes it before that ends.
        Raises UsageError when it is another's by now."""
        row = {"name": self._name, "number": self._number, "lease_ms": _LEASE_MS}
        if self._number is not None and not db.execute("renew_lease", row).fetchone():
            raise UsageError(
                f"{self._db.name}: this process stood still for so long that another batchgen has "
                f"taken over {self._name}. What it did until then is kept.",
                Remedy.RUN_AGAIN,
            )

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Renewed while inside, given back at the end."""
        renewing = asyncio.create_task(self._keep_renewing(), name=f"lease of {self._name}")
        try:
            yield
        finally:
            renewing.cancel()
            with suppress(asyncio.CancelledError):
                await renewing
            number, self._number = self._number, None
            with suppress(StoreError):  # then it runs out
                await uninterrupted(self._db.write_beside(_give_back, self._name, number))

    async def _keep_renewing(self) -> None:
        """While a pool is read slowly. Whoever writes under it is told what is wrong."""
        with suppress(StoreError, UsageError):
            while True:
                await asyncio.sleep(_RENEW_S)
                await self._db.write_beside(self.check)


def _take(db: Transaction, name: str) -> int | str:
    """The number of the lease, which is ours; or who has it."""
    db.lock("lease", [name])
    host, boot_id = this_machine()
    found = db.execute("lease", {"name": name}).fetchone()
    if found is not None:
        number, other_host, other_boot_id, pid, left_ms = found
        if left_ms > 0 and not has_ended(other_boot_id, pid):
            where = "" if other_boot_id == boot_id else f" on {other_host}"
            return f"pid {pid}{where}"
    mine = number + 1 if found else 1
    row = {
        "name": name, "number": mine, "host": host, "boot_id": boot_id, "pid": os.getpid(),
        "lease_ms": _LEASE_MS,
    }  # fmt: skip
    db.execute("take_lease", row)
    return int(mine)


def _give_back(db: Transaction, name: str, number: int | None) -> None:
    db.execute("give_lease_back", {"name": name, "number": number})
