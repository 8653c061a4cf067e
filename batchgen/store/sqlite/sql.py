"""The statements that SQLite runs, by name: the common ones, and its own of sqlite.sql."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

from batchgen.store.transactions.sql import queries_of

QUERIES = queries_of(Path(__file__).with_name("sqlite.sql"))
_ROW = re.compile(r"(?<=values )\([^()]*\)")
_PARAMETER = re.compile(r":(\w+)")

ValuesOf = Callable[[Mapping[str, object]], tuple[Any, ...]]


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
