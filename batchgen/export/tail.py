"""A file that is only appended to, by one process at a time: it is locked while it is open, and
proven and cut to its recorded length when it is opened."""

import fcntl
import hashlib
import os
from pathlib import Path
from typing import IO

from batchgen.descriptors import close_in_children

_READ_BYTES = 1 << 20
_MOST_LEFT_BYTES = 1 << 26  # by a crash, between a write and its record
_CLOSED = -1


class Tail:
    """The end of an open file, and the hash of all that stands before it: to append costs no more
    when the file is long. Its methods block, so they are called on a thread."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor
        self._digest = hashlib.sha256()
        self.size_bytes = 0
        close_in_children(self)

    @classmethod
    def open(cls, path: Path) -> "Tail | None":
        """Open the file at `path`, or make it; it is locked while it is open. None: another process
        has it locked."""
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            tail = cls(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            try:
                fcntl.flock(tail._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if tail._is_in_place():
                    return tail
            except BlockingIOError:
                tail.close()
                return None
            except BaseException:
                tail.close()
                raise
            tail.close()  # replaced between our open and our lock

    @classmethod
    def of(cls, path: Path, file: IO[bytes]) -> "Tail":
        """The tail of an open file, empty and locked, that will be renamed to `path`. It stays open
        and locked when `file` is closed."""
        return cls(path, os.dup(file.fileno()))

    def resume(self, size_bytes: int, sha256: str) -> bool:
        """Go on after `size_bytes`, and cut off what comes after them. False, and nothing is cut,
        when the file is shorter or its bytes up to that place are not those of the hash."""
        digest = _digest_of(self._descriptor, size_bytes)
        if digest is None or digest.hexdigest() != sha256:
            return False
        os.ftruncate(self._descriptor, size_bytes)
        os.lseek(self._descriptor, size_bytes, os.SEEK_SET)
        self.size_bytes, self._digest = size_bytes, digest
        return True

    def lines_after(self, size_bytes: int) -> bytes:
        """The whole lines after that place; as many as memory should hold."""
        lines = os.pread(self._descriptor, _MOST_LEFT_BYTES, size_bytes)
        return lines[: lines.rfind(b"\n") + 1]

    def is_whole(self) -> bool:
        """Whether all that was written stands in the file. It reads the whole file."""
        found = _digest_of(self._descriptor, self.size_bytes)
        return found is not None and found.digest() == self._digest.digest()

    def is_as_left(self) -> bool:
        """Whether nobody else has moved, replaced or lengthened the file."""
        return self._is_in_place() and os.fstat(self._descriptor).st_size == self.size_bytes

    def append(self, data: bytes) -> None:
        """Raises OSError; then a part of `data` may be in the file, and `resume` must cut it
        off."""
        left = memoryview(data)
        while left:
            left = left[os.write(self._descriptor, left) :]
        self.size_bytes += len(data)
        self._digest.update(data)

    def sync(self) -> None:
        """Make what was appended durable."""
        os.fsync(self._descriptor)

    @property
    def sha256(self) -> str:
        """The hash of the file, by which `resume` recognizes it."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Close and unlock it. Once more does no harm."""
        if self._descriptor != _CLOSED:
            descriptor, self._descriptor = self._descriptor, _CLOSED
            os.close(descriptor)

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False


def begins_with(path: Path, size_bytes: int, sha256: str) -> bool:
    """Whether the first `size_bytes` of a file are those of the hash."""
    with path.open("rb") as file:
        digest = _digest_of(file.fileno(), size_bytes)
    return digest is not None and digest.hexdigest() == sha256


def _digest_of(descriptor: int, size_bytes: int) -> "hashlib._Hash | None":
    """Of the first bytes; None when there are fewer."""
    digest, at = hashlib.sha256(), 0
    while at < size_bytes:
        read = os.pread(descriptor, min(_READ_BYTES, size_bytes - at), at)
        if not read:
            return None
        digest.update(read)
        at += len(read)
    return digest


def is_locked(path: Path) -> bool:
    """Whether somebody keeps the file at `path` up to date at this moment."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def lock_holder(path: Path) -> str:
    """Who has the file locked: `pid 17`, or `another process` where that cannot be found out."""
    try:
        inode = path.stat().st_ino
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return "another process"
    pids = [
        lock[4]
        for lock in locks
        if lock[1:2] == ["FLOCK"] and lock[5].rpartition(":")[2] == str(inode)
    ]
    return f"pid {pids[0]}" if pids else "another process"
