"""Where an export may go: over no file that is somebody's work.

A file that was not there, or is empty, may be written, and so may one that batchgen has written for
this database before; what somebody has changed in it since is kept beside it. The project's own
files and databases are never written over; any other file only when the user says so.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from batchgen.errors import Remedy, UsageError
from batchgen.export.files import copy_beside, is_special, sha256_of
from batchgen.export.tail import begins_with, is_locked, lock_holder
from batchgen.store import FileUse, LiveFileRecord, Store
from batchgen.text.json_text import is_storable, storable

_OF_THE_PROJECT = "is a file of this project"
_SQLITE = b"SQLite format 3\0"
_BESIDE_A_DATABASE = ("wal", "shm", "journal", "gate", "enqueue", "worker")


class Overwriting(Struct, frozen=True):
    """`kept` are files of the project. `force`: a file that batchgen did not write may go. `say` is
    told of what is kept beside a file."""

    kept: Sequence[Path] = ()
    force: bool = False
    say: Callable[[str], object] = lambda _: None


NO_OVERWRITING = Overwriting()


def checked_target(path: Path, store: Store) -> Path:
    """`path` with its links followed, but for those to a pipe or a device (`/dev/stdout`). Raises
    UsageError for a directory, for a file of the database itself, and for a name that the database
    cannot hold, which remembers its exports."""
    if path.is_dir():
        raise UsageError(f"{path}: is a directory; name a file for the export.")
    if store.owns(path):
        raise UsageError(f"{path}: belongs to the work database; name another file for the export.")
    target = path if is_special(path) else path.resolve()
    if not is_storable(str(target)):
        raise UsageError(
            f"{storable(str(target))}: not valid Unicode; name another file for the export."
        )
    return target


async def check_target(path: Path, store: Store, overwriting: Overwriting) -> Path:
    """`path` with its links followed. Raises UsageError when an export must not go there."""
    target = await asyncio.to_thread(checked_target, path, store)
    await asyncio.to_thread(refuse_kept, path, overwriting.kept)
    if await asyncio.to_thread(_is_free, target):
        return target
    if await _was_read(target, store):
        raise UsageError(f"{path}: {_OF_THE_PROJECT}; name another file.")
    if await _is_ours(target, store):
        return target
    if await asyncio.to_thread(is_locked, target):
        raise UsageError(f"{path}: {lock_holder(target)} keeps it up to date; name another file.")
    if not overwriting.force:
        raise UsageError(
            f"{path}: is there already, and batchgen did not write it for this database.",
            Remedy.REPLACE_FILE,
        )
    return target


async def claim_target(path: Path, store: Store, overwriting: Overwriting) -> Path:
    """The same, and from now on the file is batchgen's to write: also for the next run, when this
    one is killed in the middle."""
    target = await check_target(path, store, overwriting)
    if not await asyncio.to_thread(is_special, target):
        await store.files.note_files([target], FileUse.WRITTEN)
    return target


async def keep_if_changed(target: Path, store: Store, overwriting: Overwriting) -> None:
    """Before a file is replaced that batchgen wrote: if it is not as it was written, somebody has
    worked on it, and it is kept."""
    if await _was_changed(target, store):
        await keep_changed(target, overwriting)


async def keep_changed(target: Path, overwriting: Overwriting) -> None:
    """Keep a copy of it beside it, unless the user wants it gone. Raises OSError."""
    if not overwriting.force and (copy := await asyncio.to_thread(copy_beside, target)):
        overwriting.say(f"{target}: was changed since; what was in it is kept as {copy.name}")


def refuse_kept(path: Path, kept: Sequence[Path]) -> None:
    """Raises UsageError for a file of the project (`kept`) and for a database or what belongs to
    one: nothing may be written over it, nor appended to it."""
    if problem := _why_never(path.resolve(), kept):
        raise UsageError(f"{path}: {problem}; name another file.")


def _is_free(target: Path) -> bool:
    return is_special(target) or not target.exists() or target.stat().st_size == 0


def _why_never(target: Path, kept: Sequence[Path]) -> str | None:
    if any(_is_same(path, target) for path in kept):
        return _OF_THE_PROJECT
    if _is_database(target):
        return "is a database"
    name, _, rest = target.name.rpartition("-")
    if rest.isdigit():  # of a worker
        name, _, rest = name.rpartition("-")
    beside = rest in _BESIDE_A_DATABASE and bool(name) and _is_database(target.with_name(name))
    return "belongs to a database" if beside else None


def _is_same(path: Path, target: Path) -> bool:
    try:
        return path.samefile(target)
    except (OSError, ValueError):  # it is not there, or no name of a file at all
        return False


def _is_database(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


async def _was_changed(target: Path, store: Store) -> bool:
    """False, too, where it is not known how it was left."""
    if live := await store.files.live_file(target):
        return not await asyncio.to_thread(_begins_with, target, live)
    written = [one.sha256 for one in await store.files.exports() if one.path == str(target)]
    found = await asyncio.to_thread(sha256_of, target) if written else None
    return found is not None and found not in written


def _begins_with(target: Path, live: LiveFileRecord) -> bool:
    """Or is not there."""
    return not target.is_file() or begins_with(target, live.size_bytes, live.sha256)


async def _was_read(target: Path, store: Store) -> bool:
    """By itself or, unless it was written, with the directory that it is in."""
    use = await store.files.use_of_file(target)
    if use is not None:
        return use is FileUse.READ
    above = [await store.files.use_of_file(directory) for directory in target.parents]
    return FileUse.READ in above


async def _is_ours(target: Path, store: Store) -> bool:
    """By its place or, when the project was moved or copied, by its name and content."""
    if await store.files.use_of_file(target) is FileUse.WRITTEN:
        return True
    exports = [one for one in await store.files.exports() if Path(one.path).name == target.name]
    if exports:
        found = await asyncio.to_thread(sha256_of, target)
        if any(one.sha256 == found for one in exports):
            return True
    for one in await store.files.live_files():
        if Path(one.path).name == target.name:
            return await asyncio.to_thread(begins_with, target, one.size_bytes, one.sha256)
    return False
