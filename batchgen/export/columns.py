"""The columns of a table whose rows have objects of many shapes: each field of an object in input,
parsed or metadata has a column of its own. They are known when all rows have been seen."""

from collections.abc import Iterator, Mapping, Sequence
from json import loads
from typing import Any, Protocol

from batchgen.clock import timestamp
from batchgen.errors import BatchgenError
from batchgen.export.lines import value_of
from batchgen.store import ResultRow

ColumnPath = tuple[str, ...]

# The values that can have fields, and how deep these have columns: input.user_prompt_kwargs.topic.
GROUPS = {"input": 3, "response": 3, "parsed": 3, "metadata": 3}
# The columns about the call, and those about why an item failed.
CALL = (
    "model", "finish_reason", "prompt_tokens", "completion_tokens", "cached_tokens",
    "reasoning_tokens", "cost_usd", "attempts", "timestamp",
)  # fmt: skip
FAILURE = ("reason", "error")
_MAX_COLUMNS = 256  # of one group; a spreadsheet takes 16,384


class TableRow(Protocol):
    """A row as a table has it."""

    def groups(self) -> Iterator[tuple[str, Any]]:
        """The values that can have fields, by the names of their groups."""

    def value_of(self, group: str) -> Any:
        """One of these alone."""

    def scalars(self) -> dict[str, Any]:
        """The cells that have no fields, by their columns."""


class Columns:
    """The columns that the rows seen so far need. `groups` say how deep the fields of each have
    columns of their own."""

    def __init__(self, groups: Mapping[str, int] = GROUPS) -> None:
        self.groups = groups
        self._of_group: dict[str, dict[ColumnPath, None]] = {group: {} for group in groups}
        self._has_samples = False

    def see(self, row: TableRow, *, is_sample: bool) -> None:
        """Add the columns that a row needs."""
        self._has_samples |= is_sample
        for group, value in row.groups():
            paths = self._of_group[group]
            if len(paths) <= _MAX_COLUMNS and value is not None:
                cells = _cells_of((group,), value, self.groups[group])
                paths.update(dict.fromkeys(path for path, _ in cells))

    def paths(self, after: Sequence[str]) -> list[ColumnPath]:
        """The columns in their order, the ids first and those named `after` last."""
        chosen: list[ColumnPath] = [("id",), ("sample",)] if self._has_samples else [("id",)]
        for group, paths in self._of_group.items():
            whole = not paths or len(paths) > _MAX_COLUMNS
            chosen += [(group,)] if whole else list(paths)
        return chosen + [(name,) for name in after]


class AllColumns:
    """A row as the cells of these columns, and those named `after` them."""

    def __init__(self, columns: Columns, after: Sequence[str]) -> None:
        paths = columns.paths(after)
        self.names = [".".join(path) for path in paths]
        self._depths = columns.groups
        self._places = {path: place for place, path in enumerate(paths)}

    def cells(self, row: TableRow, extras: Mapping[str, Any]) -> list[Any]:
        """`extras` are more cells that have no fields, by their columns. Raises BatchgenError when
        a column is missing."""
        cells: list[Any] = [None] * len(self.names)
        for group, value in row.groups():
            if value is not None:
                self._fill(cells, group, value)
        scalars = row.scalars()
        scalars.update(extras)
        for name, value in scalars.items():
            if (place := self._places.get((name,))) is not None:
                cells[place] = value
        return cells

    def _fill(self, cells: list[Any], group: str, value: Any) -> None:
        whole = self._places.get((group,))
        for path, part in _cells_of((group,), value, self._depths[group]):
            place = self._places.get(path)
            if place is None and whole is None:
                raise BatchgenError("results changed while they were exported; export again.")
            if place is None:  # too many fields for columns
                cells[whole or 0] = value
                break
            cells[place] = part


class ResultCells:
    """A result as a table has it."""

    def __init__(self, row: ResultRow) -> None:
        self._row = row

    def groups(self) -> Iterator[tuple[str, Any]]:
        row = self._row
        response = loads(row.response)
        yield "input", loads(row.input)
        yield "response", response
        if row.reason is None:
            yield "parsed", loads(row.parsed) if row.parsed else response
        yield "metadata", loads(row.metadata or "null")

    def value_of(self, group: str) -> Any:
        return value_of(self._row, group)

    def scalars(self) -> dict[str, Any]:
        return scalars_of(self._row)


def scalars_of(row: ResultRow) -> dict[str, Any]:
    """The cells about the row and its call, by their columns."""
    scalars = calls_of(row)
    scalars["id"] = row.custom_id or row.id
    scalars["sample"] = row.sample
    scalars["timestamp"] = timestamp(row.finished_at)
    scalars["reason"], scalars["error"] = row.reason, row.error
    return scalars


def calls_of(row: ResultRow) -> dict[str, Any]:
    """The cells about its calls."""
    return {
        "model": row.model,
        "finish_reason": row.finish_reason,
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
        "cached_tokens": row.cached_tokens,
        "reasoning_tokens": row.reasoning_tokens,
        "cost_usd": row.cost_usd,
        "attempts": row.tries,
    }


def _cells_of(
    path: ColumnPath, value: Any, max_depth: int
) -> Iterator[tuple[ColumnPath, Any]]:  # fmt: skip
    """A value as cells: each field of an object has one, or several, of its own."""
    if isinstance(value, dict) and value and len(path) < max_depth:
        for name, part in value.items():
            yield from _cells_of((*path, name), part, max_depth)
    else:
        yield path, value
