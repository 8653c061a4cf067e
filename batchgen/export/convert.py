"""Results in any format, chosen by a condition and split into files: page by page, in constant
memory. Each page is parsed and written on a thread."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from batchgen.export.chat import Chats
from batchgen.export.extras import Extras
from batchgen.export.files import Hashed
from batchgen.export.lines import export_line, matches
from batchgen.export.request import ExportRequest, Extra, Format
from batchgen.export.table import Columns, CsvTable, ParquetTable
from batchgen.items import Recipe
from batchgen.shutdown import uninterrupted
from batchgen.store import AnswerDetails, Experiment, ResultRow, Store

_PAGE_ROWS = 500
_PAGE_ROWS_WITH_BODIES = 50  # a body with logprobs is a hundred times its answer

_Details = Mapping[int, AnswerDetails]


@dataclass(slots=True)
class Tally:
    """Sums over the rows that were written."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0.0
    recipes: Counter[int] = field(default_factory=Counter)

    def add(self, row: ResultRow) -> None:
        self.prompt_tokens += row.prompt_tokens or 0
        self.completion_tokens += row.completion_tokens or 0
        self.cached_tokens += row.cached_tokens or 0
        self.reasoning_tokens += row.reasoning_tokens or 0
        self.cost_usd += row.cost_usd or 0.0


@dataclass(frozen=True, slots=True)
class Converted:
    """`rows` is the number of rows of each file; `recipes` are those of the rows, by their id."""

    rows: list[int]
    tally: Tally
    recipes: dict[int, Recipe]


async def convert(
    store: Store, experiment: Experiment, files: Sequence[Hashed], request: ExportRequest
) -> Converted:
    """Write the results to the files, in the order of the pool and in shares as equal as possible.
    Raises UsageError for an item that the format cannot hold."""
    pages = _Pages(store, experiment, request)
    total = await _count(store, experiment, request) if len(files) > 1 else 0
    columns = Columns(request.state, request.extras)
    if request.format is Format.CSV or (len(files) > 1 and request.where):
        total = await _scan(pages, request, columns)
    has_samples = request.format is Format.PARQUET and await store.has_samples(experiment.id)
    writer = _Writer(files, request, columns, total, pages.recipes, has_samples)
    after = 0
    try:
        while page := await pages.after(after):
            after = page[-1].id
            details = await pages.details(page)
            await uninterrupted(asyncio.to_thread(writer.write, page, details))
        await uninterrupted(asyncio.to_thread(writer.close))
    except BaseException:
        writer.abandon()
        raise
    return Converted(writer.rows, writer.tally, pages.recipes)


async def _count(store: Store, experiment: Experiment, request: ExportRequest) -> int:
    counts = await store.counts([experiment.id])
    return int(getattr(counts, request.state))


async def _scan(pages: "_Pages", request: ExportRequest, columns: Columns) -> int:
    """Read all results before any is written: how many are chosen, and the columns that they
    need."""
    total, after = 0, 0

    def scan(page: list[ResultRow]) -> int:
        chosen = _chosen(page, request)
        if request.format is Format.CSV:
            for row in chosen:
                columns.see(row)
        return len(chosen)

    while page := await pages.after(after):
        after = page[-1].id
        total += await uninterrupted(asyncio.to_thread(scan, page))
    return total


def _chosen(page: list[ResultRow], request: ExportRequest) -> list[ResultRow]:
    return [row for row in page if matches(row, request.where)]


