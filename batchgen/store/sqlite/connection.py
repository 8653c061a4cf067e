"""One SQLite database, opened by one process: a writing connection, and a reading one.

Every transaction is one plain function that runs on the connection's thread from BEGIN to COMMIT.
So a cancelled task cannot leave a transaction open, no other task's statement can slip into it,
and the event loop is crossed twice a transaction, not twice a statement (60-160 µs each).
"""

import asyncio
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import aiosqlite

from batchgen.errors import (
    Remedy,
    SchemaError,
    StoreBusyError,
    StoreError,
    UsageError,
)
from batchgen.shutdown import uninterrupted
from batchgen.store.sqlite.gate import Gate, OwnerLock
from batchgen.store.sqlite.leftover import check_leftover_log
from batchgen.store.sqlite.migrate import APPLICATION_ID, PAGE_SIZE, migrate
from batchgen.store.sqlite.place import NameLock, checked_place, lock_file_mode
from batchgen.store.sqlite.problems import store_error, system_error

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
_ENQUEUE_LOOK_S = 0.1
_READER_PRAGMAS = {"query_only": 1, "wal_autocheckpoint": 0, "cache_size": -16384,
                   "busy_timeout": 10_000}  # fmt: skip


class Database:
    """Use `open_database`. `write` and `read` run one function as one transaction."""

    def __init__(self, path: Path, gate: Gate, writer: aiosqlite.Connection) -> None:
        self.path = path
        self.name = str(path)
        self.gate = gate
        self._writer = writer
        self._reader: aiosqlite.Connection | None = None
        self._reader_lock = asyncio.Lock()
        self._inode = path.stat().st_ino
        self._data_version: int | None = None
        self.foreign_writer_seen = False

    @property
    def danger(self) -> str | None:
        """A warning, when somebody wrote without the gate and this SQLite has the WAL-reset bug."""
        version = _vulnerable_sqlite()
        if not self.foreign_writer_seen or version is None:
            return None
        return (
            f"{self.path}: another program writes to it while batchgen does; with SQLite {version} "
            "that can corrupt the file (sqlite.org/wal.html#walresetbug). Let it only read."
        )

    def warnings(self) -> list[str]:
        """A word about the WAL-reset bug, for those whose SQLite has it."""
        version = _vulnerable_sqlite()
        return [] if version is None else [
            f"this Python's SQLite {version} has a bug that can damage a file when another program "
            "writes to it at the same time. batchgen's own processes take turns, so they are safe; "
            "do not write with a SQL shell while workers run."
        ]  # fmt: skip

    def owns(self, path: Path) -> bool:
        """Whether it is the database's file, or one that SQLite or batchgen keeps beside it."""
        target, own = path.resolve(), self.path.resolve()
        beside = target.parent == own.parent and target.name.startswith(f"{own.name}-")
        return target == own or beside

    @asynccontextmanager
    async def only_enqueueing(
        self, patience_s: float, say: Callable[[str], None]
    ) -> AsyncIterator[None]:
        """One process at a time enqueues into a database; others wait for it. `say` gets why.
        Raises UsageError after `patience_s`."""
        lock = OwnerLock(
            self.path.with_name(f"{self.path.name}-enqueue"), lock_file_mode(self.path)
        )
        give_up_at = time.monotonic() + patience_s
        is_told = False
        while not lock.acquire():
            other = f"{self.path}: another batchgen is enqueueing into it ({lock.holder()})"
            if time.monotonic() >= give_up_at:
                problem = f"{other}, for more than {patience_s:g} s. Wait until it is done."
                raise UsageError(problem, Remedy.RUN_AGAIN)
            if not is_told:
                say(f"{other}; waiting for it, up to {patience_s:g} s")
                is_told = True
            await asyncio.sleep(_ENQUEUE_LOOK_S)
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def only_parsing_again(self) -> Iterator[bool]:
        """Whether no other process parses stored answers again, for as long as one is inside."""
        lock = OwnerLock(
            self.path.with_name(f"{self.path.name}-reparse"), lock_file_mode(self.path)
        )
        is_only = lock.acquire()
        try:
            yield is_only
        finally:
            lock.release()

    async def write(
        self,
        transaction: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run `transaction` under the gate: all of it is durable on return, or none of it is there.

        A caller that is cancelled meanwhile gets its CancelledError after the commit.
        """

        def run(connection: sqlite3.Connection) -> T:
            self._check_file()
            with self.gate.hold():
                connection.execute("begin immediate")
                try:
                    self._watch_for_foreign_writers(connection)
                    result = transaction(connection, *args, **kwargs)
                    connection.execute("commit")
                except BaseException:
                    connection.rollback()
                    raise
            return result

        return await self._on_thread(self._writer, run)

    async def read(
        self,
        query: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run `query` on one snapshot. Keep it short: an open snapshot makes the WAL grow."""

        def run(connection: sqlite3.Connection) -> T:
            connection.execute("begin")
            try:
                return query(connection, *args, **kwargs)
            finally:
                connection.rollback()

        async with self._reader_lock:
            if self._reader is None:
                self._reader = await _connect(self.path, self.gate, prepare=_prepare_reader)
        return await self._on_thread(self._reader, run)

    async def close(self) -> None:
        try:
            if self._reader is not None:
                await _close(self._reader, self.gate)
        finally:  # also when cancelled: a connection left open hangs the interpreter's exit
            await _close(self._writer, self.gate)

    async def _on_thread(
        self, connection: aiosqlite.Connection, run: Callable[[sqlite3.Connection], T]
    ) -> T:
        try:
            return await _run(connection, run)
        except sqlite3.Error as exc:
            raise store_error(exc, self.path) from exc
        except OSError as exc:  # of the gate, or of the file itself
            raise system_error(exc, self.path) from exc

    def _watch_for_foreign_writers(self, connection: sqlite3.Connection) -> None:
        """`data_version` changes with every commit but our own."""
        (version,) = connection.execute("pragma data_version").fetchone()
        changed = self._data_version is not None and version != self._data_version
        if changed and not self.gate.others_had_it:
            self.foreign_writer_seen = True
        self._data_version = version

    def _check_file(self) -> None:
        """Refuse to write into a file that is no longer the one at our path. Somebody may put it
        back."""
        try:
            same = self.path.stat().st_ino == self._inode
        except FileNotFoundError:
            same = False
        if not same:
            raise StoreBusyError(
                f"{self.path}: the database was deleted or replaced while in use. "
                "What was committed is in the old file; put it back, or start again."
            )


@asynccontextmanager
async def open_database(path: Path, *, create: bool) -> AsyncIterator[Database]:
    """Open, and migrate, the database. Raises UsageError when it is missing and not `create`."""
    _check_sqlite()
    path = checked_place(path, create=create)
    with ExitStack() as stack:
        gate = Gate(path)
        stack.callback(gate.close)
        name = NameLock(path)
        stack.callback(name.release)
        try:
            writer = await _connect(path, gate, lambda raw: _prepare_writer(raw, path, name))
        except BaseException:
            gate.abandon()
            raise
        database = Database(path, gate, writer)
        try:
            yield database
        finally:
            await database.close()


def _vulnerable_sqlite() -> str | None:
    """This Python's SQLite version if it has the WAL-reset bug, else None."""
    major, minor, patch = sqlite3.sqlite_version_info
    fixed = (major, minor) > max(_WAL_RESET_FIXED)
    return None if fixed or patch >= _WAL_RESET_FIXED.get((major, minor), 999) else (
        sqlite3.sqlite_version
    )  # fmt: skip


def _check_sqlite() -> None:
    if sqlite3.sqlite_version_info < MINIMUM_SQLITE:
        raise StoreError(
            f"this Python has SQLite {sqlite3.sqlite_version}; batchgen needs 3.37 or newer."
        )


async def _connect(
    path: Path, gate: Gate, prepare: Callable[[sqlite3.Connection], None]
) -> aiosqlite.Connection:
    """A connection made ready under the gate: opening may recover, migrate or checkpoint."""
    connection = aiosqlite.connect(path, isolation_level=None, cached_statements=256)
    # A second Ctrl-C ends the event loop wherever it is, and then nobody closes the connection:
    # the exit must not wait for its thread. To SQLite that is no more than a kill.
    connection._thread.daemon = True  # noqa: SLF001
    is_open = False

    async def connect() -> None:
        nonlocal is_open
        await connection
        is_open = True

    def run(raw: sqlite3.Connection) -> None:
        with gate.hold():
            prepare(raw)

    try:
        await uninterrupted(connect())
        await _run(connection, run)
    except BaseException as exc:
        if is_open:
            await _close(connection, gate)
        if isinstance(exc, sqlite3.Error):
            raise store_error(exc, path) from exc
        if isinstance(exc, OSError):
            raise system_error(exc, path) from exc
        raise
    return connection


def _prepare_writer(connection: sqlite3.Connection, path: Path, name: NameLock) -> None:
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


def _prepare_reader(connection: sqlite3.Connection) -> None:
    _set_pragmas(connection, _READER_PRAGMAS)


def _set_pragmas(connection: sqlite3.Connection, pragmas: dict[str, int]) -> None:
    """Set and read back: SQLite ignores what it does not understand without a word."""
    for name, value in pragmas.items():
        connection.execute(f"pragma {name} = {value}")
        (actual,) = connection.execute(f"pragma {name}").fetchone()
        if actual != value:
            raise StoreError(f"SQLite does not take pragma {name} = {value} (it is {actual})")


async def _close(connection: aiosqlite.Connection, gate: Gate) -> None:
    """Close under the gate, as the last one to close checkpoints."""

    def run(raw: sqlite3.Connection) -> None:
        with gate.hold():
            raw.close()

    try:
        await _run(connection, run)
    finally:
        await uninterrupted(connection.close())


async def _run(connection: aiosqlite.Connection, run: Callable[[sqlite3.Connection], T]) -> T:
    """Run a function on the connection's thread, to its end even when cancelled.

    aiosqlite has this only as a private method, kept since its first release; its public methods
    cross the event loop once a statement. `tests/store/test_connection.py` tells when it changes.
    """
    call = connection._execute(run, connection._conn)  # type: ignore[no-untyped-call]  # noqa: SLF001
    result: T = await uninterrupted(call)
    return result
