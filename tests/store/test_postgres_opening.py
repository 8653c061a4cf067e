"""Opening a database of PostgreSQL: it is brought to the newest schema, or refused untouched, in
one line that says what to do and has no password in it."""

import re
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from batchgen.database_address import PostgresAddress, address_of, masked
from batchgen.errors import (
    BatchgenError,
    Remedy,
    SchemaError,
    StoreAwayError,
    StoreError,
    UsageError,
)
from batchgen.store.postgres.connection import open_database
from batchgen.store.postgres.migrate import APPLICATION, migrations
from batchgen.store.postgres.reading import open_to_read
from tests.kits.postgres import Cluster, execute
from tests.kits.table import new_database

SECRET = "s3cret:/@"
QUOTED = "s3cret%3A%2F%40"


@pytest.fixture
def empty(postgres_server: Cluster) -> Iterator[PostgresAddress]:
    address = postgres_server.new_database("template0")
    yield address
    postgres_server.drop(address)


def tables(address: PostgresAddress) -> list[str]:
    text = "select relname from pg_class where relnamespace = current_schema()::regnamespace"
    return sorted(name for (name,) in execute(address.url, text))


async def refused(address: PostgresAddress, *, create: bool = False) -> BatchgenError:
    with pytest.raises((StoreError, UsageError)) as caught:
        async with open_database(address, create=create):
            pass
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert QUOTED not in str(caught.value)
    return caught.value


async def test_tables_are_made_once(empty: PostgresAddress) -> None:
    async with open_database(empty, create=True):
        pass
    async with open_database(empty, create=True), open_database(empty, create=False):
        pass
    found = execute(empty.url, "select version, application from schema_version")
    assert found == [(len(migrations()), APPLICATION)]


async def test_without_tables_there_is_nothing_to_open(empty: PostgresAddress) -> None:
    error = await refused(empty)
    assert (str(error), error.remedy) == (
        f"{empty.name}: there is no work table in it yet.", Remedy.ENQUEUE_FIRST,
    )  # fmt: skip
    with pytest.raises(UsageError, match="no work table in it yet"), open_to_read(empty):
        pass
    assert tables(empty) == []


async def test_another_programs_tables_are_left_alone(empty: PostgresAddress) -> None:
    execute(empty.url, "create table items (a int)")
    before = tables(empty)
    for create in (True, False):
        error = await refused(empty, create=create)
        assert isinstance(error, SchemaError)
        assert "has tables of another program by names of ours (items)" in str(error)
    assert tables(empty) == before
    execute(empty.url, "drop table items; create table schema_version (a int)")
    assert "by names of ours (schema_version)" in str(await refused(empty, create=True))


async def test_another_programs_tables_may_be_beside_ours(empty: PostgresAddress) -> None:
    execute(empty.url, "create table customers (a int)")
    async with open_database(empty, create=True):
        pass
    assert {"customers", "work"} <= set(tables(empty))


async def test_a_schema_of_its_own(empty: PostgresAddress) -> None:
    execute(empty.url, "create table items (a int)")
    own = address_of(f"{empty.url}&options=-csearch_path%3Dours")
    assert "there is no schema for its tables (search_path is ours)" in str(await refused(own))
    execute(empty.url, "create schema ours")
    async with open_database(own, create=True):
        pass
    assert "work" in tables(own)
    assert "work" not in tables(empty)


