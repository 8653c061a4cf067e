"""The engines as the store's tests use them: a transaction at a time, without the store's doors."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from batchgen.database_address import PostgresAddress
from batchgen.items import NewItem, State
from batchgen.store import Added, Intake
from batchgen.store.deltas import CounterDeltas
from batchgen.store.postgres.adapting import as_json
from batchgen.store.postgres.opening import connect
from batchgen.store.postgres.session import ALONE, Session
from batchgen.store.postgres.transaction import Answer, PostgresTransaction
from batchgen.store.seen_keys import SeenKeys
from batchgen.store.sqlite import additions
from batchgen.store.sqlite.item_keys import begin_pass
from batchgen.store.sqlite.transaction import SqliteTransaction
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.deltas import write_deltas

T = TypeVar("T")


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


class PostgresEngine:
    """With a connection to write, and one to look at what is there."""

    def __init__(self, address: PostgresAddress) -> None:
        self._own: dict[str, object] = {"this_worker": 0, "this_machine": "here"}
        self._looking, server = connect(address)
        self._session = Session(address, *connect(address), self._own)
        self.transaction = PostgresTransaction(self._looking, server.schema, self._own)

    def run(self, transaction: Callable[[PostgresTransaction], T], worker_id: int = 0) -> T:
        self._own["this_worker"] = worker_id
        try:
            return self._session.run(ALONE, transaction)
        finally:
            self._own["this_worker"] = 0

    def query(self, sql: str, parameters: Sequence[Any]) -> tuple[list[str], list[Any]]:
        pieces = sql.split("?")
        text = pieces[0] + "".join(f"${n}{piece}" for n, piece in enumerate(pieces[1:], start=1))
        cursor = Answer(self._looking).execute(text.encode(), list(parameters))
        names = [column.name for column in cursor.description or ()]
        return names, cursor.fetchall() if names else []

    def begin_pass(self, db: Transaction) -> SeenKeys:
        return SeenKeys()

    def add_items(
        self, db: Transaction, into: Intake, rows: Sequence[NewItem], priority: int
    ) -> Added:
        """Rows that are all new; until the engine has an intake of its own."""
        assert isinstance(db, PostgresTransaction)
        first = db.first_new("items", len(rows))
        items = [
            {"id": n, "custom_id": row.custom_id, "input": row.input_json, "key": row.key.hex()}
            for n, row in enumerate(rows, start=first)
        ]
        values = [as_json(items), into.experiment_id, into.variant, into.recipe_id]
        of_rows = (
            "from json_to_recordset($1) as r (id bigint, custom_id text, input text, key text)"
        )
        for statement, parameters in (
            (f"insert into items (id, experiment_id, variant, recipe_id, custom_id, input)"
             f" select id, $2, $3, $4, custom_id, input {of_rows}", values),
            (f"insert into item_keys select decode(key, 'hex'), id {of_rows}", values[:1]),
            (f"insert into work (item_id, experiment_id, priority) select id, $2, $3 {of_rows}",
             [values[0], into.experiment_id, priority]),
        ):  # fmt: skip
            Answer(db.connection).execute(statement.encode(), parameters)
        deltas = CounterDeltas()
        deltas.move(into.experiment_id, State.PENDING, len(rows))
        write_deltas(db, deltas)
        return Added([int(str(item["id"])) for item in items], len(rows))

    def close(self) -> None:
        self._session.close()
        self._looking.close()


@contextmanager
def postgres_engine(address: PostgresAddress) -> Iterator[PostgresEngine]:
    engine = PostgresEngine(address)
    try:
        yield engine
    finally:
        engine.close()
