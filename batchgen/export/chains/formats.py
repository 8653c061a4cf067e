"""How each format of the export holds chains."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from msgspec import Struct

from batchgen.export.chains.content import ChainContent
from batchgen.export.chains.line import ChainLine
from batchgen.export.chains.table import (
    FAILURE,
    ChainCells,
    parquet_columns,
    parquet_record,
    see_chain_columns,
    see_chain_types,
)
from batchgen.export.chains.text import chain_object, chain_text, chains_head
from batchgen.export.files import Hashed
from batchgen.export.formats import FORMATS
from batchgen.export.parquet_table import ParquetTable, last_cells
from batchgen.export.table import CsvTable
from batchgen.export.writer import LineWriter, Writer
from batchgen.store import ResultRow

_GROUP_END = "]}\n"


class ChainFormat(Struct, frozen=True, kw_only=True):
    """A format: what writes lines in it, and is given each line before any is written. Where it is
    made of an answer, a line `needs_answer`, and what that was asked in `needs_parents`."""

    writer: Callable[[Hashed, ChainContent], Writer[ChainLine]]
    see: Callable[[ChainContent, ChainLine], None] | None = None
    needs_answer: bool = False
    needs_parents: bool = False


def _jsonl(file: Hashed, content: ChainContent) -> Writer[ChainLine]:
    def line_text(line: ChainLine, _: object) -> str:
        return chain_text(line, content.extras_of_line(line))

    return LineWriter(line_text, file, content)


def _csv(file: Hashed, content: ChainContent) -> Writer[ChainLine]:
    return CsvTable(file, content, ChainCells, content.extras_of_line, FAILURE)


def _parquet(file: Hashed, content: ChainContent) -> Writer[ChainLine]:
    def record(line: ChainLine) -> dict[str, object]:
        return parquet_record(line, content.step) | last_cells(content.extras_of_line(line))

    return ParquetTable(
        file, parquet_columns(content, content.plan, content.step, content.step_types), record
    )


def _see_parquet(content: ChainContent, line: ChainLine) -> None:
    see_chain_types(content.step_types, content, line)


class AnswerLines(Writer[ChainLine]):
    """The answers of the lines, in a format for results."""

    def __init__(
        self, writer: Callable[[Hashed, ChainContent], Writer[ResultRow]], file: Hashed,
        content: ChainContent,
    ) -> None:  # fmt: skip
        self._writer = writer(file, content)

    def write(self, rows: Sequence[ChainLine]) -> None:
        self._writer.write([line.answer for line in rows])

    def close(self) -> None:
        self._writer.close()

    def abandon(self) -> None:
        self._writer.abandon()


class ChainGroups(Writer[ChainLine]):
    """All chains of an item in one line, which is written while they are read."""

    def __init__(self, file: Hashed, _: ChainContent) -> None:
        self._file = file
        self._item_id = 0
        self.lines = 0

    def write(self, rows: Sequence[ChainLine]) -> None:
        self._file.write("".join(map(self._part, rows)).encode())

    def close(self) -> None:
        self._file.write(_GROUP_END.encode() if self.lines else b"")

    def _part(self, line: ChainLine) -> str:
        if line.item_id == self._item_id:
            return f", {chain_object(line)}"
        self._item_id = line.item_id
        self.lines += 1
        end = _GROUP_END if self.lines > 1 else ""
        return f"{end}{chains_head(line)}{chain_object(line)}"


def _answers(name: str, *, needs_parents: bool) -> ChainFormat:
    writer = partial(AnswerLines, FORMATS[name].writer)
    return ChainFormat(writer=writer, needs_answer=True, needs_parents=needs_parents)


CHAIN_FORMATS: Mapping[str, ChainFormat] = {
    "jsonl": ChainFormat(writer=_jsonl),
    "csv": ChainFormat(writer=_csv, see=see_chain_columns),
    "parquet": ChainFormat(writer=_parquet, see=_see_parquet),
    "messages": _answers("messages", needs_parents=True),
    "alpaca": _answers("alpaca", needs_parents=True),
    "sharegpt": _answers("sharegpt", needs_parents=True),
    "openai-batch": _answers("openai-batch", needs_parents=False),
}
GROUPED = ChainFormat(writer=ChainGroups)
