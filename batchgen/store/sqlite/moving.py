"""A database as one end of a move: nobody else writes to it meanwhile, as the gate is held."""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import chain, compress, cycle
from pathlib import Path

from batchgen.clock import now_ms
from batchgen.store.sqlite.gate import OwnerLock, lock_beside, machine
from batchgen.store.sqlite.opening import CONNECTION, opened, prepare_writer
from batchgen.store.sqlite.problems import store_errors
from batchgen.store.sqlite.transaction import SqliteTransaction
from batchgen.store.tables import (
    NUMBERED,
    OF_FILES,
    OF_THE_LIVING,
    PAGE_ROWS,
    TABLES,
    Move,
    Row,
    moved_words,
)

_OTHERS = {"enqueue": "another batchgen is enqueueing into it",
           "reparse": "another batchgen parses its answers again",
           "batches": "another batchgen sends provider batches"}  # fmt: skip
_REFUSING = [table for table in (*TABLES, *OF_THE_LIVING) if table not in OF_FILES]
_AT_A_TIME = 64  # of rows that were one by one, each would wait for Python's lock
_NEW_KEYS = (
    " union all select key, item_id from new_item_keys n"
    " where not exists (select 1 from item_keys k where k.key = n.key)"
)


class _End:
    def __init__(self, path: Path, connection: sqlite3.Connection, busy: str | None) -> None:
        self.name = str(path)
        self.machine, _ = machine()
        self.connection = connection
        self.transaction = SqliteTransaction(connection)
        self._busy = busy

    def moved_to(self) -> Move | None:
        found = self.connection.execute("select id, other from moves where went = 1").fetchone()
        return None if found is None else Move(*found)

    def busy(self) -> str | None:
        return self._busy

    def columns(self, table: str) -> list[str]:
        rows = self.connection.execute("select name from pragma_table_info(?)", [table])
        of_files = ["machine"] if table in OF_FILES else []
        return [*of_files, *(name for (name,) in rows)]

    def count(self, table: str) -> int:
        (n,) = self.connection.execute(f"select count(*) from ({_of(table)})").fetchone()
        return int(n)


class SqliteSource(_End):
    def pages(self, table: str, columns: Sequence[str]) -> Iterator[Sequence[Row]]:
        names = ", ".join("?" if name == "machine" else name for name in columns)
        values = [self.machine] if "machine" in columns else []
        order = "" if table == "item_keys" else f" order by {TABLES[table]}"
        rows = self.connection.execute(f"select {names} from ({_of(table)}){order}", values)
        while page := rows.fetchmany(PAGE_ROWS):
            yield page

    def numbers(self) -> dict[str, int]:
        given = dict(self.connection.execute("select name, seq from sqlite_sequence"))
        return {
            table: max(given.get(table, 0), self._highest(table, column))
            for table, column in NUMBERED.items()
        }

    def _highest(self, table: str, column: str) -> int:
        (n,) = self.connection.execute(f"select coalesce(max({column}), 0) from {table}").fetchone()
        return int(n)

    def give_up(self, move: Move) -> None:
        self._forget()
        note = (move.id, move.other, now_ms())
        self.connection.execute("insert into moves values (?, ?, 1, ?)", note)
        words = moved_words(move.other).replace("'", "''")
        for table in _REFUSING:
            for what in ("insert", "update", "delete"):
                self.connection.execute(
                    f"create trigger moved_{table}_{what} before {what} on {table}"
                    f" begin select raise(abort, '{words}'); end"
                )
        self.connection.execute("commit")

    def take_back(self) -> None:
        if not self.connection.in_transaction:
            self.connection.execute("begin immediate")
        self._forget()
        self.connection.execute("commit")

    def _forget(self) -> None:
        self.connection.execute("delete from moves where went = 1")
        for table in _REFUSING:
            for what in ("insert", "update", "delete"):
                self.connection.execute(f"drop trigger if exists moved_{table}_{what}")