class _Pages:
    """Reads the results, and what else the format needs of them."""

    def __init__(self, store: Store, experiment: Experiment, request: ExportRequest) -> None:
        self._store, self._experiment, self._request = store, experiment, request
        self._bodies = request.format is Format.OPENAI_BATCH or bool(request.extras)
        self._with_details = self._bodies or request.format.is_chat or request.summary is not None
        self.recipes: dict[int, Recipe] = {}

    async def after(self, item_id: int) -> list[ResultRow]:
        limit = _PAGE_ROWS_WITH_BODIES if self._bodies else _PAGE_ROWS
        return await self._store.result_page(
            self._experiment.id, self._request.state, item_id, limit
        )

    async def details(self, page: list[ResultRow]) -> _Details | None:
        if not self._with_details:
            return None
        found = await self._store.answer_details([row.id for row in page], bodies=self._bodies)
        for recipe_id in {one.recipe_id for one in found.values()} - self.recipes.keys():
            self.recipes[recipe_id] = await self._store.recipe(recipe_id)
        return found


class _Sink(Protocol):
    """One file in one format."""

    def write(self, rows: Sequence[ResultRow]) -> None: ...

    def close(self) -> None: ...

    def abandon(self) -> None: ...


class _Lines:
    def __init__(self, file: Hashed, extras: Extras) -> None:
        self._file, self._extras = file, extras

    def write(self, rows: Sequence[ResultRow]) -> None:
        lines = [export_line(row, self._extras.of(row)) for row in rows]
        self._file.write("".join(lines).encode())

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass


class _ChatLines:
    """`details` are those of the page that is being written."""

    def __init__(self, file: Hashed, chats: Chats, details: dict[int, AnswerDetails]) -> None:
        self._file, self._chats, self._details = file, chats, details

    def write(self, rows: Sequence[ResultRow]) -> None:
        lines = [self._chats.line(row, self._details[row.id]) for row in rows]
        self._file.write("".join(lines).encode())

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass


class _Writer:
    """Writes the chosen rows: each file gets its share, one file after another."""

    def __init__(
        self, files: Sequence[Hashed], request: ExportRequest, columns: Columns, total: int,
        recipes: Mapping[int, Recipe], has_samples: bool,
    ) -> None:  # fmt: skip
        self._request = request
        self._has_samples = has_samples
        self._details: dict[int, AnswerDetails] = {}
        chats = Chats(request.format, recipes, with_reasoning=Extra.REASONING in request.extras)
        extras = Extras(request.extras, self._details)
        self._sinks = [self._sink(file, columns, chats, extras) for file in files]
        self._shares = [
            total * (n + 1) // len(files) - total * n // len(files) for n in range(len(files))
        ]
        self.rows = [0] * len(files)
        self._current = 0
        self.tally = Tally()

    def write(self, page: list[ResultRow], details: _Details | None) -> None:
        rows = _chosen(page, self._request)
        if details is not None:
            # An item that was sent back to pending at this moment has no result any more.
            rows = [row for row in rows if row.id in details]
            self._details.clear()
            self._details.update(details)
        for row in rows:
            self.tally.add(row)
            if details is not None:
                self.tally.recipes[details[row.id].recipe_id] += 1
        while rows:
            rows = rows[self._write_some(rows) :]

    def close(self) -> None:
        for sink in self._sinks[self._current :]:
            sink.close()

    def abandon(self) -> None:
        for sink in self._sinks[self._current :]:
            sink.abandon()

    def _write_some(self, rows: list[ResultRow]) -> int:
        """Write to the current file, and return how many rows it took. The last file also takes the
        rows that have come since they were counted."""
        last = self._current == len(self._sinks) - 1
        share_left = len(rows) if last else self._shares[self._current] - self.rows[self._current]
        if share_left == 0:
            self._sinks[self._current].close()
            self._current += 1
            return 0
        some = rows[:share_left]
        self._sinks[self._current].write(some)
        self.rows[self._current] += len(some)
        return len(some)

    def _sink(self, file: Hashed, columns: Columns, chats: Chats, extras: Extras) -> _Sink:
        if self._request.format is Format.JSONL:
            return _Lines(file, extras)
        if self._request.format is Format.CSV:
            return CsvTable(file, columns, extras)
        if self._request.format is Format.PARQUET:
            return ParquetTable(file, self._request.state, extras, has_samples=self._has_samples)
        return _ChatLines(file, chats, self._details)
