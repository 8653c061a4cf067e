"""The columns of a table whose rows have objects of many shapes: each field of an object in input,
parsed or metadata has a column of its own. They are known when all rows have been seen."""

from collections.abc import Iterator, Mapping, Sequence
from json import loads
from typing import Any

from batchgen.clock import timestamp
from batchgen.errors import BatchgenError
from batchgen.store import ResultRow

ColumnPath = tuple[str, ...]

GROUPS = ("input", "response", "parsed", "metadata")
# The columns about the call, and those about why an item failed.
CALL = (
    "model", "finish_reason", "prompt_tokens", "completion_tokens", "cached_tokens",
    "reasoning_tokens", "cost_usd", "attempts", "timestamp",
)  # fmt: skip
FAILURE = ("reason", "error")
_MAX_DEPTH = 3  # input.user_prompt_kwargs.topic
_MAX_COLUMNS = 256  # of one group; a spreadsheet takes 16,384


class Columns:
    """The columns that the rows seen so far need."""

    def __init__(self) -> None:
        self._of_group: dict[str, dict[ColumnPath, None]] = {group: {} for group in GROUPS}
        self._has_samples = False

    def see(self, row: ResultRow) -> None:
        """Add the columns that a row needs."""
        self._has_samples |= row.sample is not None
        for group, value in _groups_of(row):
            paths = self._of_group[group]
            if len(paths) <= _MAX_COLUMNS and value is not None:
                paths.update(dict.fromkeys(path for path, _ in _cells_of((group,), value)))

    def paths(self, after: Sequence[str]) -> list[ColumnPath]:
        """The columns in their order, the ids first and those named `after` last."""
        chosen: list[ColumnPath] = [("id",), ("sample",)] if self._has_samples else [("id",)]
        for group, paths in self._of_group.items():
            whole = not paths or len(paths) > _MAX_COLUMNS
            chosen += [(group,)] if whole else list(paths)
        return chosen + [(name,) for name in after]


class AllColumns:
    """A row as the cells of these columns."""

    def __init__(self, paths: Sequence[ColumnPath]) -> None:
        self.names = [".".join(path) for path in paths]
        self._places = {path: place for place, path in enumerate(paths)}

    def cells(self, row: ResultRow, scalars: Mapping[str, Any]) -> list[Any]:
        """`scalars` are the cells that have no fields, by their columns. Raises BatchgenError when
        a column is missing."""
        cells: list[Any] = [None] * len(self.names)
        for group, value in _groups_of(row):
            if value is not None:
                self._fill(cells, group, value)
        for name, value in scalars.items():
            if (place := self._places.get((name,))) is not None:
                cells[place] = value
        return cells

    def _fill(self, cells: list[Any], group: str, value: Any) -> None:
        whole = self._places.get((group,))
        for path, part in _cells_of((group,), value):
            place = self._places.get(path)
            if place is None and whole is None:
                raise BatchgenError("results changed while they were exported; export again.")
            if place is None:  # too many fields for columns
                cells[whole or 0] = value
                break
            cells[place] = part


def scalars_of(row: ResultRow) -> dict[str, Any]:
    """The cells about the row and its call, by their columns."""
    return {
        "id": row.custom_id or row.id,
        "sample": row.sample,
        "model": row.model,
        "finish_reason": row.finish_reason,
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
        "cached_tokens": row.cached_tokens,
        "reasoning_tokens": row.reasoning_tokens,
        "cost_usd": row.cost_usd,
        "attempts": row.tries,
        "timestamp": timestamp(row.finished_at),
        "reason": row.reason,
        "error": row.error,
    }


def _groups_of(row: ResultRow) -> Iterator[tuple[str, Any]]:
    """The values of a row that can have fields, by the name of their group."""
    response = loads(row.response)
    yield "input", loads(row.input)
    yield "response", response
    if row.reason is None:
        yield "parsed", loads(row.parsed) if row.parsed else response
    yield "metadata", loads(row.metadata or "null")


def _cells_of(path: ColumnPath, value: Any) -> Iterator[tuple[ColumnPath, Any]]:
    """A value as cells: each field of an object has one, or several, of its own."""
    if isinstance(value, dict) and value and len(path) < _MAX_DEPTH:
        for name, part in value.items():
            yield from _cells_of((*path, name), part)
    else:
        yield path, value
