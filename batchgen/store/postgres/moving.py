"""A database as one end of a move: nobody else writes to it meanwhile, as the lock of all that
write is held. Rows go in by COPY, and come out by a cursor of the server's, as to read a COPY takes
a step in Python for each."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

from batchgen.clock import now_ms
from batchgen.database_address import PostgresAddress
from batchgen.errors import StoreError
from batchgen.store.postgres.locks import MOVING, WRITING, lock_key
from batchgen.store.postgres.opening import (
    SET_LOCAL,
    Server,
    connect,
    open_schema,
    refuse_read_only,
)
from batchgen.store.postgres.pipeline import Pipeline
from batchgen.store.postgres.problems import store_errors
from batchgen.store.postgres.processes import has_ended
from batchgen.store.postgres.transaction import PostgresTransaction
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

_BY_WORKER = ("counters", "parser_counters", "step_counters", "totals", "failed_calls", "minutes")
_SEQUENCES = {table: f"{table}_numbers" for table in ("items", "attempts", "results")}
_WAIT = "60s"
_NUL, _IN_ITS_PLACE = "\0", "\ufffd"
_BUSY = """
select name, host, boot_id, pid from leases
 where lease_until > (extract(epoch from clock_timestamp()) * 1000)::bigint
"""
_LANDS_FOR_SURE = """
select set_config('synchronous_commit', 'on', true)
 where current_setting('synchronous_commit') = 'off'
