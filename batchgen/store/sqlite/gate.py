"""The write gate and the workers' locks: what SQLite itself does not give us between processes.

SQLite before 3.51.3 (3.50.7, 3.44.6) can corrupt a file in WAL mode when a checkpoint in one
process overlaps a commit that resets the WAL in another (sqlite.org/wal.html#walresetbug), and its
busy handler starves some writers for seconds. So every write transaction, and with it every
checkpoint, holds one OS lock on `<database>-gate`: no overlap, and writers take turns. The kernel
drops the lock when its holder dies.

The gate file also counts its turns. By that a writer sees that somebody wrote who took none: a
program that knows nothing of the gate.
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from batchgen.clock import now_ms
from batchgen.descriptors import close_in_children
from batchgen.errors import Remedy, StoreBusyError, StoreError
from batchgen.store.records import WorkerRow
from batchgen.store.sqlite.place import lock_file_mode
from batchgen.store.sqlite.problems import PASSES, system_error

_RETRY_S = (0.0002, 0.002)  # random within: as fair as a queue, and gentler than SQLite's handler
_ONCE_MORE_S = 0.5


class Gate:
    """One writer at a time, among threads and processes."""

    def __init__(self, database: Path, deadline_s: float = 60.0) -> None:
        self._path = database.with_name(database.name + "-gate")
        self._deadline_s = deadline_s
        self._gave_up = False
        self._thread_lock = threading.Lock()
        self._turn: int | None = None
        self.others_had_it = True
        self._mode = lock_file_mode(database)
        self._is_new = not self._path.exists()
        self._file = _open_lock_file(self._path, self._mode)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the gate; blocks its thread, so never call it on an event loop's thread.

        Raises StoreBusyError, which names the holder, after `deadline_s`. Who has waited so long in
        vain waits only a moment the next time, so as to close and be gone. Inside, `others_had_it`
        tells whether anybody else may have held it since the last time.
        """
        with self._thread_lock:
            self._acquire()
            try:
                yield
            finally:
                self._unlock()

    def _unlock(self) -> None:
        """What was committed inside must not look undone because the lock cannot be dropped."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        except OSError:
            self._renew()  # which drops it too

    def _acquire(self) -> None:
        patience_s = min(self._deadline_s, _ONCE_MORE_S) if self._gave_up else self._deadline_s
        give_up_at = time.monotonic() + patience_s
        while not self._try_lock():
            if time.monotonic() > give_up_at:
                self._gave_up = True
                raise StoreBusyError(
                    f"{self._path}: another process has kept the database locked for "
                    f"{self._deadline_s:.0f} s ({_holder(self._path)}). "
                    "Let it finish, continue it if it is stopped (fg), or end it."
                )
            _wait_a_moment()
        self._gave_up = False
        turn = _read_turn(self._file)
        self.others_had_it = turn is None or turn != self._turn
        self._turn = (turn or 0) + 1
        _note_holder(self._file, self._turn)

    def _try_lock(self) -> bool:
        """A file that somebody deleted is locked in vain: others make a new one."""
        if not _try_lock(self._file, self._path):
            return False
        if _is_at(self._path, self._file):
            return True
        self._renew()
        return False

    def _renew(self) -> None:
        """Opened before the old one is closed: where it cannot be, the next try says so again."""
        file = _open_lock_file(self._path, self._mode)
        self._file.close()
        self._file = file

    def close(self) -> None:
        self._file.close()

    def abandon(self) -> None:
        """Close it, as there is no database that it is for; a file that was made for it goes too,
        unless somebody else holds it by now."""
        if self._is_new and _try_lock(self._file, self._path):
            self._path.unlink(missing_ok=True)
        self._file.close()


class OwnerLock:
    """An OS lock on a file of one's own: held while its owner lives, and by nobody after. The file
    is made with `mode`."""

    def __init__(self, path: Path, mode: int = 0o600) -> None:
        self._path = path
        self._mode = mode
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """True when nobody held it and we do now. Never blocks."""
        file = _open_lock_file(self._path, self._mode)
        if not _try_lock(file, self._path):
            file.close()
            return False
        if not _is_at(self._path, file):  # its last owner removed it between our open and our lock
            file.close()
            return self.acquire()
        self._file = file
        _note_holder(file)
        return True

    def is_held(self) -> bool:
        """Whether its owner lives; where the system cannot tell at the moment, it does. Any number
        may ask at once, and none is taken for the owner."""
        try:
            with self._path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        except OSError as exc:
            if exc.errno in PASSES:
                return True
            raise StoreError(f"{self._path}: cannot look at this lock ({exc.strerror}).") from exc
        return False

    def is_gone(self) -> bool:
        """Whether its file is not there: its owner removes it as it leaves."""
        return not self._path.exists()

    def holder(self) -> str:
        return _holder(self._path)

    def release(self, *, keep_file: bool = False) -> None:
        """Give it up and remove the file, if it is still there. Harmless when not held."""
        if self._file is not None:
            if not keep_file and _is_at(self._path, self._file):
                self.remove()
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Remove the file, of which nobody has need any more; one that stays does no harm."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def _wait_a_moment() -> None:
    import random  # here: who need not wait, as nearly always, need not load it

    time.sleep(random.uniform(*_RETRY_S))


def _open_lock_file(path: Path, mode: int) -> IO[bytes]:
    try:
        file = _made_or_opened(path, mode)
    except OSError as exc:
        raise StoreError(
            f"{path}: cannot make this lock file ({exc.strerror}). "
            "batchgen needs to write in the directory of the database.",
            Remedy.NAME_DATABASE,
        ) from exc
    close_in_children(file)
    return file


def _made_or_opened(path: Path, mode: int) -> IO[bytes]:
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        os.fchmod(file, mode)  # whatever the umask is
    except FileExistsError:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    return os.fdopen(file, "r+b", buffering=0)


def _try_lock(file: IO[bytes], path: Path) -> bool:
    """Raises StoreError when the system has no lock to give (ENOLCK), or the disk fails."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as exc:
        raise system_error(exc, path) from exc
    return True


def _is_at(path: Path, file: IO[bytes]) -> bool:
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _note_holder(file: IO[bytes], turn: int = 0) -> None:
    try:
        os.pwrite(file.fileno(), f"pid {os.getpid():<10} turn {turn:<20}\n".encode(), 0)
    except OSError:
        pass  # a full disk: the lock holds without it, only a message will know less


def _read_turn(file: IO[bytes]) -> int | None:
    """None: it was never noted, or not in full."""
    try:
        words = os.pread(file.fileno(), 64, 0).split()
    except OSError:
        return None
    return int(words[3]) if len(words) == 4 and words[3].isdigit() else None


def _holder(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[:14].strip() or "holder unknown"
    except OSError:
        return "holder unknown"


def machine() -> tuple[str, str]:
    """(host name, boot id). OS locks say something only among equal boot ids."""
    host = os.uname().nodename
    try:
        return host, Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return host, host


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
