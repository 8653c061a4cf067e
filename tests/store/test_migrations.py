"""A database is brought to the newest schema, or refused untouched and with words."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from batchgen.errors import SchemaError
from batchgen.store import open_store
from batchgen.store.sqlite.migrate import (
    APPLICATION_ID,
    PAGE_SIZE,
    _statements,
    migrate,
    migrations,
)
from tests.kits.table import new_database

# Every change of the schema is a change of this file, seen in review. To renew it:
#   python -m tests.store.test_migrations
GOLDEN = Path(__file__).parent / "golden" / "schema.sql"


def dump_schema(db: sqlite3.Connection) -> str:
    rows = db.execute(
        "select sql from sqlite_master where sql is not null and name not like 'sqlite_%'"
        " order by type <> 'table', tbl_name, name"
    )
    return "".join(f"{sql};\n\n" for (sql,) in rows)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "batchgen.db"


async def test_a_new_database_has_the_golden_schema(path: Path) -> None:
    async with open_store(path, create=True):
        pass
    with closing(sqlite3.connect(path)) as db:
        assert dump_schema(db) == GOLDEN.read_text(encoding="utf-8")


async def test_a_new_database_is_marked_as_ours_with_its_version(path: Path) -> None:
    async with open_store(path, create=True):
        pass
    with closing(sqlite3.connect(path)) as db:
        names = ("application_id", "user_version", "page_size", "journal_mode")
        marks = [db.execute(f"pragma {name}").fetchone()[0] for name in names]
    assert marks == [APPLICATION_ID, len(migrations()), PAGE_SIZE, "wal"]


async def test_opening_again_changes_no_byte(path: Path) -> None:
    async with open_store(path, create=True):
        pass
    before = path.read_bytes()
    async with open_store(path):
        pass
    assert path.read_bytes() == before


def test_migrations_are_numbered_without_a_gap() -> None:
    numbers = [int(file.name[:4]) for file in migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("file", migrations(), ids=lambda file: file.name)
def test_every_statement_of_a_migration_is_run(file: Path) -> None:
    script = file.read_text(encoding="utf-8")
    assert "".join(_statements(script)).rstrip() == script.rstrip()


def test_a_last_statement_without_semicolon_is_not_dropped() -> None:
    assert list(_statements("select 1;\nselect 2\n")) == ["select 1;\n", "select 2\n"]


def test_a_migration_that_fails_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = path.parent / "migrations"
    files.mkdir()
    good = migrations()
    for file in good:
        shutil.copy(file, files)
    broken = files / f"{len(good) + 1:04}_broken.sql"
    broken.write_text("create table extra (a);\ncreate table work (a);\n")
    monkeypatch.setattr("batchgen.store.sqlite.migrate.shipped_path", lambda _: files)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        with pytest.raises(sqlite3.OperationalError, match="table work already exists"):
            migrate(db, path)
        assert db.execute("pragma user_version").fetchone() == (len(good),)
        assert dump_schema(db) == GOLDEN.read_text(encoding="utf-8")


async def test_a_newer_database_is_refused_with_what_to_do(path: Path) -> None:
    newest = len(migrations())
    with closing(new_database(path)) as db:
        db.execute(f"pragma user_version = {newest + 1}")
    before = path.read_bytes()
    with pytest.raises(SchemaError) as caught:
        async with open_store(path):
            pass
    assert str(caught.value) == (
        f"{path}: made by a newer batchgen (schema {newest + 1}; this one knows {newest}). "
        "Upgrade batchgen: pip install -U batchgen-llm"
    )
    assert path.read_bytes() == before


def _other_sqlite(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("create table work (a)")
        db.execute("insert into work values (1)")
        db.commit()


def _marked_by_another(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("pragma application_id = 7")


def _older(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("create table work (a)")
        db.execute("pragma application_id = 0x62617463")
        db.execute("pragma user_version = 8")


def _text(path: Path) -> None:
    path.write_text("Dear diary,\n" * 1000)


NOT_OURS = "{}: not a batchgen database."
TOO_OLD = (
    "{}: made by an older batchgen, whose tables this one does not know. Finish it "
    "with the version that made it, or enqueue the pool anew into another database."
)
NO_DATABASE = "{}: damaged, or not a database (file is not a database)."


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_other_sqlite, NOT_OURS),
        (_marked_by_another, NOT_OURS),
        (_older, TOO_OLD),
        (_text, NO_DATABASE),
    ],
)
async def test_a_foreign_file_is_refused_untouched(
    path: Path, make: Callable[[Path], None], words: str, create: bool
) -> None:
    make(path)
    before, written_at = path.read_bytes(), path.stat().st_mtime_ns
    with pytest.raises(SchemaError) as caught:
        async with open_store(path, create=create):
            pass
    assert str(caught.value) == words.format(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, written_at)
    assert [file.name for file in path.parent.iterdir()] == ["batchgen.db"]


if __name__ == "__main__":
    import tempfile

    with (
        tempfile.TemporaryDirectory() as scratch,
        closing(new_database(Path(scratch) / "golden.db")) as made,
    ):
        GOLDEN.write_text(dump_schema(made), encoding="utf-8")
