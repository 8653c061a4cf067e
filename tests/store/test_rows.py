"""Rows become values by the names of their columns, and pages end before memory does."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

import pytest

from batchgen.store.sqlite.transaction import QUERIES, SqliteTransaction
from batchgen.store.transactions import rows as rows_module
from batchgen.store.transactions.rows import bounded, row_of, rows_of


class Pair(NamedTuple):
    left: int
    right: str
    rest: int = 7


@pytest.fixture
def db() -> Iterator[SqliteTransaction]:
    with closing(sqlite3.connect(":memory:")) as opened:
        yield SqliteTransaction(opened)


@pytest.mark.parametrize(
    "statement",
    [
        "select 1 as left, 'a' as right, 7 as rest",
        "select 1 as left, 'a' as right",  # the rest has a default
        "select 'a' as right, 1 as left",
    ],
)
def test_columns_find_their_fields_in_whatever_order(
    db: SqliteTransaction, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.setitem(QUERIES, "pairs", statement)
    monkeypatch.setattr(rows_module, "_makers", {})
    assert list(rows_of(db, "pairs", Pair)) == [Pair(1, "a")]


@pytest.mark.parametrize(
    "statement",
    ["select 1 as left", "select 1 as left, 'a' as wrong", "select 1 as a, 2 as b, 3 as c, 4 as d"],
)
def test_a_column_without_its_field_is_an_error_even_without_rows(
    db: SqliteTransaction, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.setitem(QUERIES, "pairs", f"{statement} where false")
    monkeypatch.setattr(rows_module, "_makers", {})
    with pytest.raises(TypeError):
        row_of(db, "pairs", Pair, {})


def test_a_page_ends_with_the_row_that_fills_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "PAGE_CHARS", 4)
    assert bounded(iter(["ab", "cde", "f"]), len) == (["ab", "cde"], False)
    assert bounded(iter(["ab", "cd"]), len) == (["ab", "cd"], True)
    assert bounded(iter(["abcdefgh"]), len) == (["abcdefgh"], False)
