"""A transaction is whole or not there, whatever happens to the task, the file or the process."""

import asyncio
import inspect
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import aiosqlite
import pytest

from batchgen.errors import (
    Remedy,
    SchemaError,
    StoreBusyError,
    StoreError,
    StoreFullError,
    UsageError,
)
from batchgen.store import open_store
from batchgen.store.sqlite.connection import Database, open_database
from batchgen.store.sqlite.gate import Gate
from batchgen.store.sqlite.problems import store_error
from batchgen.store.sqlite.transaction import SqliteTransaction

Transaction = Callable[[SqliteTransaction], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "batchgen.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    async with open_database(path, create=True) as opened:
        yield opened


def add(name: str) -> Transaction:
    def transaction(db: SqliteTransaction) -> None:
        db.connection.execute("insert or ignore into parsers values (1, 'raw', '', '{}', 0)")
        db.connection.execute(
            "insert into experiments (name, created_at, parser_id) values (?, 0, 1)", (name,)
        )

    return transaction


def names(db: SqliteTransaction) -> list[str]:
    return [name for (name,) in db.connection.execute("select name from experiments order by id")]


class Hold:
    """A transaction that stops in its middle until the test lets it go on."""

    def __init__(self, fail: bool = False) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self._fail = fail

    def __call__(self, db: SqliteTransaction) -> None:
        add("one")(db)
        self.begun.set()
        assert self.go_on.wait(20)
        if self._fail:
            raise ZeroDivisionError
        add("two")(db)


# Transactions


async def test_what_was_written_is_there_for_everybody_on_return(
    database: Database, path: Path
) -> None:
    await database.write(add("one"))
    assert await database.read(names) == ["one"]
    with closing(sqlite3.connect(path)) as stranger:
        assert names(SqliteTransaction(stranger)) == ["one"]


async def test_an_exception_rolls_the_whole_transaction_back(database: Database) -> None:
    def transaction(db: SqliteTransaction) -> None:
        add("one")(db)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.write(transaction)
    assert await database.read(names) == []
    await database.write(add("two"))
    assert await database.read(names) == ["two"]


async def test_an_error_of_sqlite_rolls_back_and_says_which_file(
    database: Database, path: Path
) -> None:
    await database.write(add("one"))

    def transaction(db: SqliteTransaction) -> None:
        add("two")(db)
        add("one")(db)

    with pytest.raises(StoreError) as caught:
        await database.write(transaction)
    assert str(caught.value) == f"{path}: UNIQUE constraint failed: experiments.name"
    assert await database.read(names) == ["one"]


async def test_a_write_that_is_cancelled_is_committed_whole(database: Database) -> None:
    hold = Hold()
    task = asyncio.create_task(database.write(hold))
    await asyncio.to_thread(hold.begun.wait)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()  # its end is its commit
    hold.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await database.read(names) == ["one", "two"]
    await database.write(add("next"))  # BEGIN fails when a transaction was left open


async def test_a_write_that_is_cancelled_twice_ends_with_its_commit(database: Database) -> None:
    hold = Hold()
    task = asyncio.create_task(database.write(hold))
    await asyncio.to_thread(hold.begun.wait)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    hold.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await database.read(names) == ["one", "two"]


async def test_a_cancelled_write_that_fails_leaves_nothing(database: Database) -> None:
    hold = Hold(fail=True)
    task = asyncio.create_task(database.write(hold))
    await asyncio.to_thread(hold.begun.wait)
    task.cancel()
    hold.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await database.read(names) == []
    await database.write(add("next"))
    assert await database.read(names) == ["next"]


async def test_a_write_that_is_cancelled_while_it_queues_is_whole_or_not_there(
    database: Database,
) -> None:
    hold = Hold()
    first = asyncio.create_task(database.write(hold))
    await asyncio.to_thread(hold.begun.wait)
    second = asyncio.create_task(database.write(add("queued")))
    await asyncio.sleep(0)
    second.cancel()
    hold.go_on.set()
    await first
    await asyncio.wait([second])
    assert await database.read(names) in (["one", "two"], ["one", "two", "queued"])
    await database.write(add("next"))


async def test_a_write_holds_the_gate_from_begin_to_commit(database: Database, path: Path) -> None:
    gate, hold = Gate(path, deadline_s=0), Hold()
    writing = asyncio.create_task(database.write(hold))
    await asyncio.to_thread(hold.begun.wait)
    with pytest.raises(StoreBusyError), gate.hold():
        pass
    hold.go_on.set()
    await writing
    with gate.hold():
        pass  # free again
    gate.close()


async def test_writes_of_many_tasks_take_turns(database: Database) -> None:
    def count(db: SqliteTransaction) -> None:
        add(f"number {len(names(db))}")(db)

    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(database.write(count))
    assert await database.read(names) == [f"number {number}" for number in range(50)]


async def test_reading_goes_on_while_a_write_is_open_and_sees_none_of_it(
    database: Database,
) -> None:
    assert await database.read(names) == []  # opens the reading connection, which takes the gate
    hold = Hold()
    writing = asyncio.create_task(database.write(hold))
    await asyncio.to_thread(hold.begun.wait)
    assert await database.read(names) == []
    hold.go_on.set()
    await writing
    assert await database.read(names) == ["one", "two"]


async def test_a_reader_cannot_write(database: Database, path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        await database.read(add("one"))
    assert str(caught.value) == (
        f"{path}: cannot write to it (attempt to write a readonly database). Check its permissions."
    )
    assert await database.read(names) == []


async def test_two_stores_in_one_process_share_a_file(path: Path) -> None:
    async with open_database(path, create=True) as one, open_database(path, create=True) as other:
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task((one, other)[number % 2].write(add(str(number))))
        assert sorted(await one.read(names), key=int) == [str(number) for number in range(20)]
        assert await one.read(names) == await other.read(names)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)


# Settings


def pragmas(db: SqliteTransaction) -> dict[str, object]:
    asked = ("synchronous", "journal_mode", "foreign_keys", "query_only", "busy_timeout")
    return {name: db.connection.execute(f"pragma {name}").fetchone()[0] for name in asked}


async def test_the_writer_is_durable_and_checks_foreign_keys(database: Database) -> None:
    assert await database.write(pragmas) == {
        "synchronous": 2, "journal_mode": "wal", "foreign_keys": 1, "query_only": 0,
        "busy_timeout": 10_000,
    }  # fmt: skip


async def test_the_reader_only_reads(database: Database) -> None:
    found = await database.read(pragmas)
    assert (found["query_only"], found["journal_mode"]) == (1, "wal")


def test_what_is_used_of_aiosqlite_beyond_its_public_face_is_still_there() -> None:
    """`connection._run` crosses to the connection's thread once a transaction by these two."""
    assert list(inspect.signature(aiosqlite.Connection._execute).parameters) == [
        "self", "fn", "args", "kwargs",
    ]  # fmt: skip
    assert inspect.iscoroutinefunction(aiosqlite.Connection._execute)
    assert isinstance(aiosqlite.Connection._conn, property)


async def test_a_function_given_to_aiosqlite_runs_once_on_the_connections_thread(
    path: Path,
) -> None:
    async with aiosqlite.connect(path) as connection:
        ran: list[tuple[object, str]] = []

        def note(raw: sqlite3.Connection) -> str:
            ran.append((raw, threading.current_thread().name))
            return "result"

        given = connection._conn
        assert await connection._execute(note, given) == "result"  # type: ignore[no-untyped-call]
    assert ran == [(given, connection._thread.name)]
    assert connection._thread is not threading.current_thread()


# Opening and closing


async def test_no_thread_is_left_after_closing(path: Path) -> None:
    before = set(threading.enumerate())
    async with open_store(path, create=True) as store:
        await store.experiments()
        opened = set(threading.enumerate()) - before
        assert len(opened) == 2
    for thread in opened:
        thread.join(10)  # its last step is to end
        assert not thread.is_alive()


async def test_no_thread_is_left_after_a_refused_file(path: Path) -> None:
    path.write_text("Dear diary,\n" * 1000)
    before = set(threading.enumerate())
    with pytest.raises(SchemaError):
        async with open_store(path):
            pass
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


async def test_no_thread_is_left_when_closing_is_cancelled(path: Path) -> None:
    before = set(threading.enumerate())
    opened, hold = asyncio.Event(), Hold()

    async def use() -> None:
        async with open_database(path, create=True) as database:
            await database.read(names)
            writing = asyncio.create_task(database.write(hold))
            await asyncio.to_thread(hold.begun.wait)
            opened.set()
        await writing

    task = asyncio.create_task(use())
    await opened.wait()
    mine = set(threading.enumerate()) - before
    task.cancel()
    await asyncio.sleep(0)
    hold.go_on.set()
    await asyncio.wait([task])
    for thread in mine:
        if "asyncio" not in thread.name:
            thread.join(10)
            assert not thread.is_alive(), thread


async def test_closing_leaves_one_file_and_the_gate(path: Path) -> None:
    async with open_database(path, create=True) as database:
        await database.write(add("one"))
        await database.read(names)
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "batchgen.db",
        "batchgen.db-gate",
    ]


