"""Every statement prepares on a real PostgreSQL, and both engines have a text for each name."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from batchgen.store import postgres, sqlite
from batchgen.store.postgres.opening import connect
from batchgen.store.postgres.sql import STATEMENTS, respelled
from batchgen.store.sqlite.sql import QUERIES
from batchgen.store.transactions.sql import load_queries
from tests.kits.postgres import Cluster


@pytest.fixture(scope="module")
def connection(postgres_server: Cluster) -> Iterator[psycopg.Connection]:
    address = postgres_server.new_database()
    made, _ = connect(address)
    yield made
    made.close()
    postgres_server.drop(address)


@pytest.mark.parametrize("name", STATEMENTS)
def test_statement_prepares_with_parameters_of_unknown_type(
    connection: psycopg.Connection, name: str
) -> None:
    prepared = connection.pgconn.prepare(b"", STATEMENTS[name].text)
    assert prepared.status == psycopg.pq.ExecStatus.COMMAND_OK, prepared.error_message.decode()


def names_of(engine: str, file: Path) -> set[str]:
    """The statements that only its own modules run: those of its last section."""
    _, _, last = file.read_text(encoding="utf-8").partition(f"- of {engine} alone")
    return set(load_queries(last))


def test_both_engines_know_the_same_statements() -> None:
    only_here = names_of("PostgreSQL", Path(postgres.__file__).with_name("postgres.sql"))
    only_there = names_of("SQLite", Path(sqlite.__file__).with_name("sqlite.sql"))
    assert sorted(STATEMENTS.keys() - only_here) == sorted(QUERIES.keys() - only_there)
    assert "append_keys" in only_there  # the mark still finds them


def test_a_parameter_is_known_by_its_first_place() -> None:
    statement = respelled("select :b, :a::text, ':c', b::text -- :d\n where x = :b and y = '1%';")
    assert statement.text == b"select $1, $2::text, ':c', b::text \n where x = $1 and y = '1%'"
    assert statement.names == ("b", "a")
