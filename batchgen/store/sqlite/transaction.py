"""A transaction on a connection to SQLite: its statements by name, the common ones and those of
sqlite.sql."""

import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from batchgen.store.transactions import queries_of

QUERIES = queries_of(Path(__file__).with_name("sqlite.sql"))
_ROW = re.compile(r"(?<=values )\([^()]*\)")
_PARAMETER = re.compile(r":(\w+)")
_MOST_ROWS = 64
_NOTHING: Mapping[str, object] = {}

ValuesOf = Callable[[Mapping[str, object]], tuple[Any, ...]]


class SqliteTransaction:
    """See `batchgen.store.transaction`. Begun and ended by who has the connection."""

    __slots__ = ("connection",)
    is_far = False

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def execute(self, name: str, parameters: Mapping[str, object] = _NOTHING) -> sqlite3.Cursor:
        return self.connection.execute(QUERIES[name], parameters)

    def execute_many(self, name: str, rows: Sequence[Mapping[str, object]]) -> int:
        """Many at a time, where the statement has the `values` of a row: for each time that one is
        run, Python's lock is given away, and another thread that works may keep it."""
        if not rows:
            return 0
        values_of = values_for(name)
        if values_of is None:
            return self.connection.executemany(QUERIES[name], rows).rowcount
        at = changed = 0
        while left := len(rows) - at:
            n = min(_MOST_ROWS, 1 << left.bit_length() - 1)
            values = [value for row in rows[at : at + n] for value in values_of(row)]
            changed += self.connection.execute(statement_for(name, n), values).rowcount
            at += n
        return changed

    def first_new(self, table: str, n: int = 1) -> int:
        """Whoever writes has its turn, so nobody else takes them."""
        return self.newest(table) + 1 if n else 0

    def begin_new(self, table: str, n: int) -> Callable[[], int]:
        return partial(self.first_new, table, n)

    def newest(self, table: str) -> int:
        (seq,) = self.execute("last_id", {"name": table}).fetchone()
        return int(seq)

    def alone(self) -> None:
        """Writers take turns."""

    def lock(self, kind: str, keys: Sequence[object] = ()) -> None:
        """Writers take turns."""


@cache
def values_for(name: str) -> ValuesOf | None:
    """Takes the values of a row in the order in which its statement has them. None: it is run for
    each row by itself, as not all that it needs are the `values` of one row."""
    rows = _ROW.findall(QUERIES[name])
    names = _PARAMETER.findall(QUERIES[name])
    is_one = len(rows) == 1 and len(names) > 1 and _PARAMETER.findall(rows[0]) == names
    return itemgetter(*names) if is_one else None


@cache
def statement_for(name: str, rows: int) -> str:
    """For so many rows at a time: one for each number would be compiled for each."""
    (row,) = _ROW.findall(QUERIES[name])
    return _ROW.sub(", ".join([_PARAMETER.sub("?", row)] * rows), QUERIES[name])
