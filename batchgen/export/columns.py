"""The columns of a table whose rows have objects of many shapes: each field of an object in input,
parsed or metadata has a column of its own. They are known when all rows have been seen."""

from collections.abc import Iterator, Sequence
from json import loads
from typing import Any

from batchgen.store import ResultRow

ColumnPath = tuple[str, ...]

_GROUPS = ("input", "response", "parsed", "metadata")
_MAX_DEPTH = 3  # input.user_prompt_kwargs.topic
_MAX_COLUMNS = 256  # of one group; a spreadsheet takes 16,384


class Columns:
    """The columns that the rows seen so far need."""

    def __init__(self) -> None:
        self._of_group: dict[str, dict[ColumnPath, None]] = {group: {} for group in _GROUPS}
        self._has_samples = False

    def see(self, row: ResultRow) -> None:
        """Add the columns that a row needs."""
        self._has_samples |= row.sample is not None
        for group, value in groups_of(row):
            paths = self._of_group[group]
            if len(paths) <= _MAX_COLUMNS and value is not None:
                paths.update(dict.fromkeys(path for path, _ in cells_of((group,), value)))

    def paths(self, after: Sequence[str]) -> list[ColumnPath]:
        """The columns in their order, the ids first and those named `after` last."""
        chosen: list[ColumnPath] = [("id",), ("sample",)] if self._has_samples else [("id",)]
        for group, paths in self._of_group.items():
            whole = not paths or len(paths) > _MAX_COLUMNS
            chosen += [(group,)] if whole else list(paths)
        return chosen + [(name,) for name in after]


def groups_of(row: ResultRow) -> Iterator[tuple[str, Any]]:
    """The values of a row that can have fields, by the name of their group."""
    response = loads(row.response)
    yield "input", loads(row.input)
    yield "response", response
    if row.reason is None:
        yield "parsed", loads(row.parsed) if row.parsed else response
    yield "metadata", loads(row.metadata or "null")


def cells_of(path: ColumnPath, value: Any) -> Iterator[tuple[ColumnPath, Any]]:
    """A value as cells: each field of an object has one, or several, of its own."""
    if isinstance(value, dict) and value and len(path) < _MAX_DEPTH:
        for name, part in value.items():
            yield from cells_of((*path, name), part)
    else:
        yield path, value