class SqliteTarget(_End):
    replaced_nuls = 0

    def __init__(self, path: Path, connection: sqlite3.Connection, busy: str | None) -> None:
        super().__init__(path, connection, busy)
        self.left_files = 0

    def has_come(self, move_id: str) -> bool:
        which = "select 1 from moves where id = ? and went = 0"
        return self.connection.execute(which, [move_id]).fetchone() is not None

    def add(self, table: str, columns: Sequence[str], pages: Iterable[Sequence[Row]]) -> None:
        if table in OF_FILES:
            columns, pages = columns[1:], map(self._of_this_machine, pages)
        into = f"insert into {table} ({', '.join(columns)}) values "
        for page in pages:
            # Of each None that is bound, sqlite3 asks how it is to be stored, which takes long.
            has = [any(value is not None for value in values) for values in zip(*page, strict=True)]
            one = f"({', '.join(['?' if has_some else 'null' for has_some in has])})"
            for begin in range(0, len(page), _AT_A_TIME):
                some = page[begin : begin + _AT_A_TIME]
                statement = into + ", ".join([one] * len(some))
                values = compress(chain.from_iterable(some), cycle(has))
                self.connection.execute(statement, [*values])

    def _of_this_machine(self, page: Sequence[Row]) -> list[Row]:
        own = [row[1:] for row in page if row[0] == self.machine]
        self.left_files += len(page) - len(own)
        return own

    def fill_up(self, numbers: Mapping[str, int]) -> None:
        own = "select name from sqlite_master where type = 'table' and sql like '%autoincrement%'"
        for (table,) in self.connection.execute(own).fetchall():
            self.connection.execute("delete from sqlite_sequence where name = ?", [table])
            if n := numbers[table]:
                given = "insert into sqlite_sequence (name, seq) values (?, ?)"
                self.connection.execute(given, (table, n))

    def finish(self, move: Move) -> None:
        note = (move.id, move.other, now_ms())
        self.connection.execute("insert into moves values (?, ?, 0, ?)", note)

    def commit(self) -> None:
        self.connection.execute("commit")


@contextmanager
def open_source(path: Path) -> Iterator[SqliteSource]:
    """Raises UsageError when there is none."""
    with _held(path, create=False) as (place, connection, busy):
        yield SqliteSource(place, connection, busy)


@contextmanager
def open_target(path: Path) -> Iterator[SqliteTarget]:
    """It is made when there is none; of a move that does not come to its end an empty one stays."""
    with _held(path, create=True) as (place, connection, busy):
        yield SqliteTarget(place, connection, busy)


@contextmanager
def _held(path: Path, *, create: bool) -> Iterator[tuple[Path, sqlite3.Connection, str | None]]:
    """In a transaction that is undone where nobody commits it."""
    with (
        opened(path, create=create) as (place, gate, name),
        store_errors(place),
        ExitStack() as own,
    ):
        locks = {what: lock_beside(place, what) for what in _OTHERS}
        busy = _who_holds(locks, own)
        own.enter_context(gate.hold())
        connection: sqlite3.Connection = own.enter_context(
            closing(sqlite3.connect(place, **CONNECTION))
        )
        prepare_writer(connection, place, name)
        if create and name.is_alone:
            _write_in_place(connection)
        connection.execute("pragma foreign_keys = 0")  # the proof looks for missing parents
        connection.execute("begin immediate")
        yield place, connection, busy


def _write_in_place(connection: sqlite3.Connection) -> None:
    """Until it is opened again. Of an empty file there is next to nothing that a journal has to
    keep, while a log would be all that is moved, written once more."""
    connection.execute("pragma journal_mode = delete")
    connection.execute("pragma synchronous = 3")  # its end is as durable as a log's at 2


def _who_holds(locks: Mapping[str, OwnerLock], own: ExitStack) -> str | None:
    """Hold them all, or say who has one."""
    for what, lock in locks.items():
        if not lock.acquire():
            return f"{_OTHERS[what]} ({lock.holder()})"
        own.callback(lock.release)
    return None


def _of(table: str) -> str:
    return f"select * from {table}{_NEW_KEYS if table == 'item_keys' else ''}"
