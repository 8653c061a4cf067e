"""A file that is only appended to, by one process at a time: it is locked while it is open, and cut
to its recorded length when it is opened."""

import fcntl
import hashlib
import os
from pathlib import Path
from typing import IO

_TAIL_BYTES = 4096


class Tail:
    """The end of an open file. Its methods block, so they are called on a thread."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor
        self._last = b""
        self.size_bytes = 0

    @classmethod
    def open(cls, path: Path) -> "Tail | None":
        """Open the file at `path`, or make it; it is locked while it is open. None: another process
        has it locked."""
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            tail = cls(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
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
        when the file is shorter or other bytes stand before that place."""
        last = os.pread(self._descriptor, min(size_bytes, _TAIL_BYTES),
                        max(0, size_bytes - _TAIL_BYTES))  # fmt: skip
        whole = os.fstat(self._descriptor).st_size >= size_bytes
        if not whole or hashlib.sha256(last).hexdigest() != sha256:
            return False
        os.ftruncate(self._descriptor, size_bytes)
        os.lseek(self._descriptor, size_bytes, os.SEEK_SET)
        self.size_bytes, self._last = size_bytes, last
        return True

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
        self._last = (self._last + data)[-_TAIL_BYTES:]

    def sync(self) -> None:
        """Make what was appended durable."""
        os.fsync(self._descriptor)

    @property
    def sha256(self) -> str:
        """The hash of the last bytes, by which `resume` recognizes the file."""
        return hashlib.sha256(self._last).hexdigest()

    def close(self) -> None:
        os.close(self._descriptor)

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False


def is_tail_of(path: Path, size_bytes: int, sha256: str) -> bool:
    """Whether the first `size_bytes` of a file end as recorded."""
    with path.open("rb") as file:
        file.seek(max(0, size_bytes - _TAIL_BYTES))
        last = file.read(min(size_bytes, _TAIL_BYTES))
    return path.stat().st_size >= size_bytes and hashlib.sha256(last).hexdigest() == sha256


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
