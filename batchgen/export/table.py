"""Results as a table for a spreadsheet: CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from json import loads
from typing import Any

from batchgen.export.columns import CALL, FAILURE, AllColumns, scalars_of
from batchgen.export.files import Hashed
from batchgen.export.writer import Content, Writer
from batchgen.store import ResultRow
from batchgen.text.json_text import dump_json, storable

# Excel, LibreOffice and Google Sheets take a text that begins so for a formula (OWASP, "CSV
# Injection"); the last four are the full-width forms.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class CsvTable(Writer):
    """UTF-8 with a byte order mark, without which Excel takes it for another encoding."""

    def __init__(self, file: Hashed, content: Content) -> None:
        self._file, self._content = file, content
        self._text = _guarded_text if content.is_guarded else _text
        self._columns = content.chosen or AllColumns(content.columns.paths(_last(content)))
        file.write(b"\xef\xbb\xbf" + _csv([map(self._text, self._columns.names)]))

    def write(self, rows: Sequence[ResultRow]) -> None:
        self._file.write(_csv(map(self._row, rows)))

    def _row(self, row: ResultRow) -> Iterable[str]:
        extras = {name: _own_text(value) for name, value in self._content.extras_of(row).items()}
        return map(self._text, self._columns.cells(row, scalars_of(row) | extras))


def _last(content: Content) -> list[str]:
    """The columns after those of the item and its answer."""
    return [*CALL, *(FAILURE if content.has_failed else ()), *content.extras]


def _own_text(value: str | None) -> str | None:
    """JSON text as it is, but a JSON string as its text."""
    return storable(loads(value)) if value and value.startswith('"') else value


def _text(value: Any) -> str:
    """A cell: text as it is, the rest as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else dump_json(value)


def _guarded_text(value: Any) -> str:
    """The same, with an apostrophe before a text that would be a formula."""
    text = _text(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


def _csv(rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
