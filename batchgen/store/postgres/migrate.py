"""Brings a database to the newest schema: migrations/postgres/NNNN_name.sql, forward only.

All files that are new to it are one transaction with their record, under a lock, so of many that
open it at once one does it. A file is never edited after a release. What is there already, and is
not ours, is left alone.
"""

import re
from pathlib import Path

import psycopg

from batchgen.database_address import PostgresAddress
from batchgen.errors import Remedy, SchemaError, StoreError
from batchgen.installed import shipped_path
from batchgen.store.postgres.holders import who_holds
from batchgen.store.postgres.locks import MIGRATING, lock_key
from batchgen.store.postgres.problems import PassingError, lacking_rights

APPLICATION = "batchgen 4"  # another number for other tables and columns, until the first release
_OURS = re.compile(r"^create (?:table|view|sequence) (\w+)", re.MULTILINE)


def migrations() -> list[Path]:
    """The shipped migrations in their order; the list's index plus one is the number."""
    files = shipped_path("migrations/postgres").iterdir()
    return sorted(file for file in files if file.suffix == ".sql")


def schema_version(connection: psycopg.Connection, address: PostgresAddress) -> int:
    """0 where there is nothing of ours yet. Raises SchemaError when the tables are not ours, or of
    another batchgen."""
    found = _relations(connection)
    if "schema_version" not in found:
        return _nothing_of_ours(found, address)
    version, application = _mark(connection, address)
    if application.split()[:1] != ["batchgen"]:
        raise _not_ours(["schema_version"], address)
    if application != APPLICATION:
        raise SchemaError(
            f"{address.name}: made by another batchgen, whose tables this one does not know. "
            "Finish it with the version that made it, or enqueue the pool anew into another "
            "database or schema."
        )
    newest = len(migrations())
    if version > newest:
        raise SchemaError(
            f"{address.name}: made by a newer batchgen (schema {version}; this one knows {newest})."
            " Upgrade batchgen: pip install -U batchgen-llm"
        )
    return version


def migrate(connection: psycopg.Connection, address: PostgresAddress, schema: str) -> None:
    """Bring the database to the newest schema. Raises as `schema_version` does, and PassingError
    where another process does the same, and does not come to an end."""
    try:
        _migrate(connection, address, schema)
    except psycopg.errors.LockNotAvailable as exc:
        who = who_holds(connection, schema, MIGRATING)
        raise PassingError(
            f"{address.name}: another process makes its tables, and has not come to an end "
            f"({who or 'by now it has'}). Let it finish, continue it if it is stopped (fg), or end "
            "it.",
            Remedy.RUN_AGAIN,
        ) from exc


def _migrate(connection: psycopg.Connection, address: PostgresAddress, schema: str) -> None:
    files = migrations()
    with connection.transaction():
        connection.execute(
            "select pg_advisory_xact_lock(%s::int, %s::int)", lock_key(schema, MIGRATING)
        )
        version = schema_version(connection, address)  # nobody changes it any more
        for file in files[version:]:
            _apply(connection, file, address)
        connection.execute("delete from schema_version")
        connection.execute("insert into schema_version values (%s, %s)", (len(files), APPLICATION))


def _apply(connection: psycopg.Connection, file: Path, address: PostgresAddress) -> None:
    try:
        connection.execute(file.read_bytes(), prepare=False)
    except psycopg.errors.InsufficientPrivilege as exc:
        raise StoreError(
            f"{address.name}: its user may not make tables there ({exc.diag.message_primary}). As "
            "the owner of the database: create schema batchgen authorization USER; and add "
            "?options=-csearch_path%3Dbatchgen to the address."
        ) from exc


def _relations(connection: psycopg.Connection) -> set[str]:
    """The tables, views and sequences of the schema in which ours are made."""
    rows = connection.execute(
        "select relname from pg_class where relnamespace = current_schema()::regnamespace"
        " and relkind in ('r', 'p', 'v', 'm', 'S', 'f')"
    )
    return {name for (name,) in rows}


def _nothing_of_ours(found: set[str], address: PostgresAddress) -> int:
    ours = {name for file in migrations() for name in _OURS.findall(file.read_text("utf-8"))}
    if others := sorted(found & ours):
        raise _not_ours(others, address)
    return 0


def _not_ours(names: list[str], address: PostgresAddress) -> SchemaError:
    return SchemaError(
        f"{address.name}: has tables of another program by names of ours ({', '.join(names[:5])}). "
        "Give batchgen a schema of its own there: create schema batchgen; and add "
        "?options=-csearch_path%3Dbatchgen to the address.",
        Remedy.NAME_DATABASE,
    )


def _mark(connection: psycopg.Connection, address: PostgresAddress) -> tuple[int, str]:
    try:
        with connection.transaction():
            row = connection.execute("select version, application from schema_version").fetchone()
    except psycopg.errors.UndefinedColumn:
        row = None
    except psycopg.errors.InsufficientPrivilege as exc:
        raise StoreError(
            f"{lacking_rights(exc, address)} Where they are another program's, give batchgen a "
            "schema of its own."
        ) from exc
    if row is None:
        raise _not_ours(["schema_version"], address)
    return int(row[0]), str(row[1])
