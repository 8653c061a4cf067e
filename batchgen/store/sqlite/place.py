"""Where a database may be: a file of one name, on a disk of this machine.

SQLite keeps its log beside the file and by the file's name, and we our gate. So a second name for
the same file (a hard link, a mount of the file alone, a new name while it is in use) would have a
log and a gate of its own, and the two would destroy each other's work. Of links the target's name
counts; other second names are refused by what is tied to the file itself.
"""

import fcntl
import os
import re
import stat
import struct
import threading
from binascii import crc32  # not of zlib: YAML loads this one anyway
from pathlib import Path

from batchgen.descriptors import close_in_children
from batchgen.errors import Remedy, StoreError, UsageError
from batchgen.store.sqlite.problems import system_error

_MODE = 0o600  # prompts and answers are nobody else's


def checked_place(path: Path, *, create: bool) -> Path:
    """The path by which the database goes: that of the file, with all links followed.

    Raises UsageError for a name that can be no database's or, unless `create`, where there is none;
    StoreError for a file that has another name too, or is not on a disk of this machine.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a directory, not a database.", Remedy.NAME_DATABASE)
    try:
        real = path.resolve()
    except (OSError, RuntimeError) as exc:  # links that go round in a circle
        raise UsageError(f"{path}: its links cannot be followed ({exc}).") from exc
    if not real.parent.is_dir():
        raise UsageError(f"{path}: there is no directory {real.parent}.")
    if not create and not real.exists():
        raise UsageError(f"{path}: no such database.", Remedy.ENQUEUE_FIRST)
    mount_table = _mount_table()
    if kind := network_file_system(real, mount_table):
        raise StoreError(
            f"{path}: is on a network file system ({kind}), where SQLite cannot keep its promises.",
            Remedy.MOVE_DATABASE,
        )
    _refuse_second_names(path, real, mount_table)
    return real


def _refuse_second_names(path: Path, real: Path, mount_table: bytes) -> None:
    if any(point == str(real) for point, _ in _mounts(mount_table)):
        raise StoreError(
            f"{path}: is mounted alone, without its directory. What belongs to a database stands "
            "beside it, and would not be the same under its other name; answers could be lost. "
            "Mount its directory."
        )
    try:
        names = real.stat().st_nlink
    except FileNotFoundError:
        return
    if names > 1:
        raise StoreError(
            f"{path}: the file has {names} names (hard links). What belongs to a database stands "
            "beside it by its name, so under two names answers could be lost. Remove the other "
            f"name, which find -samefile {real} shows, or make a copy instead."
        )


def network_file_system(real: Path, mount_table: bytes) -> str | None:
    """The type of the network file system that holds a file, its path without links; None for a
    local one.

    WAL needs memory shared by all processes on a file, and OS locks that work: one machine.
    Knows Linux only, and its table of mounts; elsewhere it answers None.
    """
    where, found = f"{real}/", ""
    for point, kind in _mounts(mount_table):
        if where.startswith(f"{point.rstrip('/')}/"):
            found = kind  # the last mount that covers the path is the one in force
    foreign = found in _NETWORK or (found.startswith("fuse") and found not in _LOCAL_FUSE)
    return found if foreign else None


_NETWORK = frozenset(
    {"9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "dvs", "fhgfs", "gfs", "gfs2",
     "glusterfs", "gpfs", "kafs", "lustre", "lustre_lite", "mfs", "ncpfs", "nfs", "nfs4", "ocfs2",
     "orangefs", "panfs", "prl_fs", "pvfs2", "smb2", "smb3", "smbfs", "vboxsf", "vmhgfs", "wekafs"}
)  # fmt: skip
# What else goes by FUSE is a bucket or another machine's disk: there are new ones every year.
_LOCAL_FUSE = frozenset(
    {"fuseblk", "fusectl", "fuse.apfs", "fuse.apfs-fuse", "fuse.bcachefs", "fuse.bindfs",
     "fuse.cryfs", "fuse.encfs", "fuse.exfat", "fuse.ext2", "fuse.ext4", "fuse.fuse-ext2",
     "fuse.fuse-overlayfs", "fuse.fuse2fs", "fuse.gocryptfs", "fuse.lxcfs", "fuse.mergerfs",
     "fuse.ntfs", "fuse.ntfs-3g", "fuse.securefs", "fuse.zfs", "fuse.zfs-fuse"}
)  # fmt: skip


def _mount_table() -> bytes:
    try:
        return Path("/proc/self/mounts").read_bytes()
    except OSError:
        return b""


def _mounts(table: bytes) -> list[tuple[str, str]]:
    """(mount point, type) in their order."""
    lines = [line.split(b" ") for line in table.splitlines()]
    return [(_unescaped(line[1]), line[2].decode()) for line in lines if len(line) > 2]


def _unescaped(text: bytes) -> str:
    """A blank stands there as `\\040`."""
    if b"\\" in text:
        text = re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8) & 255]), text)
    return os.fsdecode(text)


def lock_file_mode(database: Path) -> int:
    """The mode of a file that batchgen makes beside it: who may write the database may write that
    one too."""
    try:
        return stat.S_IMODE(database.stat().st_mode) & 0o666
    except OSError:
        return _MODE


# Locks far beyond any byte of the file, and beyond those that SQLite locks: one for each name.
_FIRST_LOCK = 1 << 62
_LOCKS = 1 << 32
_CAN_LOCK = hasattr(fcntl, "F_OFD_SETLK") and struct.calcsize("hhqqi4x") == 32


class _Names:
    """The names by which this process has databases in use, one open file for each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[tuple[int, int], tuple[int, int, int]] = {}  # descriptor, name, users

    def take(self, path: Path, made: int | None) -> tuple[tuple[int, int], bool]:
        """`made`: the file, open, where it was just made. Returns what to give back, and whether
        nobody else has it."""
        found = path.stat() if made is None else os.fstat(made)
        file, number = (found.st_dev, found.st_ino), _number_of(path)
        with self._lock:
            descriptor, name, users = self._held.get(file, (-1, number, 0))
            if name != number:
                raise _in_use(path)
            is_alone = False
            if not users:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if made is None else made
                try:
                    is_alone = not _is_locked(descriptor, number, 1)
                    _lock_name(descriptor, number, path)
                except BaseException:
                    os.close(descriptor)
                    raise
            self._held[file] = (descriptor, number, users + 1)
        return file, is_alone

    def give_back(self, file: tuple[int, int]) -> None:
        with self._lock:
            descriptor, name, users = self._held.pop(file)
            if users > 1:
                self._held[file] = (descriptor, name, users - 1)
            else:
                os.close(descriptor)

    def close(self) -> None:
        """In a forked child: nothing of it is the child's."""
        held, self._lock, self._held = self._held, threading.Lock(), {}
        for descriptor, _, _ in held.values():
            os.close(descriptor)