async def test_a_missing_database_is_not_made_by_looking(path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        async with open_store(path):
            pass
    assert str(caught.value) == f"{path}: no such database."
    assert caught.value.remedy is Remedy.ENQUEUE_FIRST
    assert list(path.parent.iterdir()) == []


async def test_a_directory_is_not_a_database(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory, not a database"):
        async with open_store(tmp_path, create=True):
            pass


async def test_a_database_in_a_missing_directory_is_an_error_with_words(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "batchgen.db"
    with pytest.raises(UsageError) as caught:
        async with open_store(path, create=True):
            pass
    assert str(caught.value) == f"{path}: there is no directory {path.parent}."


# A file that is not the one that was opened

GONE = (
    "{}: the database was deleted or replaced while in use. "
    "What was committed is in the old file; put it back, or start again."
)


async def test_a_deleted_database_is_told_by_the_next_write(database: Database, path: Path) -> None:
    await database.write(add("one"))
    path.unlink()
    with pytest.raises(StoreError) as caught:
        await database.write(add("two"))
    assert str(caught.value) == GONE.format(path)
    assert not path.exists()


async def test_a_replaced_database_is_told_by_the_next_write_and_left_alone(path: Path) -> None:
    other = path.with_name("other.db")
    async with open_database(other, create=True) as elsewhere:
        await elsewhere.write(add("another"))
    async with open_database(path, create=True) as database:
        shutil.move(other, path)
        before = path.read_bytes()
        with pytest.raises(StoreError) as caught:
            await database.write(add("two"))
    assert str(caught.value) == GONE.format(path)
    assert path.read_bytes() == before


async def test_a_database_put_back_can_be_written_again(database: Database, path: Path) -> None:
    away = path.with_name("away.db")
    path.rename(away)
    with pytest.raises(StoreError):
        await database.write(add("one"))
    away.rename(path)
    await database.write(add("one"))
    assert await database.read(names) == ["one"]


# What SQLite says, in words


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("database or disk is full", StoreFullError, "Everything committed is safe; make room"),
        ("disk I/O error", StoreFullError, "the disk fails, or a quota is used up"),
        ("database is locked", StoreBusyError, "locked by another program that is not batchgen"),
        ("attempt to write a readonly database", StoreError, "Check its permissions"),
        ("unable to open database file", StoreError, "Check its permissions"),
        ("database disk image is malformed", SchemaError, "damaged, or not a database"),
        ("file is not a database", SchemaError, "damaged, or not a database"),
        ("no such table: x", StoreError, "no such table: x"),
    ],
)
def test_an_error_of_sqlite_says_what_to_do(
    path: Path, said: str, kind: type[StoreError], words: str
) -> None:
    error = store_error(sqlite3.OperationalError(said), path)
    assert type(error) is kind
    assert str(error).startswith(f"{path}: ")
    assert said in str(error)
    assert words in str(error)


async def test_a_full_disk_loses_nothing_committed(database: Database, path: Path) -> None:
    await database.write(add("one"))

    def fill(db: SqliteTransaction) -> None:
        db.connection.execute("pragma max_page_count = 1")
        pages = db.connection.execute("pragma page_count").fetchone()[0]
        assert db.connection.execute("pragma max_page_count").fetchone()[0] == pages
        add("x" * 1_000_000)(db)

    with pytest.raises(StoreError) as caught:
        await database.write(fill)
    assert str(caught.value) == (
        f"{path}: database or disk is full. Everything committed is safe; make room."
    )
    assert await database.read(names) == ["one"]


# Strangers


async def test_a_stranger_that_writes_is_noticed_and_our_own_writers_are_not(
    database: Database, path: Path
) -> None:
    async with open_database(path, create=False) as other:
        for name in ("a", "b"):
            await database.write(add(name))
            await other.write(add(f"{name} too"))
        await database.write(add("c"))
        assert (database.foreign_writer_seen, other.foreign_writer_seen) == (False, False)
    async with open_database(path, create=False) as again:
        await again.write(add("d"))
        assert not again.foreign_writer_seen
    await database.write(add("d too"))
    await database.write(add("d three"))
    assert not database.foreign_writer_seen
    with closing(sqlite3.connect(path)) as stranger, stranger:
        stranger.execute("update experiments set created_at = 1")
    await database.write(add("e"))
    assert database.foreign_writer_seen


async def test_a_stranger_that_only_reads_is_nobodys_business(
    database: Database, path: Path
) -> None:
    await database.write(add("a"))
    with closing(sqlite3.connect(path)) as stranger:
        assert names(SqliteTransaction(stranger)) == ["a"]
        await database.write(add("b"))
    await database.write(add("c"))
    assert not database.foreign_writer_seen
