"""The rows of a table of another library: pandas, polars, datasets, pyarrow. None is imported."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from batchgen.errors import InputError

_PAGE_ROWS = 1000


def rows_of_frame(pool: Any, name: str) -> Iterable[dict[str, Any]] | None:
    """The rows as objects, as often as they are iterated; None when it is no table. Raises
    InputError for one whose columns make no items."""
    read = _READERS.get((type(pool).__module__.partition(".")[0], type(pool).__name__))
    return None if read is None else read(pool, name)


class _Rows:
    """Rows that can be read more than once."""

    def __init__(self, read: Callable[[], Iterator[dict[str, Any]]]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._read()


def _pandas(frame: Any, name: str) -> _Rows:
    frame = _with_named_index(frame)
    columns = _checked_names(frame.columns, name)

    def rows() -> Iterator[dict[str, Any]]:
        for row in frame.itertuples(index=False, name=None):
            yield dict(zip(columns, row, strict=True))

    return _Rows(rows)


def _with_named_index(frame: Any) -> Any:
    """An index that has a name is a column too; one without, as frames have, counts the rows."""
    names = [name for name in frame.index.names if name is not None and name not in frame.columns]
    return frame.reset_index(level=names) if names else frame


def _polars(frame: Any, name: str) -> _Rows:
    eager = frame.collect() if hasattr(frame, "collect") else frame
    _checked_names(eager.columns, name)
    return _Rows(lambda: eager.iter_rows(named=True))


def _arrow(table: Any, name: str) -> _Rows:
    _checked_names(table.column_names, name)

    def rows() -> Iterator[dict[str, Any]]:
        for batch in table.to_batches(max_chunksize=_PAGE_ROWS):
            yield from batch.to_pylist()

    return _Rows(rows)


def _dataset(dataset: Any, name: str) -> _Rows:
    _checked_names(dataset.column_names or (), name)
    return _Rows(lambda: iter(dataset))


def _splits(splits: Any, name: str) -> _Rows:
    known = ", ".join(map(repr, splits))
    raise InputError(f"{name}: is a {type(splits).__name__}; take one of its splits: {known}")


def _series(_: Any, name: str) -> _Rows:
    raise InputError(
        f"{name}: is a single column; give the frame, so that a template can name its columns: "
        "series.to_frame('text')"
    )


def _checked_names(columns: Iterable[Any], name: str) -> list[str]:
    names = list(columns)
    for column in names:
        if not isinstance(column, str):
            raise InputError(
                f"{name}: the name of column {column!r} is of type {type(column).__name__}; rename "
                "it to text, as a template names its variables"
            )
    twice = sorted({column for column in names if names.count(column) > 1})
    if twice:
        raise InputError(f"{name}: there are several columns {twice[0]!r}; rename all but one")
    return names


_READERS: dict[tuple[str, str], Callable[[Any, str], _Rows]] = {
    ("pandas", "DataFrame"): _pandas,
    ("pandas", "Series"): _series,
    ("polars", "DataFrame"): _polars,
    ("polars", "LazyFrame"): _polars,
    ("polars", "Series"): _series,
    ("pyarrow", "Table"): _arrow,
    ("datasets", "Dataset"): _dataset,
    ("datasets", "IterableDataset"): _dataset,
    ("datasets", "DatasetDict"): _splits,
    ("datasets", "IterableDatasetDict"): _splits,
}
