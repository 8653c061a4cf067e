"""Results as a table: CSV for a spreadsheet, Parquet for programs."""

import csv
import io
from collections.abc import Sequence
from json import loads
from typing import Any

from batchgen.clock import timestamp
from batchgen.errors import BatchgenError
from batchgen.export.columns import cells_of, groups_of
from batchgen.export.files import Hashed
from batchgen.export.writer import Content, Writer
from batchgen.items import State
from batchgen.json_text import dump_json, storable
from batchgen.parquet import load_pyarrow
from batchgen.store import ResultRow

# Excel, LibreOffice and Google Sheets take a text that begins so for a formula (OWASP, "CSV
# Injection"); the last four are the full-width forms.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
# The columns about the call.
_CALL = (
    "model", "finish_reason", "prompt_tokens", "completion_tokens", "cached_tokens",
    "reasoning_tokens", "cost_usd", "attempts", "timestamp",
)  # fmt: skip
_ROW_GROUP_ROWS = 10_000
_ROW_GROUP_CHARS = 16 << 20


class CsvTable(Writer):
    """UTF-8 with a byte order mark, without which Excel takes it for another encoding."""

    def __init__(self, file: Hashed, content: Content) -> None:
        self._file, self._content = file, content
        why = ("reason", "error") if content.state is State.FAILED else ()
        self._paths = content.columns.paths([*_CALL, *why, *content.extras])
        self._places = {path: place for place, path in enumerate(self._paths)}
        file.write(b"\xef\xbb\xbf" + _csv([[_shown(".".join(path)) for path in self._paths]]))

    def write(self, rows: Sequence[ResultRow]) -> None:
        self._file.write(_csv(map(self._row, rows)))

    def _row(self, row: ResultRow) -> list[str]:
        cells = [""] * len(self._paths)
        cells[0] = _shown(row.custom_id or row.id)
        for group, value in groups_of(row):
            if value is None:
                continue
            whole = self._places.get((group,))
            for path, part in cells_of((group,), value):
                place = self._places.get(path)
                if place is None and whole is None:
                    raise BatchgenError("results changed while they were exported; export again.")
                if place is None:  # too many fields for columns
                    cells[whole or 0] = _shown(value)
                    break
                cells[place] = _shown(part)
        extras = {name: _text_of(value) for name, value in self._content.extras_of(row).items()}
        for name, value in (_scalars(row) | extras).items():
            if (place := self._places.get((name,))) is not None:
                cells[place] = _shown(value)
        return cells


def _scalars(row: ResultRow) -> dict[str, Any]:
    return {
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


def _text_of(value: str | None) -> str | None:
    """JSON text as it is, but a JSON string as its text."""
    return storable(loads(value)) if value and value.startswith('"') else value


def _shown(value: Any) -> str:
    """A cell: text as it is, with an apostrophe before what would be a formula; the rest as
    JSON."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else dump_json(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


def _csv(rows: Any) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


class ParquetTable(Writer):
    """Typed columns; `input`, `parsed`, `metadata` and the extras, of which each row may have
    another shape, are JSON as text. Written in row groups, so memory does not grow."""

    def __init__(self, file: Hashed, content: Content) -> None:
        self._pa, parquet = load_pyarrow()
        self._content = content
        self._schema = _schema(self._pa, content)
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._records: list[dict[str, Any]] = []
        self._chars = 0

    def write(self, rows: Sequence[ResultRow]) -> None:
        for row in rows:
            extras = self._content.extras_of(row)
            self._records.append(_record(row) | extras)
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
            table = self._pa.Table.from_pylist(self._records, schema=self._schema)
            self._writer.write_table(table, row_group_size=len(self._records))
            self._records, self._chars = [], 0


def _schema(pa: Any, content: Content) -> Any:
    text, count = pa.string(), pa.int64()
    columns = [
        ("id", text), ("input", text), ("response", text), ("parsed", text), ("metadata", text),
        ("model", text), ("finish_reason", text), ("prompt_tokens", count),
        ("completion_tokens", count), ("cached_tokens", count), ("reasoning_tokens", count),
        ("cost_usd", pa.float64()), ("attempts", count), ("timestamp", pa.timestamp("ms", "UTC")),
    ]  # fmt: skip
    columns[1:1] = [("sample", count)] if content.has_samples else []
    columns += [("reason", text), ("error", text)] if content.state is State.FAILED else []
    columns += [(name, text) for name in content.extras]
    return pa.schema(columns)


def _record(row: ResultRow) -> dict[str, Any]:
    metadata = None if row.metadata == "null" else row.metadata
    return _scalars(row) | {
        "id": row.custom_id or str(row.id),
        "input": row.input,
        "response": loads(row.response),
        "parsed": (row.parsed or row.response) if row.reason is None else None,
        "metadata": metadata,
        "timestamp": row.finished_at,
    }
