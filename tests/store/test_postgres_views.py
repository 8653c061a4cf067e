"""What is read of a result is the same text on both engines, whatever was asked and answered."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchgen.items import State
from batchgen.store.postgres.opening import connect
from batchgen.store.postgres.pipeline import Pipeline
from batchgen.store.postgres.transaction import PostgresTransaction
from batchgen.store.sqlite.transaction import SqliteTransaction
from batchgen.store.transaction import Transaction
from batchgen.store.transactions import results
from tests.kits.postgres import Cluster
from tests.kits.table import new_database

INPUTS = [
    '{"q": 1}',
    '{"q": "metadata"}',
    '{"metadata": null}',
    '{"metadata": {"n": 1.50, "big": 12345678901234567890, "e": 1E+2, "z": -0.0}}',
    '{"metadata":  [1,  "a  b" , {"k" : "\\" , \\\\"} ] , "q": 2}',
    '{"metadata": "\\u0000 \\ud800 \\u4f60 \\n \\\\u0000", "q": "\\u0000"}',
    '{"q": "\\u0000", "metadata": {"a\\"b": "\\\\", "c": "\\/"}}',
    '{"q": {"metadata": 1}, "metadata": true}',
    '"a text about \\"metadata\\""',
    "[1]",
]
ANSWERS = ["plain", "", 'q"\\/\b\f\n\r\t\x01\x1f\x7f', "你好\u2028🎉", "<a>é1</a><a>🎉2</a>"]


@pytest.fixture(scope="module")
def connection(postgres_server: Cluster) -> Iterator[psycopg.Connection]:
    address = postgres_server.new_database()
    made, _ = connect(address)
    yield made
    made.close()
    postgres_server.drop(address)


ROWS = """
insert into parsers (id, spec, fingerprint, sources, created_at) values (1, 'raw', '', '{}', 1);
insert into recipes (id, digest, body, created_at) values (1, DIGEST, '{}', 1);
insert into experiments (id, name, created_at, parser_id) values (1, 'e', 1, 1);
"""
ITEM = "insert into items (id, experiment_id, recipe_id, input) values (?, 1, 1, ?)"
WORK = """insert into work (item_id, experiment_id, state, result_seq, epoch, tries)
          values (?, 1, ?, ?, ?, 1)"""
ATTEMPT = """insert into attempts (seq, item_id, epoch, worker_id, finished_at, outcome, reason,
             response, vector, cost_usd) values (?, ?, 1, 1, 1, ?, ?, ?, ?, 0.25)"""
RESULT = """insert into results (seq, item_id, attempt_seq, state, reason, error, parsed, spans,
            parser_id, finished_at) values (?, ?, ?, ?, ?, ?, ?, ?, 1, 1)"""


def rows() -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Each input with an answer, each answer with some parsed value."""
    n = 0
    for text in INPUTS:
        for answer in ANSWERS:
            n += 1
            spans = "[[1,2],[3,1]]" if len(answer) > 4 and n % 3 == 0 else None
            parsed = '{"v": 1}' if spans is None and n % 2 else None
            vector = "[0.5]" if answer == "" else None
            fails = n % 7 == 0
            yield ITEM, (n, text)
            yield ATTEMPT, (n, n, "answered", None, answer, vector)
            if n % 5 == 0:
                yield ATTEMPT, (1000 + n, n, "failed", "server", None, None)
            state = "failed" if fails else "done"
            error = ("parse", "no") if fails else (None, None)
            ends = (None, None) if fails else (parsed, spans)
            yield RESULT, (n, n, n, state, *error, *ends)
            yield WORK, (n, state, n, 2 if n % 5 == 0 else 1)


def spelled(statement: str) -> bytes:
    parts = statement.split("?")
    return ("".join(f"{one}%s" for one in parts[:-1]) + parts[-1]).encode()