_names = _Names()
close_in_children(_names)


class NameLock:
    """A shared lock on the file itself that says by which name it is in use. Any number may hold
    it under one name; under another one nobody may. `is_alone`: nobody held it before.

    To close the file that is locked drops what SQLite has locked in it: there is one for all
    connections of the process, and it is to be released after they are closed.
    """

    def __init__(self, path: Path) -> None:
        """Make the file if there is none. Raises StoreError when it is in use by another name."""
        self._file: tuple[int, int] | None = None
        self.is_alone = False  # as far as can be told
        try:
            made = _make(path)
            if _CAN_LOCK:
                self._file, self.is_alone = _names.take(path, made)
            elif made is not None:
                os.close(made)
        except OSError as exc:
            raise system_error(exc, path) from exc

    def release(self) -> None:
        """Harmless when it is not held."""
        if self._file is not None:
            _names.give_back(self._file)
            self._file = None


def _make(path: Path) -> int | None:
    """The new file, open, for its owner alone; None: it is there already."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    except FileExistsError:
        return None


def _number_of(path: Path) -> int:
    """A number for the name: the same whatever the directory is called or mounted as."""
    directory = path.parent.stat()
    text = f"{directory.st_dev}:{directory.st_ino}:{path.name}"
    return crc32(text.encode(errors="surrogateescape"))


def _lock_name(descriptor: int, name: int, path: Path) -> None:
    """First lock, then look: of two that come at once under two names, one at least is refused."""
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _flock(fcntl.F_RDLCK, name, 1))
    if _is_locked(descriptor, 0, name) or _is_locked(descriptor, name + 1, _LOCKS - name):
        raise _in_use(path)


def _is_locked(descriptor: int, start: int, length: int) -> bool:
    """Whether somebody holds one of so many locks."""
    if not length:
        return False
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, start, length))
    return bool(struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK)


def _flock(kind: int, start: int, length: int) -> bytes:
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, _FIRST_LOCK + start, length, 0)


def _in_use(path: Path) -> StoreError:
    return StoreError(
        f"{path}: the same file is in use under another name (it was renamed, linked or mounted "
        "meanwhile). What belongs to a database stands beside it by its name, so under two names "
        "answers could be lost. Use the other name, or end what uses it."
    )
