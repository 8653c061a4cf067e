"""Results as a table for a spreadsheet: CSV."""

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
from batchgen.json_text import dump_json, storable
from batchgen.store import ResultRow

# Excel, LibreOffice and Google Sheets take a text that begins so for a formula (OWASP, "CSV
# Injection"); the last four are the full-width forms.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
# The columns about the call.
_CALL = (
    "model", "finish_reason", "prompt_tokens", "completion_tokens", "cached_tokens",
    "reasoning_tokens", "cost_usd", "attempts", "timestamp",
)  # fmt: skip


class CsvTable(Writer):
    """UTF-8 with a byte order mark, without which Excel takes it for another encoding."""

    def __init__(self, file: Hashed, content: Content) -> None:
        self._file, self._content = file, content
        why = ("reason", "error") if content.has_failed else ()
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
        for name, value in (scalars(row) | extras).items():
            if (place := self._places.get((name,))) is not None:
                cells[place] = _shown(value)
        return cells


def scalars(row: ResultRow) -> dict[str, Any]:
    """The cells about the call and the row, by their columns."""
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
