"""What SQLite or the system says is wrong, as an error of ours: one line that says what to do."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchgen.errors import (
    MovedError,
    Remedy,
    SchemaError,
    StoreBusyError,
    StoreError,
    StoreFullError,
    StoreRefusedError,
)

# What the system may have again in a moment.
PASSES = frozenset(
    {errno.EAGAIN, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ENOLCK, errno.ENOMEM}
)
_LITTLE_ROOM_BYTES = 1 << 20


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Inside, what SQLite and the system raise becomes an error of ours."""
    try:
        yield
    except sqlite3.Error as exc:
        raise store_error(exc, path) from exc
    except OSError as exc:  # of the gate, or of the file itself
        raise system_error(exc, path) from exc


def store_error(exc: sqlite3.Error, path: Path) -> StoreError:
    """What SQLite said, as one line that says what to do."""
    text = str(exc)
    if moved := _moved(text, path):
        return moved
    if isinstance(exc, (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError)):
        return StoreRefusedError(f"{path}: {text}")
    if "disk is full" in text or "disk I/O error" in text:
        return _disk_error(text, path)
    if "locked" in text or "busy" in text:
        return StoreBusyError(
            f"{path}: locked by another program that is not batchgen ({text}). "
            "Close it (a SQL shell with an open transaction?).",
            Remedy.RUN_AGAIN,
        )
    if "readonly" in text or "unable to open" in text:
        if problem := _no_file_can_be_opened():
            return system_error(problem, path)
        refused = _unwritable(path)
        return StoreError(f"{refused}: cannot write to it ({text}). Check its permissions.")
    if "malformed" in text or "not a database" in text or "encrypted" in text:
        return SchemaError(f"{path}: damaged, or not a database ({text}).")
    return StoreError(f"{path}: {text}")


def _moved(text: str, path: Path) -> MovedError | None:
    from batchgen.store.tables import moved_error  # here: hardly anybody needs it

    return moved_error(str(path), text)


def system_error(exc: OSError, path: Path) -> StoreError:
    """What the system said, beside SQLite, in the same way."""
    text = exc.strerror or str(exc)
    if exc.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
        return _disk_error(text, path)
    if exc.errno in PASSES:
        return StoreBusyError(
            f"{path}: the system is short of something ({text}).", Remedy.RUN_AGAIN
        )
    return StoreError(f"{path}: {text}")


def _disk_error(text: str, path: Path) -> StoreFullError:
    """SQLite calls a full disk an I/O error, too, where it makes room for its shared memory."""
    if "full" in text or _has_no_room(path):
        return StoreFullError(
            f"{path}: {text}. Everything committed is safe; make room.", Remedy.RUN_AGAIN
        )
    return StoreFullError(
        f"{path}: {text}: the disk fails, or a quota is used up. Look into the system's log "
        "(dmesg), and keep a copy of the file on another disk.",
        Remedy.RUN_AGAIN,
    )


def _has_no_room(path: Path) -> bool:
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _LITTLE_ROOM_BYTES


def _unwritable(path: Path) -> Path:
    """What of the database may not be written to; SQLite does not say."""
    log, memory = (path.with_name(f"{path.name}-{name}") for name in ("wal", "shm"))
    found = (one for one in (path, path.parent, log, memory) if one.exists())
    return next((one for one in found if not os.access(one, os.W_OK)), path)


def _no_file_can_be_opened() -> OSError | None:
    """Why no file at all can be opened: SQLite does not say that there are too many."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as exc:
        return exc
    return None
