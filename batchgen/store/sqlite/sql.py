"""The statements of queries.sql, by name."""

import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

_HEAD = "\n-- name: "
_RULE = "\n--------------------"
_ROW = re.compile(r"(?<=values )\([^()]*\)")
_PARAMETER = re.compile(r":(\w+)")
_MOST_ROWS = 64


def load_queries(text: str) -> dict[str, str]:
    """Split a file of `-- name: ...` statements. Raises ValueError on a name given twice."""
    queries: dict[str, str] = {}
    for part in f"\n{text}".split(_HEAD)[1:]:
        name, _, statement = part.partition("\n")
        if name in queries:
            raise ValueError(f"the query name {name} is given twice in queries.sql")
        queries[name] = statement.partition(_RULE)[0].strip()
    return queries


QUERIES = load_queries(Path(__file__).with_name("queries.sql").read_text(encoding="utf-8"))


def last_id(db: sqlite3.Connection, table: str) -> int:
    """The highest id ever given out in a table, also to rows deleted since."""
    (seq,) = db.execute(QUERIES["last_id"], {"name": table}).fetchone()
    return int(seq)


def write_rows(db: sqlite3.Connection, name: str, rows: Sequence[Mapping[str, object]]) -> int:
    """Run a statement that has the `values` of one row for all of these, which have the same names:
    how many rows it changed. As `executemany`, but with many rows at a time: for each time that it
    is run, Python's lock is given away, and another thread that works may keep it."""
    values_of, at, changed = _values_of(name), 0, 0
    while left := len(rows) - at:
        n = min(_MOST_ROWS, 1 << left.bit_length() - 1)
        values = [value for row in rows[at : at + n] for value in values_of(row)]
        changed += db.execute(_statement(name, n), values).rowcount
        at += n
    return changed


@cache
def _values_of(name: str) -> Callable[[Mapping[str, object]], tuple[Any, ...]]:
    """Of a row, in the order in which its statement has them."""
    return itemgetter(*_PARAMETER.findall(_row_of(name)))


@cache
def _statement(name: str, rows: int) -> str:
    """For so many: one for each number would be compiled for each."""
    row = _PARAMETER.sub("?", _row_of(name))
    return _ROW.sub(", ".join([row] * rows), QUERIES[name])


def _row_of(name: str) -> str:
    (row,) = _ROW.findall(QUERIES[name])
    return str(row)
