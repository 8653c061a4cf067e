"""Brings a database to the newest schema: migrations/sqlite/NNNN_name.sql, forward only.

Each file is one transaction with its record, and is never edited after a release. The number of
the newest one applied is `pragma user_version`; `pragma application_id` marks the file as ours.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from batchgen.errors import Remedy, SchemaError
from batchgen.installed import shipped_path

APPLICATION_ID = 0x6261746E  # "batn"
# With other tables and columns.
_IDS_BEFORE_RELEASE = (0x62617463, 0x62617467, 0x62617468, 0x62617469, 0x6261746A, 0x6261746B,
                       0x6261746C, 0x6261746D)  # fmt: skip
PAGE_SIZE = 8192  # a 2.4 KB answer takes 3.0 KB in such pages, 3.2 KB in SQLite's default of 4096


def migrations() -> list[Path]:
    """The shipped migrations in their order; the list's index plus one is the number."""
    files = shipped_path("migrations/sqlite").iterdir()
    return sorted(file for file in files if file.suffix == ".sql")


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the open database to the newest schema. Call while holding the write gate.

    Raises SchemaError when the file is newer than this program, or is not batchgen's.
    """
    newest = migrations()
    version = schema_version(connection, path)
    if version > len(newest):
        raise SchemaError(
            f"{path}: made by a newer batchgen (schema {version}; this one knows {len(newest)}). "
            "Upgrade batchgen: pip install -U batchgen-llm"
        )
    if version < len(newest):  # for 0002
        connection.create_function("bucket", 1, _bucket, deterministic=True)
        connection.create_function("chars", 1, len, deterministic=True)
    for number, file in enumerate(newest[version:], start=version + 1):
        _apply(connection, number, file)


def schema_version(connection: sqlite3.Connection, path: Path) -> int:
    """0 for an empty file. Raises SchemaError when the file holds anything but our tables."""
    (application_id,) = connection.execute("pragma application_id").fetchone()
    (version,) = connection.execute("pragma user_version").fetchone()
    (tables,) = connection.execute("select count(*) from sqlite_master").fetchone()
    if application_id in _IDS_BEFORE_RELEASE:
        raise SchemaError(
            f"{path}: made by an older batchgen, whose tables this one does not know. Finish it "
            "with the version that made it, or enqueue the pool anew into another database."
        )
    if application_id != APPLICATION_ID and (tables or application_id):
        raise SchemaError(f"{path}: not a batchgen database.", Remedy.NAME_DATABASE)
    return int(version)


def _bucket(n: int | None) -> int | None:
    from batchgen.store.minutes import bucket_of  # here: only old databases need it

    return None if n is None else bucket_of(n)


def _apply(connection: sqlite3.Connection, number: int, file: Path) -> None:
    connection.execute("begin immediate")
    try:
        for statement in _statements(file.read_text(encoding="utf-8")):
            connection.execute(statement)
        connection.execute(f"pragma application_id = {APPLICATION_ID}")
        connection.execute(f"pragma user_version = {number}")
        connection.execute("commit")
    except BaseException:
        connection.rollback()
        raise


def _statements(script: str) -> Iterator[str]:
    """Single statements: executescript would commit the transaction that they belong to."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():  # a last one without its semicolon, or a comment
        yield statement