async def test_a_newer_schema_is_refused(postgres: PostgresAddress) -> None:
    execute(postgres.url, "update schema_version set version = version + 1")
    newest = len(migrations())
    assert str(await refused(postgres)) == (
        f"{postgres.name}: made by a newer batchgen (schema {newest + 1}; this one knows {newest})."
        " Upgrade batchgen: pip install -U batchgen-llm"
    )
    execute(postgres.url, "update schema_version set version = 1, application = 'batchgen 0'")
    assert "made by another batchgen" in str(await refused(postgres))


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (f"postgresql://batchgen:{QUOTED}@127.0.0.1:{{port}}/x", "password of batchgen is wrong,"),
        ("postgresql://batchgen@127.0.0.1:{port}/x", "it asks for a password"),
        (f"postgresql://nobody:{QUOTED}@127.0.0.1:{{port}}/x", "or it has no role nobody."),
        ("postgresql://nobody@/x?host={folder}&port={port}", "it has no role nobody"),
        (
            "postgresql://batchgen@/x?host={folder}&port={port}",
            "Make it: createdb -h {folder} -p {port} -U batchgen x",
        ),
        (
            "postgresql://batchgen@?host={folder}&port={port}",
            "the address names no database (postgresql://USER@HOST/NAME), so the one with the "
            "user's name was meant, and the server has no database batchgen. Make it: createdb ",
        ),
        (f"postgresql://batchgen:{QUOTED}@localhost:{{free}}/x", "nobody listens there"),
        (f"postgresql://batchgen:{QUOTED}@host.invalid/x", "there is no host host.invalid"),
        ("postgresql:///x?host=/nowhere", "no PostgreSQL listens on this socket"),
        (f"postgresql://batchgen:{QUOTED}@127.0.0.1:{{port}}/x?sslmode=require", "it has no TLS"),
        (f"postgresql://a:{QUOTED}@127.0.0.1:{{port}}/x?nonsense=1", "nonsense"),
    ],
)  # fmt: skip
async def test_why_there_is_no_connection(postgres_server: Cluster, where: str, words: str) -> None:
    execute(postgres_server.url, "alter role batchgen password 'another'")
    parts = psycopg.conninfo.conninfo_to_dict(postgres_server.url)
    if not str(parts.get("host", "")).startswith("/"):
        pytest.skip("the server is not ours, and may take other users")
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        text = where.format(port=parts["port"], folder=parts["host"], free=port)
        address = address_of(text)
        error = await refused(address)
        assert words.format(port=parts["port"], folder=parts["host"]) in str(error)
        assert error.remedy is None


async def test_tables_of_another_user_are_said_to_be_so(postgres: PostgresAddress) -> None:
    execute(postgres.url, "create role poor login")
    error = await refused(address_of(postgres.url.replace("batchgen@", "poor@")))
    execute(postgres.url, "drop role poor")
    assert isinstance(error, StoreError)
    assert "its user may not use the tables there (permission denied for table" in str(error)
    assert "another program by names of ours" not in str(error)


async def test_a_server_without_a_connection_left(empty: PostgresAddress) -> None:
    name = psycopg.conninfo.conninfo_to_dict(empty.url)["dbname"]
    execute(empty.url, "create role few login")
    execute(empty.url, f"alter database {name} connection limit 0")
    error = await refused(address_of(empty.url.replace("batchgen@", "few@")))
    execute(empty.url, "drop role few")
    assert isinstance(error, StoreAwayError)
    assert "it has no connection left for us (too many connections for database" in str(error)


async def test_who_may_not_make_tables_is_told_how(empty: PostgresAddress) -> None:
    execute(empty.url, "create role guest login; revoke create on schema public from public")
    error = await refused(address_of(empty.url.replace("batchgen@", "guest@")), create=True)
    execute(empty.url, "drop role guest")
    assert "its user may not make tables there (permission denied for schema public)" in str(error)


async def test_what_takes_no_writes_can_be_read(postgres: PostgresAddress) -> None:
    replica = address_of(f"{postgres.url}&options=-cdefault_transaction_read_only%3Don")
    assert "takes no writes: it is a replica, or set to be read only" in str(await refused(replica))
    with open_to_read(replica) as database:
        rows = await database.read(lambda db: db.execute("experiment_name", {"experiment_id": 1}))
        assert rows is not None


