"""How many calls at once servers take, of all workers together: what the workers have found, from
their reports, for those that begin later."""

from collections.abc import Sequence
from math import ceil

from batchgen.store.records import WorkerRow
from batchgen.store.server_wants import AskedServer
from batchgen.store.transaction import Transaction

_BELIEVED_MS = 24 * 3_600_000


def note_capacities(db: Transaction, report: str, now: int) -> None:
    """Of the servers of which a report that is written now tells."""
    db.execute("note_capacities", {"report": report, "now": now})


def fair_shares(
    db: Transaction, asked: Sequence[AskedServer], alive: Sequence[WorkerRow], now: int
) -> dict[str, int]:
    """How many calls at once each of these servers takes of one more worker, besides those that
    are `alive`; nothing of one of which nothing is known, or for too long."""
    shares = {}
    for one in asked:
        row = {"key": one.key, "since": now - _BELIEVED_MS}
        if (found := db.execute("capacity", row).fetchone()) is not None:
            workers = 1 + sum(one.key in row.servers for row in alive)
            shares[one.key] = ceil(found[0] / workers)
    return shares