"""


class _End:
    def __init__(
        self, address: PostgresAddress, connection: psycopg.Connection, server: Server
    ) -> None:
        self.name = address.name
        self.connection = connection
        own = {"this_worker": 0, "this_machine": ""}  # files have their machine in each row
        self.transaction = PostgresTransaction(
            Pipeline(connection, prepares=False), server.schema, own
        )

    def moved_to(self) -> Move | None:
        found = self.connection.execute("select id, other from moves where went = 1").fetchone()
        return None if found is None else Move(*found)

    def busy(self) -> str | None:
        for name, host, boot_id, pid in self.connection.execute(_BUSY):
            if not has_ended(boot_id, pid):
                return f"another batchgen is {name} ({host}, pid {pid})"
        return None

    def columns(self, table: str) -> list[str]:
        return list(self._types(table))

    def count(self, table: str) -> int:
        (n,) = self._row(f"select count(*) from {table}")
        return int(n)

    def _types(self, table: str) -> dict[str, str]:
        """Of each column, in the order of a source."""
        rows = self.connection.execute(
            "select column_name::text, udt_name::text from information_schema.columns"
            " where table_schema = current_schema() and table_name = %s"
            " order by column_name <> 'machine', ordinal_position", [table],
        )  # fmt: skip
        return dict(rows.fetchall())

    def _row(self, text: str) -> tuple[Any, ...]:
        row = self.connection.execute(text.encode()).fetchone()
        assert row is not None
        return row


class PostgresSource(_End):
    def pages(self, table: str, columns: Sequence[str]) -> Iterator[Sequence[Row]]:
        """The server makes the next page ready while this one is written elsewhere."""
        order = f"machine, {TABLES[table]}" if table in OF_FILES else TABLES[table]
        rows = f"select {', '.join(columns)} from {table} order by {order}"
        self.connection.execute(f"declare {table}_moved no scroll cursor for {rows}".encode())
        with self.connection.pipeline():
            next_page = self._begin_page(table)
            while page := next_page.fetchall():
                next_page = self._begin_page(table)
                yield page
        self.connection.execute(f"close {table}_moved".encode())

    def _begin_page(self, table: str) -> psycopg.Cursor:
        """In binary, which is read without a step in Python for a value."""
        fetch = f"fetch {PAGE_ROWS} from {table}_moved".encode()
        return self.connection.cursor(binary=True).execute(fetch, prepare=False)

    def numbers(self) -> dict[str, int]:
        return {
            table: int(self._row(
                "select case when is_called then last_value else 0 end"
                f" from {_sequence(table)}")[0])
            for table in NUMBERED
        }  # fmt: skip

    def give_up(self, move: Move) -> None:
        self._forget()
        self.connection.execute(
            "insert into moves values (%s, %s, 1, %s)", (move.id, move.other, now_ms())
        )
        words = moved_words(move.other).replace("'", "''")
        for table in _refusing():
            self.connection.execute(
                f"create trigger moved before insert or update or delete or truncate on {table}"
                f" for each statement execute function refuse_work('{words}')".encode()
            )
        self.connection.execute("commit")

    def take_back(self) -> None:
        if self.connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            self.connection.execute("begin")
        self._forget()
        self.connection.execute("commit")

    def _forget(self) -> None:
        self.connection.execute("delete from moves where went = 1")
        for table in _refusing():
            self.connection.execute(f"drop trigger if exists moved on {table}".encode())


class PostgresTarget(_End):
    def __init__(
        self, address: PostgresAddress, connection: psycopg.Connection, server: Server
    ) -> None:
        super().__init__(address, connection, server)
        self.replaced_nuls = 0
        self.left_files = 0

    def has_come(self, move_id: str) -> bool:
        which = "select 1 from moves where id = %s and went = 0"
        return self.connection.execute(which, [move_id]).fetchone() is not None

    def add(self, table: str, columns: Sequence[str], pages: Iterable[Sequence[Row]]) -> None:
        types, names, more = self._types(table), list(columns), Row()
        texts = [place for place, name in enumerate(columns) if types[name] == "text"]
        kinds = [types[name] for name in columns]
        if table == "failed_calls":
            names, kinds, more = [*names, "newest_at"], [*kinds, "int8"], (now_ms(),)
        query = f"copy {_base(table)} ({', '.join(names)}) from stdin (format binary)"
        with self.connection.cursor() as cursor, cursor.copy(query.encode()) as copy:
            copy.set_types(kinds)
            for page in pages:
                for row in self._without_nuls(page, texts):
                    copy.write_row(row + more)

    def _without_nuls(self, page: Sequence[Row], texts: Sequence[int]) -> Sequence[Row]:
        """`texts` are the places of the columns that may have some."""
        if _NUL not in "".join([row[place] or "" for row in page for place in texts]):
            return page
        return [tuple(map(self._without_nul, row)) for row in page]

    def _without_nul(self, value: object) -> object:
        if not isinstance(value, str) or _NUL not in value:
            return value
        self.replaced_nuls += 1
        return value.replace(_NUL, _IN_ITS_PLACE)

    def fill_up(self, numbers: Mapping[str, int]) -> None:
        for table, n in numbers.items():
            if n:
                self.connection.execute(f"select setval('{_sequence(table)}', {n})".encode())
        # What has just been filled is not known to the planner. A rough idea is enough to prove it
        # by; a better one comes by itself, and texts of whole answers take long to be looked at.
        self.connection.execute("set local default_statistics_target = 10")
        for table in TABLES:
            self.connection.execute(f"analyze {_base(table)}".encode())

    def finish(self, move: Move) -> None:
        note = "insert into moves values (%s, %s, 0, %s)"
        self.connection.execute(note, (move.id, move.other, now_ms()))

    def commit(self) -> None:
        self.connection.execute("commit")


@contextmanager
def open_source(address: PostgresAddress) -> Iterator[PostgresSource]:
    """Raises UsageError when there are no tables of ours in it."""
    with _held(address, create=False) as (connection, server):
        yield PostgresSource(address, connection, server)


@contextmanager
def open_target(address: PostgresAddress) -> Iterator[PostgresTarget]:
    """Its tables are made when there are none; of a move that does not come to its end they stay,
    empty."""
    with _held(address, create=True) as (connection, server):
        yield PostgresTarget(address, connection, server)


@contextmanager
def _held(address: PostgresAddress, *, create: bool) -> Iterator[tuple[psycopg.Connection, Server]]:
    """In a transaction that is undone where nobody commits it."""
    connection, server = connect(address)
    try:
        refuse_read_only(server, address)
        open_schema(connection, server, address, create=create)
        with store_errors(address):
            _begin(connection, server)
            yield connection, server
    finally:
        with suppress(psycopg.Error, StoreError):
            connection.close()


def _begin(connection: psycopg.Connection, server: Server) -> None:
    """Alone. The other end may keep us waiting for long."""
    connection.execute("begin")
    connection.execute(SET_LOCAL.encode())
    for way in ("enable_seqscan", "enable_mergejoin"):  # whole tables are read, and proven
        connection.execute(f"set local {way} = on".encode())
    connection.execute(f"set local lock_timeout = '{_WAIT}'".encode())
    connection.execute("set local idle_in_transaction_session_timeout = 0")
    connection.execute(_LANDS_FOR_SURE.encode())
    for kind in (MOVING, WRITING):
        connection.execute(
            "select pg_advisory_xact_lock(%s::int, %s::int)", lock_key(server.schema, kind)
        )


def _base(table: str) -> str:
    """The table that has the rows: what is counted is counted by worker, here by none."""
    return f"{table}_by_worker" if table in _BY_WORKER else table


def _refusing() -> list[str]:
    tables = [_base(table) for table in (*TABLES, *OF_THE_LIVING) if table not in OF_FILES]
    return [*tables, "leases"]


def _sequence(table: str) -> str:
    return _SEQUENCES.get(table, f"{table}_id_seq")
