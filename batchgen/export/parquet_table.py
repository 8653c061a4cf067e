"""Results as a table for programs: Parquet."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from json import loads
from typing import Any

from batchgen.errors import BatchgenError
from batchgen.export.columns import scalars_of
from batchgen.export.files import Hashed
from batchgen.export.reviewed import EDITED
from batchgen.export.value_type import ValueType
from batchgen.export.writer import Content, Row, Writer
from batchgen.installed import load_pyarrow
from batchgen.store import ResultRow

Kind = str | ValueType
"""Of a column: one of these names, or the type of its values; `json` is text, and so are values
that have no type in common. A list of a kind is `[kind]`."""
ParquetColumns = Sequence[tuple[str, Kind]]

_ROW_GROUP_ROWS = 10_000
_ROW_GROUP_CHARS = 16 << 20
# Tells a column of JSON text from one of text.
_JSON_TEXT = {b"content": b"json"}
CALL_KINDS: ParquetColumns = (
    ("model", "text"), ("finish_reason", "text"), ("prompt_tokens", "count"),
    ("completion_tokens", "count"), ("cached_tokens", "count"), ("reasoning_tokens", "count"),
    ("cost_usd", "real"), ("attempts", "count"),
)  # fmt: skip


def see_parsed(content: Content, row: ResultRow) -> None:
    """Take the row's value into account for the type of the column."""
    if row.reason is None:
        content.parsed_type.see(loads(row.parsed or row.response))


def results_as_parquet(file: Hashed, content: Content) -> Writer[ResultRow]:
    return ParquetTable(file, _columns(content), partial(_record, content))


class ParquetTable(Writer[Row]):
    """Typed columns. `parsed` has the type of its values where they have one; otherwise it is JSON
    as text, as `input`, `metadata` and the extras are, of which each row may have another shape.
    Written in row groups, so memory does not grow. `record_of` makes a row's cells by the names of
    the columns; those with the type of their values are JSON."""

    def __init__(
        self, file: Hashed, columns: ParquetColumns, record_of: Callable[[Row], Mapping[str, Any]]
    ) -> None:
        self._pa, parquet = load_pyarrow()
        self._record_of = record_of
        kinds = [(name, _arrow(self._pa, kind)) for name, kind in columns]
        self._schema = self._pa.schema(
            self._pa.field(name, self._pa.string(), metadata=_JSON_TEXT)
            if kind is None
            else (name, kind)
            for name, kind in kinds
        )
        arrow = dict(kinds)
        of_values = [name for name, kind in columns if isinstance(kind, ValueType)]
        self._typed = [name for name in of_values if arrow[name] is not None]
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._records: list[dict[str, Any]] = []
        self._chars = 0

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            record = dict(self._record_of(row))
            self._chars += sum(len(cell) for cell in record.values() if isinstance(cell, str))
            for name in self._typed:
                record[name] = loads(record.get(name) or "null")
            self._records.append(record)
        if len(self._records) >= _ROW_GROUP_ROWS or self._chars >= _ROW_GROUP_CHARS:
            self._write_group()

    def close(self) -> None:
        self._write_group()
        self._writer.close()

    def abandon(self) -> None:
        """After an error, when nobody needs the file. Otherwise the writer would finish the file
        when Python collects it, and complain that it is closed."""
        self._writer.is_open = False

    def _write_group(self) -> None:
        if self._records:
            try:
                table = self._pa.Table.from_pylist(self._records, schema=self._schema)
            except (self._pa.ArrowException, ValueError, TypeError) as exc:
                raise BatchgenError(
                    "results changed while they were exported; export again."
                ) from exc
            self._writer.write_table(table, row_group_size=len(self._records))
            self._records, self._chars = [], 0


def _arrow(pa: Any, kind: Kind) -> Any:
    """None: it is JSON as text."""
    if isinstance(kind, ValueType):
        return kind.arrow(pa)
    if kind.startswith("["):
        return pa.list_(_arrow(pa, kind[1:-1]))
    known = {"text": pa.string(), "count": pa.int64(), "real": pa.float64(),
             "flag": pa.bool_(), "time": pa.timestamp("ms", "UTC")}  # fmt: skip
    return known.get(kind)


def _columns(content: Content) -> ParquetColumns:
    columns: list[tuple[str, Kind]] = [
        ("id", "text"), ("input", "json"), ("response", "text"), ("parsed", content.parsed_type),
        ("metadata", "json"), *CALL_KINDS, ("timestamp", "time"),
    ]  # fmt: skip
    columns[1:1] = [("sample", "count")] if content.has_samples else []
    columns += [("reason", "text"), ("error", "text")] if content.has_failed else []
    return [*columns, *last_columns(content)]


def last_columns(content: Content) -> ParquetColumns:
    """Those of the extras, and whether an edit stands in the row."""
    marks = [(EDITED, "flag")] if content.has_edits else []
    return [*((name, "json") for name in content.extras), *marks]


def last_cells(extras: Mapping[str, str | None]) -> dict[str, Any]:
    return {**extras, EDITED: EDITED in extras}


def _record(content: Content, row: ResultRow) -> dict[str, Any]:
    return scalars_of(row) | {
        "id": row.custom_id or str(row.id),
        "input": row.input,
        "response": loads(row.response),
        "parsed": (row.parsed or row.response) if row.reason is None else None,
        "metadata": None if row.metadata == "null" else row.metadata,
        "timestamp": row.finished_at,
    } | last_cells(content.extras_of(row))  # fmt: skip
