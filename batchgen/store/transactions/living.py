"""Which workers there are, and which of them live."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.json import decode
from msgspec.structs import replace

from batchgen.store.records import WorkerKind, WorkerRow
from batchgen.store.transactions.rows import rows_of

if TYPE_CHECKING:
    from batchgen.store.database import Members
    from batchgen.store.transaction import Transaction


def workers(db: "Transaction") -> list[WorkerRow]:
    """Those that joined and did not leave, of all kinds that have a process."""
    return [
        replace(
            row,
            paused=bool(row.paused),
            servers=tuple(decode(str(row.servers))),
            kind=WorkerKind(row.kind),
        )
        for row in rows_of(db, "workers", WorkerRow)
    ]


def told_alive(members: "Members", rows: Sequence[WorkerRow]) -> list[WorkerRow]:
    """The same, told whether they still live."""
    return [replace(row, alive=not members.is_dead(row)) for row in rows]
