"""CSV, and TSV, which has tabs in place of the commas: a header, and an item in each row."""

import csv
from collections.abc import Iterator
from typing import Any, BinaryIO

from batchgen.pool.lines import MAX_ITEM_BYTES, TEXT_KEPT_CHARS, Lines
from batchgen.pool.shapes import BadLine, Entry, entry_of
from batchgen.pool.strict_json import problem_of, read_json

_DELIMITERS = {",": "commas", "\t": "tabs"}
_SHOWN_CHARS = 30
_LINE_OVERHEAD_BYTES = 100  # of a short line and its cells in Python, beyond their characters


class _BadLineError(Exception):
    """Carries a BadLine through csv.reader."""

    def __init__(self, line: BadLine) -> None:
        super().__init__(line.problem)
        self.line = line


class _CsvLines:
    """Lines for csv.reader, which can go on after an exception; `row_lines` are those of the row
    that is being read."""

    def __init__(self, lines: Lines) -> None:
        self.lines, self.texts = lines, iter(lines)
        self.row_lines: list[str] = []
        self.bytes_left = MAX_ITEM_BYTES

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self.texts)
        if isinstance(line, BadLine):
            raise _BadLineError(line)
        self.bytes_left -= len(line) + _LINE_OVERHEAD_BYTES
        if self.bytes_left < 0:  # a quote that is never closed, or worse
            start = self.text()[:TEXT_KEPT_CHARS]
            problem = f"the row that ends here is longer than {MAX_ITEM_BYTES >> 20} MB"
            raise _BadLineError(self.lines.bad(problem, start, fatal=True))
        self.row_lines.append(f"{line}\n")
        return self.row_lines[-1]

    def start_row(self) -> str:
        """Begin a row; returns its place."""
        self.row_lines.clear()
        self.bytes_left = MAX_ITEM_BYTES
        return f"{self.lines.name}:{self.lines.number + 1}"

    def text(self) -> str:
        return "".join(self.row_lines).rstrip("\r\n")


def read_tsv_rows(file: BinaryIO, name: str) -> Iterator[Entry]:
    return read_csv_rows(file, name, "\t")


def read_csv_rows(file: BinaryIO, name: str, delimiter: str = ",") -> Iterator[Entry]:
    csv.field_size_limit(MAX_ITEM_BYTES)  # the csv module's own limit, 128 KB, is below a prompt
    lines = _CsvLines(Lines(file, name))
    rows = _rows(lines, delimiter)
    where, header = next(rows, ("", None))
    if header is None:
        return
    problem = header.problem if isinstance(header, BadLine) else _header_problem(header, delimiter)
    if isinstance(header, BadLine) or problem:
        yield BadLine(where, problem, lines.text(), fatal=True)
        return
    names = [column.strip() for column in header]
    for where, row in rows:
        if isinstance(row, BadLine):
            yield row
        elif not any(map(str.strip, row)):
            yield BadLine(where, "the row is blank", lines.text(), blank=True)
        else:
            yield _csv_row(names, row, where, lines.text())


def _rows(lines: _CsvLines, delimiter: str) -> Iterator[tuple[str, list[str] | BadLine]]:
    """Every row on a line that is not empty, with its place."""
    # strict: otherwise a quote that is never closed would silently swallow the rest of the file
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        where = lines.start_row()
        try:
            row = next(reader)
        except StopIteration:
            return
        except _BadLineError as exc:
            yield where, exc.line
            if exc.line.fatal:
                return
        except csv.Error as exc:
            yield where, BadLine(where, f"not CSV: {_plainly(exc)}", lines.text())
        else:
            if row:
                yield where, row


def _plainly(exc: csv.Error) -> str:
    """What Python's module says, in the words of who wrote the file."""
    problem = str(exc)
    return next((words for begins, words in _WORDS.items() if problem.startswith(begins)), problem)


_WORDS = {
    "unexpected end of data": 'a cell that begins with " here is never closed with another "',
    "new-line character seen": "lines end with CR alone; save the file with LF or CR LF",
    "',' expected after": 'there is more after the " that ends a cell; within one, write ""',
    "'\t' expected after": 'there is more after the " that ends a cell; within one, write ""',
}


def _header_problem(header: list[str], delimiter: str) -> str:
    others = ";\t|,".replace(delimiter, "")
    if len(header) == 1 and (other := next((c for c in others if c in header[0]), None)):
        instead = (
            "commas, or name the file .tsv"
            if other == "\t"
            else ("tabs, or name the file .csv" if other == "," else _DELIMITERS[delimiter])
        )
        return f"the columns are separated by {other!r}; write them with {instead}"
    names = list(filter(None, map(str.strip, header)))
    if twice := next((name for name in names if names.count(name) > 1), None):
        return f"the header has {twice!r} twice"
    return ""


def _csv_row(header: list[str], row: list[str], where: str, text: str) -> Entry:
    if len(row) != len(header):
        return BadLine(where, f"the row has {len(row)} cells, the header {len(header)}", text)
    item: dict[str, Any] = dict(zip(header, row, strict=True))
    if "" in item and (nameless := _in_nameless_column(header, row)):
        return BadLine(where, nameless, text)
    item.pop("", None)
    for name in ("id", "params"):
        if item.get(name) == "":  # an empty cell is CSV's way of leaving it out
            del item[name]
    if "params" in item:
        try:
            item["params"] = read_json(item["params"])
        except (ValueError, RecursionError) as exc:
            return BadLine(where, f"params: {problem_of(exc)}", text)
    return entry_of(item, where, text)


def _in_nameless_column(header: list[str], row: list[str]) -> str:
    """What is wrong with a row that has something where the header has no name; spreadsheets write
    such columns with nothing in them."""
    for number, (name, cell) in enumerate(zip(header, row, strict=True), start=1):
        if not name and cell.strip():
            hint = " (pandas: to_csv(index=False))" if number == 1 else ""
            return (
                f"{cell[:_SHOWN_CHARS]!r} is in column {number}, which has no name in the header; "
                f"give it one, or leave the column out{hint}"
            )
    return ""
