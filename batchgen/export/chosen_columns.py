"""The columns of a table that the user has chosen: `id`, `input.topic`, `parsed.tags[0]`.

A name is written as in the header of a table with all columns, or leads on into a list.
"""

import csv
import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from batchgen.errors import UsageError
from batchgen.export.columns import CALL, FAILURE, GROUPS, TableRow

_SCALARS = ("id", "sample", *CALL, *FAILURE)
_ROOT = re.compile(r"\w*")
_INDEX = re.compile(r"\[(-?\d{1,9})\]")
_ABSENT = object()


class ChosenColumns:
    """A row as the cells of these columns. `found` are those that one of the rows had."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._ways = [_way(name) for name in names]
        self.found: set[str] = set()

    def cells(self, row: TableRow, extras: Mapping[str, Any]) -> list[Any]:
        """`extras` are more cells that have no fields, by their columns."""
        values = {**row.scalars(), **extras}
        values |= {root: row.value_of(root) for root, _ in self._ways if root not in values}
        cells = [_part(values[root], path) for root, path in self._ways]
        self.found.update(
            name for name, cell in zip(self.names, cells, strict=True) if cell is not _ABSENT
        )
        return [None if cell is _ABSENT else cell for cell in cells]

    @property
    def absent(self) -> tuple[str, ...]:
        """Those that no row had so far."""
        return tuple(name for name in self.names if name not in self.found)


def column_names(text: str) -> tuple[str, ...]:
    """The names in a text, with commas between them; a name that has a comma stands in quotes."""
    (names,) = csv.reader([" ".join(text.splitlines())], skipinitialspace=True)
    return tuple(name.strip() for name in names)


def check_columns(
    names: Sequence[str], extras: Sequence[str], groups: Collection[str] = GROUPS
) -> None:
    """Raises UsageError when one of them cannot be a column of any row, or is there twice.
    `groups` are the values that have fields."""
    known = [*_SCALARS[:2], *groups, *_SCALARS[2:], *extras]
    for name in names:
        root, path = _way(name)
        if root not in known:
            raise UsageError(f"columns: there is no {name!r}; {_hint(name, known)}")
        if path and (root not in groups or path[0] not in ".["):
            raise UsageError(f"columns: {name!r}: {root} has no parts")
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"columns: {twice[0]!r} is there twice")


def _hint(name: str, known: Sequence[str]) -> str:
    words = (_way(name.lower())[0], name.lower().rpartition(".")[2])  # of usage.prompt_tokens both
    near = [one for word in words for one in difflib.get_close_matches(word, known, n=1)]
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"


def _way(name: str) -> tuple[str, str]:
    """The value that a column is in, and the path from there on."""
    match = _ROOT.match(name)
    root = match[0] if match else ""
    return root, name[len(root) :]


def _part(value: Any, path: str) -> Any:
    """What the path leads to in a value. A field's name may have dots and brackets in it: of the
    fields that may be meant, the one with the longest name that leads on is."""
    if not path:
        return value
    if isinstance(value, dict) and path[0] == ".":
        for end in _ends(path):
            part = _part(value.get(path[1:end], _ABSENT), path[end:])
            if part is not _ABSENT:
                return part
    if isinstance(value, list) and (index := _INDEX.match(path)):
        at = int(index[1])
        if -len(value) <= at < len(value):
            return _part(value[at], path[index.end() :])
    return _ABSENT


def _ends(path: str) -> Iterator[int]:
    """Where the first name of the path can end, the longest first."""
    yield len(path)
    for end in range(len(path) - 1, 1, -1):
        if path[end] in ".[":
            yield end
