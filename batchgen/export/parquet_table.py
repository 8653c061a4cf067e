"""Results as a table for programs: Parquet."""

from collections.abc import Sequence
from json import loads
from typing import Any

from batchgen.errors import BatchgenError
from batchgen.export.columns import scalars_of
from batchgen.export.files import Hashed
from batchgen.export.writer import Content, Writer
from batchgen.installed import load_pyarrow
from batchgen.store import ResultRow

_ROW_GROUP_ROWS = 10_000
_ROW_GROUP_CHARS = 16 << 20
# Tells a column of JSON text from one of text.
_JSON_TEXT = {b"content": b"json"}


def see_parsed(content: Content, row: ResultRow) -> None:
    """Take the row's value into account for the type of the column."""
    if row.reason is None:
        content.parsed_type.see(_parsed(row))


class ParquetTable(Writer):
    """Typed columns. `parsed` has the type of its values where they have one; otherwise it is JSON
    as text, as `input`, `metadata` and the extras are, of which each row may have another shape.
    Written in row groups, so memory does not grow."""

    def __init__(self, file: Hashed, content: Content) -> None:
        self._pa, parquet = load_pyarrow()
        self._content = content
        self._parsed_type = content.parsed_type.arrow(self._pa)
        self._schema = _schema(self._pa, content, self._parsed_type)
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._records: list[dict[str, Any]] = []
        self._chars = 0

    def write(self, rows: Sequence[ResultRow]) -> None:
        for row in rows:
            extras = self._content.extras_of(row)
            self._records.append(_record(row, typed=self._parsed_type is not None) | extras)
            self._chars += len(row.input) + 2 * len(row.response)
            self._chars += sum(len(text or "") for text in extras.values())
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


def _schema(pa: Any, content: Content, parsed_type: Any) -> Any:
    text, count = pa.string(), pa.int64()
    json_text = (text, _JSON_TEXT)
    columns: list[tuple[str, Any]] = [
        ("id", text), ("input", json_text), ("response", text),
        ("parsed", json_text if parsed_type is None else parsed_type), ("metadata", json_text),
        ("model", text), ("finish_reason", text), ("prompt_tokens", count),
        ("completion_tokens", count), ("cached_tokens", count), ("reasoning_tokens", count),
        ("cost_usd", pa.float64()), ("attempts", count), ("timestamp", pa.timestamp("ms", "UTC")),
    ]  # fmt: skip
    columns[1:1] = [("sample", count)] if content.has_samples else []
    columns += [("reason", text), ("error", text)] if content.has_failed else []
    columns += [(name, json_text) for name in content.extras]
    return pa.schema(
        pa.field(name, kind[0], metadata=kind[1]) if isinstance(kind, tuple) else (name, kind)
        for name, kind in columns
    )


def _record(row: ResultRow, *, typed: bool) -> dict[str, Any]:
    parsed: Any = None
    if row.reason is None:
        parsed = _parsed(row) if typed else row.parsed or row.response
    return scalars_of(row) | {
        "id": row.custom_id or str(row.id),
        "input": row.input,
        "response": loads(row.response),
        "parsed": parsed,
        "metadata": None if row.metadata == "null" else row.metadata,
        "timestamp": row.finished_at,
    }


def _parsed(row: ResultRow) -> Any:
    return loads(row.parsed or row.response)
