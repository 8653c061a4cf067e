"""Which workers live: each holds a lock on a file beside the database."""

import os
from pathlib import Path

from batchgen.clock import now_ms
from batchgen.store.records import WorkerRow
from batchgen.store.sqlite.gate import OwnerLock, machine
from batchgen.store.sqlite.place import lock_file_mode


class Members:
    """Those of the database at this path."""

    def __init__(self, database: Path) -> None:
        self._database = database

    def machine(self) -> tuple[str, str]:
        """(host name, boot id). OS locks say something only among equal boot ids."""
        return machine()

    def is_dead(self, row: WorkerRow, *, leases_count: bool = True) -> bool:
        """Any worker whose lease ran out; of this machine's, those whose lock nobody holds, and
        those from before it was started anew. Where its lock file was removed, its open files
        tell."""
        host, boot_id = machine()
        if leases_count and row.lease_until < now_ms():
            return True
        if row.boot_id != boot_id:
            return row.host == host
        lock = self.lock_of(row.id)
        return not (lock.is_held() or (lock.is_gone() and _is_in_use_by(row.pid, self._database)))

    def lock_of(self, worker_id: int) -> OwnerLock:
        return lock_beside(self._database, f"worker-{worker_id}")


def lock_beside(database: Path, what: str) -> OwnerLock:
    """That of a worker, or of what only one process at a time does."""
    return OwnerLock(database.with_name(f"{database.name}-{what}"), lock_file_mode(database))


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
