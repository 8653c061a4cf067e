"""One SQLite database, opened by one process: a writing connection, and a reading one.

Every transaction is one plain function that runs on the connection's thread from BEGIN to COMMIT.
So a cancelled task cannot leave a transaction open, no other task's statement can slip into it,
and the event loop is crossed twice a transaction, not twice a statement (60-160 µs each).
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from traceback import clear_frames
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import aiosqlite

from batchgen.shutdown import uninterrupted
from batchgen.store.sqlite.gate import Gate, Members, lock_beside
from batchgen.store.sqlite.opening import (
    CONNECTION,
    check_same_file,
    in_snapshot,
    opened,
    prepare_reader,
    prepare_writer,
    vulnerable_sqlite,
    warnings_of_sqlite,
)
from batchgen.store.sqlite.problems import store_errors
from batchgen.store.sqlite.transaction import SqliteTransaction
from batchgen.store.transaction import Transaction

if TYPE_CHECKING:
    from batchgen.store.sqlite.additions import Additions

P = ParamSpec("P")
T = TypeVar("T")


class Database:
    """Use `open_database`. `write` and `read` run one function as one transaction."""

    is_served = False
    takes_turns = True

    def __init__(self, path: Path, gate: Gate, writer: aiosqlite.Connection) -> None:
        self.path = path
        self.name = str(path)
        self.gate = gate
        self.members = Members(path)
        self._writer = writer
        self._reader: aiosqlite.Connection | None = None
        self._reader_lock = asyncio.Lock()
        self._inode = path.stat().st_ino
        self._data_version: int | None = None
        self.foreign_writer_seen = False

    @cached_property
    def additions(self) -> "Additions":
        from batchgen.store.sqlite.additions import Additions  # here: workers add no items

        return Additions(self)

    @property
    def danger(self) -> str | None:
        """A warning, when somebody wrote without the gate and this SQLite has the WAL-reset bug."""
        version = vulnerable_sqlite()
        if not self.foreign_writer_seen or version is None:
            return None
        return (
            f"{self.path}: another program writes to it while batchgen does; with SQLite {version} "
            "that can corrupt the file (sqlite.org/wal.html#walresetbug). Let it only read."
        )

    def warnings(self) -> list[str]:
        """A word about the WAL-reset bug, for those whose SQLite has it."""
        return warnings_of_sqlite()

    def counts_for(self, worker_id: int) -> None:
        """Writers take turns, so all count in the same rows."""

    def wait_for_server(self, patience_s: float, say: Callable[[str], None]) -> None:
        """There is none."""

    def hurry(self) -> None:
        """Who writes waits for other processes of this machine alone, and not for long."""

    def held_up_s(self) -> float:
        """Who waited for its turn finds its own lease run out."""
        return 0.0

    async def compare_clocks(self) -> None:
        """All who use the file have this machine's."""

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
        from batchgen.store.turns import wait_to_enqueue  # here: workers add no items

        lock = lock_beside(self.path, "enqueue")

        async def holder() -> str | None:
            return None if lock.acquire() else lock.holder()

        await wait_to_enqueue(self.name, holder, patience_s, say)
        try:
            yield
        finally:
            lock.release()

    @asynccontextmanager
    async def only_parsing_again(self) -> AsyncIterator[bool]:
        """Whether no other process parses stored answers again, for as long as one is inside."""
        async with self._only("reparse") as is_only:
            yield is_only

    @asynccontextmanager
    async def only_sending(self) -> AsyncIterator[bool]:
        """Whether no other process sends provider batches, for as long as one is inside."""
        async with self._only("batches") as is_only:
            yield is_only

    def check_sending(self, db: Transaction) -> None:
        """Nobody takes over from a process that has the lock."""

    @asynccontextmanager
    async def _only(self, what: str) -> AsyncIterator[bool]:
        lock = lock_beside(self.path, what)
        is_only = lock.acquire()
        try:
            yield is_only
        finally:
            lock.release()

    async def write(
        self,
        transaction: Callable[Concatenate[SqliteTransaction, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run `transaction` under the gate: all of it is durable on return, or none of it is there.

        A caller that is cancelled meanwhile gets its CancelledError after the commit.
        """

        def run(connection: sqlite3.Connection) -> T:
            check_same_file(self.path, self._inode)
            with self.gate.hold():
                connection.execute("begin immediate")
                try:
                    self._watch_for_foreign_writers(connection)
                    result = transaction(SqliteTransaction(connection), *args, **kwargs)
                    connection.execute("commit")
                except BaseException as exc:
                    # A statement in one of its frames that was not read to its end would keep its
                    # snapshot, on which nothing can be written once others have.
                    clear_frames(exc.__traceback__)
                    connection.rollback()
                    raise
            return result

        return await self._on_thread(self._writer, run)

    write_beside = write  # writers take turns

    async def read(
        self,
        query: Callable[Concatenate[SqliteTransaction, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run `query` on one snapshot. Keep it short: an open snapshot makes the WAL grow."""

        def run(connection: sqlite3.Connection) -> T:
            return in_snapshot(connection, query, *args, **kwargs)

        async with self._reader_lock:
            if self._reader is None:
                self._reader = await _connect(self.path, self.gate, prepare=prepare_reader)
        return await self._on_thread(self._reader, run)

    settled = read  # nobody writes a number before another one that was given out earlier

    async def close(self) -> None:
        try:
            if self._reader is not None:
                await _close(self._reader, self.gate)
        finally:  # also when cancelled: a connection left open hangs the interpreter's exit
            await _close(self._writer, self.gate)

    async def _on_thread(
        self, connection: aiosqlite.Connection, run: Callable[[sqlite3.Connection], T]
    ) -> T:
        with store_errors(self.path):
            return await _run(connection, run)

    def _watch_for_foreign_writers(self, connection: sqlite3.Connection) -> None:
        """`data_version` changes with every commit but our own."""
        (version,) = connection.execute("pragma data_version").fetchone()
        changed = self._data_version is not None and version != self._data_version
        if changed and not self.gate.others_had_it:
            self.foreign_writer_seen = True
        self._data_version = version


@asynccontextmanager
async def open_database(path: Path, *, create: bool) -> AsyncIterator[Database]:
    """Open, and migrate, the database. Raises UsageError when it is missing and not `create`."""
    with opened(path, create=create) as (place, gate, name):
        try:
            writer = await _connect(place, gate, lambda raw: prepare_writer(raw, place, name))
        except BaseException:
            gate.abandon()
            raise
        database = Database(place, gate, writer)
        try:
            yield database
        finally:
            await database.close()


async def _connect(
    path: Path, gate: Gate, prepare: Callable[[sqlite3.Connection], None]
) -> aiosqlite.Connection:
    """A connection made ready under the gate: opening may recover, migrate or checkpoint."""
    connection = aiosqlite.connect(path, **CONNECTION)
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
        with store_errors(path):
            await uninterrupted(connect())
            await _run(connection, run)
    except BaseException:
        if is_open:
            await _close(connection, gate)
        raise
    return connection


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
