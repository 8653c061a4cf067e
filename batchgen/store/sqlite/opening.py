"""How a database is opened: its place, its gate, its name, and a connection made ready. What reads
alone and what writes too begin here."""

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from batchgen.errors import SchemaError, StoreBusyError, StoreError
from batchgen.store.sqlite.gate import Gate
from batchgen.store.sqlite.leftover import check_leftover_log
from batchgen.store.sqlite.migrate import APPLICATION_ID, PAGE_SIZE, migrate
from batchgen.store.sqlite.place import NameLock, checked_place
from batchgen.store.sqlite.transaction import SqliteTransaction

P = ParamSpec("P")
T = TypeVar("T")

MINIMUM_SQLITE = (3, 37)  # STRICT tables
# The first releases without the WAL-reset bug, for the warning about foreign writers.
_WAL_RESET_FIXED = {(3, 44): 6, (3, 50): 7, (3, 51): 3}

_WRITER_PRAGMAS = {
    # FULL survives power loss and, with many results to a commit, costs nothing over NORMAL.
    "synchronous": 2,
    "foreign_keys": 1,
    "wal_autocheckpoint": 1000,
    "journal_size_limit": 64 * 1024 * 1024,
    "cache_size": -32768,
    # For foreign writers only (a SQL shell): our own take turns at the gate.
    "busy_timeout": 10_000,
}
_READER_PRAGMAS = {"query_only": 1, "wal_autocheckpoint": 0, "cache_size": -16384,
                   "busy_timeout": 10_000}  # fmt: skip


CONNECTION: dict[str, Any] = {"isolation_level": None, "cached_statements": 256}


class Opened(NamedTuple):
    """A database whose place is good, and whose name is held; no connection to it is made yet."""

    path: Path
    gate: Gate
    name: NameLock


@contextmanager
def opened(path: Path, *, create: bool) -> Iterator[Opened]:
    """Raises UsageError when there is none and not `create`."""
    _check_sqlite()
    path = checked_place(path, create=create)
    with ExitStack() as stack:
        gate = Gate(path)
        stack.callback(gate.close)
        name = NameLock(path)
        stack.callback(name.release)
        yield Opened(path, gate, name)


def in_snapshot(
    connection: sqlite3.Connection,
    query: Callable[Concatenate[SqliteTransaction, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run `query` on one snapshot."""
    connection.execute("begin")
    try:
        return query(SqliteTransaction(connection), *args, **kwargs)
    finally:
        connection.rollback()


def check_same_file(path: Path, inode: int) -> None:
    """Raises StoreBusyError where the file at `path` is no longer the one that was opened. Somebody
    may put it back."""
    try:
        same = path.stat().st_ino == inode
    except FileNotFoundError:
        same = False
    if not same:
        raise StoreBusyError(
            f"{path}: the database was deleted or replaced while in use. "
            "What was committed is in the old file; put it back, or start again."
        )


def vulnerable_sqlite() -> str | None:
    """This Python's SQLite version if it has the WAL-reset bug, else None."""
    major, minor, patch = sqlite3.sqlite_version_info
    fixed = (major, minor) > max(_WAL_RESET_FIXED)
    return None if fixed or patch >= _WAL_RESET_FIXED.get((major, minor), 999) else (
        sqlite3.sqlite_version
    )  # fmt: skip


def warnings_of_sqlite() -> list[str]:
    """A word about the WAL-reset bug, for those whose SQLite has it."""
    version = vulnerable_sqlite()
    return [] if version is None else [
        f"this Python's SQLite {version} has a bug that can damage a file when another program "
        "writes to it at the same time. batchgen's own processes take turns, so they are safe; "
        "do not write with a SQL shell while workers run."
    ]  # fmt: skip


def _check_sqlite() -> None:
    if sqlite3.sqlite_version_info < MINIMUM_SQLITE:
        raise StoreError(
            f"this Python has SQLite {sqlite3.sqlite_version}; batchgen needs 3.37 or newer."
        )


def prepare_writer(connection: sqlite3.Connection, path: Path, name: NameLock) -> None:
    if name.is_alone:
        check_leftover_log(path)
    (application_id,) = connection.execute("pragma application_id").fetchone()
    if application_id != APPLICATION_ID:
        connection.execute(f"pragma page_size = {PAGE_SIZE}")
    _set_pragmas(connection, _WRITER_PRAGMAS)
    if sys.platform == "darwin":
        connection.execute("pragma fullfsync = 1")  # plain fsync there stops at the drive's cache
    # Before WAL is set, so that a foreign file is refused untouched.
    migrate(connection, path)
    _refuse_half_a_page(connection, path)
    (mode,) = connection.execute("pragma journal_mode = wal").fetchone()
    if mode != "wal":
        raise StoreError(f"{path}: SQLite refuses WAL mode here (it stays {mode}).")


def _refuse_half_a_page(connection: sqlite3.Connection, path: Path) -> None:
    """SQLite tells a file that lost pages, but takes a last page that was cut off for a whole one.

    While there is a log, its pages may not all be in the file yet.
    """
    (page_size,) = connection.execute("pragma page_size").fetchone()
    log = path.with_name(f"{path.name}-wal")
    if path.stat().st_size % page_size and not (log.exists() and log.stat().st_size):
        raise SchemaError(f"{path}: damaged: it was cut off. Restore it from a copy.")


def prepare_reader(connection: sqlite3.Connection) -> None:
    _set_pragmas(connection, _READER_PRAGMAS)


def _set_pragmas(connection: sqlite3.Connection, pragmas: dict[str, int]) -> None:
    """Set and read back: SQLite ignores what it does not understand without a word."""
    for name, value in pragmas.items():
        connection.execute(f"pragma {name} = {value}")
        (actual,) = connection.execute(f"pragma {name}").fetchone()
        if actual != value:
            raise StoreError(f"SQLite does not take pragma {name} = {value} (it is {actual})")
