"""What one process at a time may do in a database: enqueue, parse stored answers again, and send
provider batches. Which one does stands in a row, until when by the server's clock; it renews that
while it lives.

A process that stopped for longer than its lease finds that another one has taken it: then what it
writes under the lease is refused.
"""

import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

from batchgen.errors import Remedy, StoreError, UsageError
from batchgen.shutdown import uninterrupted
from batchgen.store.postgres.processes import has_ended, this_machine
from batchgen.store.transaction import Transaction

ENQUEUEING = "enqueueing"
REPARSING = "reparsing"
SENDING = "sending"
# Nobody waits until others have parsed, and a parser may keep its process from renewing for long.
_LEASE_MS = {ENQUEUEING: 30_000, REPARSING: 600_000, SENDING: 60_000}
_RENEW_S = 5.0


class Writes(Protocol):
    """Of the database, what is needed here."""

    name: str

    async def write_beside(self, transaction: Callable[..., Any], *args: Any) -> Any: ...

    def write_soon(self, transaction: Callable[[Transaction], object]) -> None: ...

    async def write_once(self, transaction: Callable[[Transaction], object]) -> None: ...


class Lease:
    """Of one thing, in one database. A process may ask for it several times: it is one's own only
    within `held`."""

    def __init__(self, database: Writes, name: str) -> None:
        self._db = database
        self._name = name
        self._number: int | None = None  # none: it is not ours

    async def holder(self) -> str | None:
        """None: it is ours now. Else who has it, for a message."""
        taken: int | str = await self._db.write_beside(_take, self._name)
        if isinstance(taken, int):
            self._number = taken
            return None
        return taken

    def check(self, db: Transaction) -> None:
        """In a transaction that is to be done under the lease: nobody takes it before that ends.
        Raises UsageError when it is another's by now."""
        row = {"name": self._name, "number": self._number, "lease_ms": _LEASE_MS[self._name]}
        if self._number is not None and not db.execute("renew_lease", row).fetchone():
            raise UsageError(
                f"{self._db.name}: this process stood still for so long that another batchgen has "
                f"taken over {self._name}. What it did until then is kept.",
                Remedy.RUN_AGAIN,
            )

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Renewed while inside, given back at the end."""
        ends = threading.Event()
        threading.Thread(target=self._keep_renewing, args=[ends], daemon=True).start()
        try:
            yield
        finally:
            ends.set()
            name, number = self._name, self._number
            self._number = None
            with suppress(StoreError):  # then it runs out, as where the connection is lost
                give_back = self._db.write_once(lambda db: _give_back(db, name, number))
                await uninterrupted(give_back)

    def _keep_renewing(self, ends: threading.Event) -> None:
        """On a thread of its own, as a pool that is slow holds up the event loop. Whoever writes
        under the lease is told what is wrong."""
        while not ends.wait(_RENEW_S):
            self._db.write_soon(self.check)


def _take(db: Transaction, name: str) -> int | str:
    """The number of the lease, which is ours; or who has it."""
    db.lock("lease", [name])
    host, boot_id = this_machine()
    found = db.execute("lease", {"name": name}).fetchone()
    if found is not None:
        number, other_host, other_boot_id, pid, left_ms = found
        if left_ms > 0 and not has_ended(other_boot_id, pid):
            return f"pid {pid} on {other_host}"
    mine = number + 1 if found else 1
    row = {
        "name": name, "number": mine, "host": host, "boot_id": boot_id, "pid": os.getpid(),
        "lease_ms": _LEASE_MS[name],
    }  # fmt: skip
    db.execute("take_lease", row)
    return int(mine)


def _give_back(db: Transaction, name: str, number: int | None) -> None:
    db.execute("give_lease_back", {"name": name, "number": number})