async def test_an_old_server_is_refused(
    postgres: PostgresAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchgen.store.postgres.opening.MINIMUM_SERVER", 99)
    said = str(await refused(postgres))
    assert re.fullmatch(r".*: the server is PostgreSQL \d+; batchgen needs 99 or newer\.", said)


async def test_another_encoding_is_refused(postgres_server: Cluster) -> None:
    url = postgres_server.url
    execute(url, "create database latin template template0 encoding 'LATIN1' locale 'C'")
    error = await refused(postgres_server.address("latin"), create=True)
    execute(url, "drop database latin")
    assert "has the encoding LATIN1, which cannot hold every text" in str(error)


async def test_settings_that_lose_answers_are_told(postgres: PostgresAddress) -> None:
    unsafe = address_of(f"{postgres.url}&options=-csynchronous_commit%3Doff")
    async with open_database(unsafe, create=False) as database:
        fsync, commit = database.warnings()
    assert "fsync or full_page_writes off" in fsync  # a server for tests
    assert "synchronous_commit is off" in commit


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"postgresql://a:{QUOTED}@h:5/n", "postgresql://a:***@h:5/n"),
        ("postgres://a@h/n", "postgres://a@h/n"),
        (f"postgresql://h/n?password={QUOTED}&x=1", "postgresql://h/n?password=***&x=1"),
        (f"postgresql://a:{SECRET}@h/n", "postgresql://a:***@h/n"),
    ],
)
def test_a_password_is_not_shown(text: str, shown: str) -> None:
    assert masked(text) == shown


@pytest.mark.parametrize(
    "text",
    [f"postgresql://a:{SECRET}@h/n", f"postgresql://a:{QUOTED}@h:port/n", f"mysql://a:{QUOTED}@h/n",
     f"postgresql://a:{QUOTED}@h/n#x", f"postgresql://a:{QUOTED}@[::1/n"],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="is no address of a database") as caught:
        address_of(text)
    assert "s3cret" not in str(caught.value)


def test_the_password_goes_by_the_environment() -> None:
    address = address_of(f"postgres://a:{QUOTED}@h:5/n?prepare=no&sslmode=require")
    assert not address.prepares
    assert address.url == f"postgresql://a:{QUOTED}@h:5/n?sslmode=require"
    again = address_of(address.to_url())
    assert (again.url, again.prepares) == (address.url, False)
    bare, password = address.without_password()
    assert (bare, password) == ("postgresql://a@h:5/n?sslmode=require&prepare=no", SECRET)
    assert "s3cret" not in repr(address)
    assert address_of(bare).url == "postgresql://a@h:5/n?sslmode=require"


def test_both_engines_have_the_same_tables_and_columns(
    postgres: PostgresAddress, tmp_path: Path
) -> None:
    with closing(new_database(tmp_path / "batchgen.db")) as db:
        here = _columns_of_sqlite(db)
    there: dict[str, list[str]] = {}
    text = (
        "select table_name, column_name from information_schema.columns"
        " where table_schema = current_schema() order by table_name, ordinal_position"
    )
    for table, column in execute(postgres.url, text):
        there.setdefault(table, []).append(column)
    only_here = {"new_item_keys"}
    only_there = {"schema_version", "leases", "commits"} | {
        one for one in there if one.endswith("_by_worker")
    }
    more = {
        "workers": {"exchange"}, "exports": {"machine"}, "live_files": {"machine"},
        "known_files": {"machine"},
    }  # fmt: skip
    assert set(here) - only_here == set(there) - only_there
    for table in set(here) - only_here:
        assert set(there[table]) - more.get(table, set()) == set(here[table]), table
        if table in ("item_results", "result_values", "item_overview"):
            assert there[table] == here[table]


def _columns_of_sqlite(db: sqlite3.Connection) -> dict[str, list[str]]:
    names = db.execute(
        "select name from sqlite_master where type in ('table', 'view') and name not like 'sqlite%'"
    ).fetchall()
    return {name: [row[1] for row in db.execute(f"pragma table_info({name})")] for (name,) in names}


def test_migrations_are_numbered_without_a_gap() -> None:
    numbers = [int(re.match(r"\d{4}", file.name)[0]) for file in migrations()]  # type: ignore[index]
    assert numbers == list(range(1, len(numbers) + 1))
