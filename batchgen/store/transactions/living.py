"""Which workers there are, and which of them live."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.json import decode
from msgspec.structs import replace

from batchgen.store.records import WorkerRow
from batchgen.store.transactions.rows import rows_of

if TYPE_CHECKING:
    from batchgen.store.database import Members
    from batchgen.store.transaction import Transaction


def workers(db: "Transaction") -> list[WorkerRow]:
    """Those that joined and did not leave."""
    rows = list(rows_of(db, "workers", WorkerRow))
    return [
        replace(
            row, paused=bool(row.paused), calls=_count_calls(db, row.id),
            servers=tuple(decode(str(row.servers))),
        )
        for row in rows
    ]  # fmt: skip


def _count_calls(db: "Transaction", worker_id: int) -> int:
    (n,) = db.execute("count_calls", {"worker_id": worker_id}).fetchone()
    return int(n)


def told_alive(members: "Members", rows: Sequence[WorkerRow]) -> list[WorkerRow]:
    """The same, told whether they still live."""
    return [replace(row, alive=not members.is_dead(row)) for row in rows]
