"""Results as a table for a spreadsheet: CSV."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from json import loads
from typing import Any

from batchgen.export.columns import CALL, FAILURE, AllColumns, ResultCells, TableRow
from batchgen.export.files import Hashed
from batchgen.export.reviewed import EDITED
from batchgen.export.writer import Content, Row, Writer
from batchgen.store import ResultRow
from batchgen.text.json_text import dump_json, storable

# Excel, LibreOffice and Google Sheets take a text that begins so for a formula (OWASP, "CSV
# Injection"); the last four are the full-width forms.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class CsvTable(Writer[Row]):
    """UTF-8 with a byte order mark, without which Excel takes it for another encoding. `cells_of`
    and `extras_of` say what is in a row; `failure` are the columns about why it failed."""

    def __init__(
        self, file: Hashed, content: Content, cells_of: Callable[[Row], TableRow],
        extras_of: Callable[[Row], Mapping[str, str | None]], failure: Sequence[str] = FAILURE,
    ) -> None:  # fmt: skip
        self._file, self._cells_of, self._extras_of = file, cells_of, extras_of
        self._text = _guarded_text if content.is_guarded else _text
        marks = (EDITED,) if content.has_edits else ()
        self._marks: Mapping[str, str | None] = dict.fromkeys(marks)
        last = [*CALL, *(failure if content.has_failed else ()), *content.extras, *marks]
        self._columns = content.chosen or AllColumns(content.columns, last)
        file.write(b"\xef\xbb\xbf" + _csv([map(self._text, self._columns.names)]))

    def write(self, rows: Sequence[Row]) -> None:
        self._file.write(_csv(map(self._row, rows)))

    def _row(self, row: Row) -> Iterable[str]:
        found = {**self._marks, **self._extras_of(row)}
        extras = {name: _own_text(value) for name, value in found.items()}
        return map(self._text, self._columns.cells(self._cells_of(row), extras))


def results_as_csv(file: Hashed, content: Content) -> Writer[ResultRow]:
    return CsvTable(file, content, ResultCells, content.extras_of)


def see_columns(content: Content, row: ResultRow) -> None:
    """The columns that the row needs."""
    content.columns.see(ResultCells(row), is_sample=row.sample is not None)


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
