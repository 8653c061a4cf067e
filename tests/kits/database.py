"""A database as a stranger sees it, whichever engine keeps it: asked, or held, in SQL."""

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchgen.database_address import DatabaseAddress, PostgresAddress

Parameters = Mapping[str, Any] | Sequence[Any]


def database_in(directory: Path) -> "DatabaseAddress":
    """Where commands there keep theirs, if they are not told otherwise."""
    if url := os.environ.get("BATCHGEN_DATABASE"):
        from batchgen.database_address import address_of

        return address_of(url)
    return directory / "batchgen.db"


def ask(database: "DatabaseAddress", sql: str, parameters: Parameters = ()) -> list[Any]:
    """While nobody works on it."""
    if not isinstance(database, Path):
        return _ask_server(database, sql, parameters)
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql, parameters).fetchall()


def look(database: "DatabaseAddress", sql: str, timeout_s: float = 20) -> list[Any]:
    """While others work on it: read-only, so closing checkpoints nothing."""
    if not isinstance(database, Path):
        return _ask_server(database, sql, ())
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=timeout_s)) as db:
        return db.execute(sql).fetchall()


def change(database: "DatabaseAddress", sql: str, parameters: Parameters = ()) -> None:
    """As a stranger would."""
    if not isinstance(database, Path):
        _ask_server(database, sql, parameters)
        return
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(sql, parameters)


def is_untouched(database: "DatabaseAddress") -> bool:
    """Whether nobody has enqueued into it; on SQLite, not even made it."""
    if isinstance(database, Path):
        return not database.exists()
    return _ask_server(database, "select count(*) from experiments", ()) == [(0,)]


class Stranger:
    """A SQL shell with an open transaction: nobody else can write; on a server, to this table, if
    one is named."""

    def __init__(self, database: "DatabaseAddress", table: str | None = None) -> None:
        if isinstance(database, Path):
            self._db: Any = sqlite3.connect(database, isolation_level=None, timeout=20)
            self._db.execute("begin immediate")
        else:
            self._db = _locked_server(database, table)

    def let_go(self) -> None:
        self._db.close()


@contextmanager
def locked(database: "DatabaseAddress", table: str | None = None) -> Iterator[Stranger]:
    stranger = Stranger(database, table)
    try:
        yield stranger
    finally:
        stranger.let_go()


def _ask_server(database: "PostgresAddress", sql: str, parameters: Parameters) -> list[Any]:
    from batchgen.store.postgres.opening import connect  # here: most tests need no driver
    from batchgen.store.postgres.pipeline import Pipeline

    given = {f":{name}": value for name, value in parameters.items()} if isinstance(
        parameters, Mapping
    ) else {}  # fmt: skip
    for n, name in enumerate(given, start=1):
        sql = sql.replace(name, f"${n}")
    first, *more = sql.split("?")
    text = first + "".join(f"${n}{piece}" for n, piece in enumerate(more, start=1))
    with closing(connect(database)[0]) as connection:
        values = [*(given.values() or parameters)]
        answer = Pipeline(connection, prepares=False).send(text.encode(), values)
        return answer.fetchall() if answer.description else []


def _locked_server(database: "PostgresAddress", table: str | None) -> Any:
    from batchgen.store.postgres.locks import WRITING, lock_key
    from batchgen.store.postgres.opening import connect

    connection, server = connect(database)
    connection.execute("set idle_in_transaction_session_timeout = 0")
    connection.execute("begin")
    if table is None:
        key = lock_key(server.schema, WRITING)
        connection.execute("select pg_advisory_xact_lock(%s::int, %s::int)", key)
    else:
        connection.execute(f"lock table {table} in exclusive mode".encode())
    return connection
