"""Which workers there are, and which of them live."""

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from msgspec.json import decode
from msgspec.structs import replace

from batchgen.clock import now_ms
from batchgen.store.records import WorkerRow
from batchgen.store.sqlite.gate import OwnerLock, machine
from batchgen.store.sqlite.place import lock_file_mode
from batchgen.store.sqlite.rows import rows_of
from batchgen.store.sqlite.sql import QUERIES


def workers(db: sqlite3.Connection) -> list[WorkerRow]:
    """Those that joined and did not leave."""
    rows = list(rows_of(db, "workers", WorkerRow))
    return [
        replace(
            row, paused=bool(row.paused), calls=_count_calls(db, row.id),
            servers=tuple(decode(str(row.servers))),
        )
        for row in rows
    ]  # fmt: skip


def _count_calls(db: sqlite3.Connection, worker_id: int) -> int:
    (n,) = db.execute(QUERIES["count_calls"], {"worker_id": worker_id}).fetchone()
    return int(n)


def told_alive(database: Path, rows: Sequence[WorkerRow]) -> list[WorkerRow]:
    """The same, told whether they still live."""
    return [replace(row, alive=not is_dead(database, row)) for row in rows]


def is_dead(database: Path, row: WorkerRow, *, leases_count: bool = True) -> bool:
    """Any worker whose lease ran out; of this machine's, those whose lock nobody holds, and those
    from before it was started anew. Where its lock file was removed, its open files tell."""
    host, boot_id = machine()
    if leases_count and row.lease_until < now_ms():
        return True
    if row.boot_id != boot_id:
        return row.host == host
    lock = owner_lock(database, row.id)
    return not (lock.is_held() or (lock.is_gone() and _is_in_use_by(row.pid, database)))


def _is_in_use_by(pid: int, database: Path) -> bool:
    """Whether another process has the file open, as far as the system tells (Linux)."""
    if pid == os.getpid():
        return False
    try:
        return any(_is_open_as(one, database) for one in Path(f"/proc/{pid}/fd").iterdir())
    except PermissionError:  # another user's
        return True
    except OSError:
        return False


def _is_open_as(descriptor: Path, database: Path) -> bool:
    try:
        return descriptor.samefile(database)
    except OSError:  # closed meanwhile
        return False


def owner_lock(database: Path, worker_id: int) -> OwnerLock:
    path = database.with_name(f"{database.name}-worker-{worker_id}")
    return OwnerLock(path, lock_file_mode(database))
