"""Rows of the statements as the values that they are, column by column of the same name; and lists
as parameters."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import starmap
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct
from msgspec.json import encode

if TYPE_CHECKING:
    from batchgen.store.transaction import Transaction

T = TypeVar("T")

PAGE_CHARS = 4 << 20  # so that memory stays bounded

# By statement and class: looked at once, and then as fast as by position.
_makers: dict[tuple[str, type], Callable[[Iterable[tuple[Any, ...]]], Iterator[Any]]] = {}


def rows_of(
    db: "Transaction",
    query: str,
    into: type[T],
    parameters: Mapping[str, object] | None = None,
) -> Iterator[T]:
    """Raises TypeError when a column of the statement is no field of `into`, or one is missing."""
    cursor = db.execute(query, parameters or {})
    make = _makers.get((query, into))
    if make is None:
        make = _makers[query, into] = _maker(into, [column[0] for column in cursor.description])
    return make(cursor)


def row_of(
    db: "Transaction", query: str, into: type[T], parameters: Mapping[str, object]
) -> T | None:
    """The first row, if there is one."""
    return next(rows_of(db, query, into, parameters), None)


def dicts_of(
    db: "Transaction", query: str, parameters: Mapping[str, object] | None = None
) -> Iterator[dict[str, Any]]:
    cursor = db.execute(query, parameters or {})
    columns = [column[0] for column in cursor.description]
    return (dict(zip(columns, row, strict=True)) for row in cursor)


def listed(values: Any) -> str:
    """Numbers, in lists or by numbers, as JSON."""
    return encode(values).decode()


def bounded(rows: Iterable[T], chars_of: Callable[[T], int]) -> tuple[list[T], bool]:
    """As many rows as fit on a page, one at least; whether that are all of them."""
    page, chars = [], 0
    for row in rows:
        page.append(row)
        chars += chars_of(row)
        if chars > PAGE_CHARS:
            return page, False
    return page, True


def _maker(
    into: type[T], columns: list[str]
) -> Callable[[Iterable[tuple[Any, ...]]], Iterator[T]]:  # fmt: skip
    names = _fields_of(into)
    if columns == names and issubclass(into, tuple):
        return partial(map, into._make)  # type: ignore[attr-defined]
    if columns == names[: len(columns)]:
        into(*range(len(columns)))  # the others have defaults
        return partial(starmap, into)
    into(**dict.fromkeys(columns))
    return partial(map, partial(_by_name, into, columns))


def _fields_of(into: type[Any]) -> list[str]:
    return list(into.__struct_fields__ if issubclass(into, Struct) else into._fields)


def _by_name(into: type[T], columns: list[str], row: tuple[Any, ...]) -> T:
    return into(**dict(zip(columns, row, strict=True)))
