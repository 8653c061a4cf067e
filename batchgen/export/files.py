"""A file that appears whole or not at all: written beside its place, made durable, and renamed."""

import fcntl
import glob
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Hashed:
    """A binary file to write to, that knows the hash of what went into it."""

    closed = False  # pyarrow asks

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest, self._size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self._file.write(data)
        self._digest.update(data)
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        self._file.flush()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def is_special(path: Path) -> bool:
    """Whether it is a pipe or a device, which is written to as it is."""
    return path.exists() and not path.is_file()


def sha256_of(path: Path) -> str | None:
    """The hash of the file at `path`; None when there is no file any more."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to. When the block ends, it replaces what is at `path` in one step; when an
    exception ends the block, `path` stays as it was. A new file is for its owner alone."""
    part = path.with_name(f".{path.name}.{os.getpid()}-{time.monotonic_ns()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_orphaned_parts(path)
        with os.fdopen(os.open(part, _NEW_FILE, 0o600), "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            _keep_mode(file, path)
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync_directory(path.parent)
    finally:
        _remove(part)


def copy_beside(path: Path) -> Path | None:
    """A durable copy of the file at `path`, as NAME.changed or, where there is one, NAME.changed-2
    and so on; None: there is nothing in it."""
    if not path.is_file() or not path.stat().st_size:
        return None
    for number in count(1):
        copy = path.with_name(f"{path.name}.changed" + (f"-{number}" if number > 1 else ""))
        try:
            descriptor = os.open(copy, _NEW_FILE, 0o600)
        except FileExistsError:
            continue
        with os.fdopen(descriptor, "wb") as file, path.open("rb") as original:
            _keep_mode(file, path)
            shutil.copyfileobj(original, file)
            file.flush()
            os.fsync(file.fileno())
        _sync_directory(path.parent)
        return copy
    raise AssertionError("count() never ends")


def _remove_orphaned_parts(path: Path) -> None:
    """Remove what exports to `path` left behind when they were killed: nobody has it locked."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        try:
            with part.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink(missing_ok=True)
        except OSError:
            pass  # its writer lives, or it is another user's


def _keep_mode(file: IO[bytes], path: Path) -> None:
    """Give `file` the mode of the file at `path`, if there is one, which it will replace."""
    if path.exists():
        os.fchmod(file.fileno(), path.stat().st_mode)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # making it failed too, and that error is the one to report


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
