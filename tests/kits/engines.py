"""The engines as the store's tests use them: a transaction at a time, without the store's doors."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from batchgen.database_address import PostgresAddress
from batchgen.items import NewItem
from batchgen.store import Added, Intake, NewRows
from batchgen.store.postgres.additions import Chunk, Pass
from batchgen.store.postgres.opening import connect
from batchgen.store.postgres.pipeline import Pipeline
from batchgen.store.postgres.pool_memory import NewKeys
from batchgen.store.postgres.session import ALONE, Session
from batchgen.store.postgres.transaction import PostgresTransaction
from batchgen.store.seen_keys import SeenKeys
from batchgen.store.sqlite import additions
from batchgen.store.sqlite.item_keys import begin_pass
from batchgen.store.sqlite.transaction import SqliteTransaction
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.additions import add_items, count_new

T = TypeVar("T")

_EMPTYING = """
select 'begin; set local session_replication_role = replica;' || string_agg(text, ';') || ';commit'
  from (select case relkind when 'r' then format('delete from %s', oid::regclass)
                    else format('select setval(%L, 1, false)', oid::regclass) end
          from pg_class
         where relnamespace = current_schema()::regnamespace and relkind in ('r', 'S')
           and relname <> 'schema_version') one (text)
"""


class Engine(Protocol):
    @property
    def transaction(self) -> Transaction:
        """For looking, outside of `run`."""

    def run(self, transaction: Callable[[Any], T], worker_id: int = 0) -> T:
        """All or nothing, and alone; what is counted is counted for that worker."""

    def query(self, sql: str, parameters: Sequence[Any]) -> tuple[list[str], list[Any]]:
        """The names of the columns, and the rows, of any SQL whose parameters are `?`."""

    def begin_pass(self, db: Any) -> SeenKeys: ...

    def add_items(self, db: Any, into: Intake, rows: Sequence[NewItem], priority: int) -> Added: ...

    def begin_count(self) -> int: ...

    def count_new(self, into: Intake, rows: Sequence[NewItem], first: int) -> NewRows: ...


class SqliteEngine:
    """On a connection that begins no transactions by itself."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self.transaction = SqliteTransaction(db)

    def run(self, transaction: Callable[[SqliteTransaction], T], worker_id: int = 0) -> T:
        self.db.execute("begin immediate")
        try:
            result = transaction(self.transaction)
            self.db.execute("commit")
        except BaseException:
            self.db.rollback()
            raise
        return result

    def query(self, sql: str, parameters: Sequence[Any]) -> tuple[list[str], list[Any]]:
        cursor = self.db.execute(sql, parameters)
        return [column[0] for column in cursor.description or ()], cursor.fetchall()

    def begin_pass(self, db: Transaction) -> SeenKeys:
        return begin_pass(db)

    def add_items(
        self, db: Transaction, into: Intake, rows: Sequence[NewItem], priority: int
    ) -> Added:
        return additions.add_items(db, into, rows, priority)

    def begin_count(self) -> int:
        return self.run(additions.begin_count)

    def count_new(self, into: Intake, rows: Sequence[NewItem], first: int) -> NewRows:
        return self.run(lambda db: additions.count_new(db, into, rows, first))


class PostgresEngine:
    """With a connection to write, and one to look at what is there."""

    def __init__(self, address: PostgresAddress, machine: str = "here") -> None:
        self._pass = Pass()
        self._chunk: Chunk | None = None
        self._emptying = b""
        self._own: dict[str, object] = {"this_worker": 0, "this_machine": machine}
        connection, server = connect(address)
        self._looking = Pipeline(connection, prepares=False)
        self._session = Session(address, *connect(address), self._own)
        self.transaction = PostgresTransaction(self._looking, server.schema, self._own)

    def run(self, transaction: Callable[[PostgresTransaction], T], worker_id: int = 0) -> T:
        self._own["this_worker"] = worker_id
        try:
            result = self._session.run(ALONE, transaction)
        finally:
            self._own["this_worker"] = 0
            chunk, self._chunk = self._chunk, None
        if chunk is not None:
            self._pass.keep(chunk)
        return result

    def query(self, sql: str, parameters: Sequence[Any]) -> tuple[list[str], list[Any]]:
        pieces = sql.split("?")
        text = pieces[0] + "".join(f"${n}{piece}" for n, piece in enumerate(pieces[1:], start=1))
        cursor = self._looking.send(text.encode(), list(parameters))
        names = [name for (name,) in cursor.description]
        return names, cursor.fetchall() if names else []

    def begin_pass(self, db: Transaction) -> SeenKeys:
        self._pass = Pass()
        return SeenKeys()

    def add_items(
        self, db: PostgresTransaction, into: Intake, rows: Sequence[NewItem], priority: int
    ) -> Added:
        self._chunk = Chunk(db, self._pass)
        return add_items(db, self._chunk, into, rows, priority)

    def begin_count(self) -> int:
        first = self.transaction.newest("items") + 1
        self._pass = Pass(NewKeys(first))
        return first

    def count_new(self, into: Intake, rows: Sequence[NewItem], first: int) -> NewRows:
        chunk = Chunk(self.transaction, self._pass)
        new = count_new(chunk, into, rows, first)
        self._pass.keep(chunk)
        return new

    def empty(self) -> None:
        """Without rows, and all numbers begin anew, as in a database that was made a moment ago.
        Far quicker than to make one, and what is prepared stays prepared."""
        if not self._emptying:
            found = self._looking.connection.execute(_EMPTYING).fetchone()
            assert found is not None
            self._emptying = str(found[0]).encode()
        self._looking.connection.execute(self._emptying, prepare=False)
        self._pass = Pass()

    def close(self) -> None:
        self._session.close()
        self._looking.connection.close()


@contextmanager
def postgres_engine(
    address: PostgresAddress, machine: str = "here"
) -> Iterator[PostgresEngine]:  # fmt: skip
    engine = PostgresEngine(address, machine)
    try:
        yield engine
    finally:
        engine.close()