@contextmanager
def filled_file(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(new_database(path / "batchgen.db")) as db:
        db.executescript(ROWS.replace("DIGEST", "zeroblob(32)"))
        for statement, values in rows():
            db.execute(statement, values)
        yield db


@contextmanager
def filled(connection: psycopg.Connection) -> Iterator[None]:
    with connection.transaction(force_rollback=True):
        for statement in ROWS.replace("DIGEST", "decode(repeat('00', 32), 'hex')").split(";")[:-1]:
            connection.execute(statement.encode())
        for statement, values in rows():
            connection.execute(spelled(statement), values)
        yield


def has_pages_as_the_view_says(db: Transaction) -> bool:
    """Whether an answer that is read as its text is the same JSON then."""
    ids = list(range(1, len(INPUTS) * len(ANSWERS) + 1))
    ended = results.results_of(db, ids)
    for state in (State.DONE, State.FAILED, None):
        page = results.result_page(db, 1, state, 0, len(ids))
        wanted = [
            row for row in ended if state is None or (row.reason is None) == (state is State.DONE)
        ]
        assert page == wanted
        assert page
    return len(ended) == len(ids)


def test_a_page_of_results_has_what_the_view_has(
    connection: psycopg.Connection, tmp_path: Path
) -> None:
    with filled_file(tmp_path) as db:
        assert has_pages_as_the_view_says(SqliteTransaction(db))
    with filled(connection):
        pipeline = Pipeline(connection, prepares=False)
        assert has_pages_as_the_view_says(PostgresTransaction(pipeline, "public", {}))


@pytest.mark.parametrize("view", ["item_results", "result_values", "item_overview"])
def test_views_have_the_same_rows(
    connection: psycopg.Connection, tmp_path: Path, view: str
) -> None:
    which = f"select * from {view} order by {'seq' if view == 'result_values' else 'id'}"
    with filled_file(tmp_path) as db:
        db.row_factory = sqlite3.Row
        there = [dict(row) for row in db.execute(which)]
    with filled(connection):
        cursor = connection.execute(which.encode())
        names = [column.name for column in cursor.description or ()]
        here = [dict(zip(names, row, strict=True)) for row in cursor]
    assert len(here) == len(INPUTS) * len(ANSWERS)
    for one, other in zip(here, there, strict=True):
        if one.get("metadata") is None and other.get("metadata") == "null":
            other["metadata"] = None  # it is written as null either way
        assert one == other


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=values, other=values, ascii_only=st.booleans(), wide=st.booleans())
def test_a_member_is_found_in_any_json(
    connection: psycopg.Connection, value: Any, other: Any, ascii_only: bool, wide: bool
) -> None:
    document = {"a": other, "metadata": value, "b": [other]}
    made = json.dumps(
        document, ensure_ascii=ascii_only, separators=(" , ", " :  ") if wide else None
    )
    text = made.encode(errors="surrogatepass").decode(errors="replace")
    row = connection.execute(
        b"select member(%s, 'metadata'), member(%s, 'c')", (text, text)
    ).fetchone()
    assert row is not None
    found, missing = row
    wanted = json.loads(text)["metadata"]
    assert found == json.dumps(wanted, ensure_ascii=ascii_only, separators=(",", ":"))
    assert missing is None


# Those of settings; one with what must be escaped comes as it is spelled.
as_they_are = st.characters(codec="utf-8", exclude_characters='\\"', exclude_categories=["Cc"])


@given(names=st.lists(st.text(as_they_are), unique=True))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_names_are_those_of_the_object(connection: psycopg.Connection, names: list[str]) -> None:
    text = json.dumps(dict.fromkeys(names, "\0"), ensure_ascii=False)
    assert [one for (one,) in connection.execute(b"select names_in(%s)", (text,))] == names
    assert connection.execute(b"select names_in('[1]')").fetchall() == []


@pytest.mark.parametrize(("text", "is_it"), [('{"a": "\\u0000"}', 1), ("{", 0), ("", 0), ("1", 1)])
def test_whether_it_is_json(connection: psycopg.Connection, text: str, is_it: int) -> None:
    assert connection.execute(b"select is_json(%s)", (text,)).fetchone() == (is_it,)
