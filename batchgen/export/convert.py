"""Results in any format, chosen and split: page by page, each page parsed and written on a thread,
in constant memory."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from batchgen.export.chat import Chats
from batchgen.export.extras import Extras
from batchgen.export.files import Hashed
from batchgen.export.lines import export_line, is_wanted
from batchgen.export.table import Columns, CsvTable, ParquetTable
from batchgen.export.wanted import Extra, Format, Wanted
from batchgen.items import Recipe
from batchgen.shutdown import uninterrupted
from batchgen.store import AnswerDetails, Experiment, ResultRow, Store

_PAGE_ROWS = 500
_PAGE_ROWS_WITH_BODIES = 50  # a body with logprobs is a hundred times its answer

_Details = Mapping[int, AnswerDetails]


@dataclass(slots=True)
class Tally:
    """What is in the rows that were written."""

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
    """`rows` are those of each file; `recipes` the ones that were met, by their number."""

    rows: list[int]
    tally: Tally
    recipes: dict[int, Recipe]


async def convert(
    store: Store, experiment: Experiment, files: Sequence[Hashed], wanted: Wanted
) -> Converted:
    """Write the results to the files, which share them in the order of the pool, as equally as it
    goes. Raises UsageError for an item that the format has no place for."""
    pages = _Pages(store, experiment, wanted)
    total = await _count(store, experiment, wanted) if len(files) > 1 else 0
    columns = Columns(wanted.state, wanted.extras)
    if wanted.format is Format.CSV or (len(files) > 1 and wanted.where):
        total = await _look_through(pages, wanted, columns)
    has_samples = wanted.format is Format.PARQUET and await store.has_samples(experiment.id)
    writer = _Writer(files, wanted, columns, total, pages.recipes, has_samples)
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


async def _count(store: Store, experiment: Experiment, wanted: Wanted) -> int:
    counts = await store.counts([experiment.id])
    return int(getattr(counts, wanted.state))


async def _look_through(pages: "_Pages", wanted: Wanted, columns: Columns) -> int:
    """All results once, before any is written: how many are chosen, and what columns they need."""
    total, after = 0, 0

    def look(page: list[ResultRow]) -> int:
        chosen = _chosen(page, wanted)
        if wanted.format is Format.CSV:
            for row in chosen:
                columns.see(row)
        return len(chosen)

    while page := await pages.after(after):
        after = page[-1].id
        total += await uninterrupted(asyncio.to_thread(look, page))
    return total


def _chosen(page: list[ResultRow], wanted: Wanted) -> list[ResultRow]:
    return [row for row in page if is_wanted(row, wanted.where)]


class _Pages:
    """Reading: results, and what else the format needs of them."""

    def __init__(self, store: Store, experiment: Experiment, wanted: Wanted) -> None:
        self._store, self._experiment, self._wanted = store, experiment, wanted
        self._bodies = wanted.format is Format.OPENAI_BATCH or bool(wanted.extras)
        self._with_details = self._bodies or wanted.format.is_chat or wanted.summary is not None
        self.recipes: dict[int, Recipe] = {}

    async def after(self, item_id: int) -> list[ResultRow]:
        limit = _PAGE_ROWS_WITH_BODIES if self._bodies else _PAGE_ROWS
        return await self._store.result_page(
            self._experiment.id, self._wanted.state, item_id, limit
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
    """Writing: shares the chosen rows among the files, one file after another."""

    def __init__(
        self, files: Sequence[Hashed], wanted: Wanted, columns: Columns, total: int,
        recipes: Mapping[int, Recipe], has_samples: bool,
    ) -> None:  # fmt: skip
        self._wanted = wanted
        self._has_samples = has_samples
        self._details: dict[int, AnswerDetails] = {}
        chats = Chats(wanted.format, recipes, with_reasoning=Extra.REASONING in wanted.extras)
        extras = Extras(wanted.extras, self._details)
        self._sinks = [self._sink(file, columns, chats, extras) for file in files]
        self._room = [
            total * (n + 1) // len(files) - total * n // len(files) for n in range(len(files))
        ]
        self.rows = [0] * len(files)
        self._now = 0
        self.tally = Tally()

    def write(self, page: list[ResultRow], details: _Details | None) -> None:
        rows = _chosen(page, self._wanted)
        if details is not None:
            # One that was reopened at this moment is a result no more.
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
        for sink in self._sinks[self._now :]:
            sink.close()

    def abandon(self) -> None:
        for sink in self._sinks[self._now :]:
            sink.abandon()

    def _write_some(self, rows: list[ResultRow]) -> int:
        """To the file whose turn it is; the last one takes what came since they were counted."""
        last = self._now == len(self._sinks) - 1
        room = len(rows) if last else self._room[self._now] - self.rows[self._now]
        if room == 0:
            self._sinks[self._now].close()
            self._now += 1
            return 0
        some = rows[:room]
        self._sinks[self._now].write(some)
        self.rows[self._now] += len(some)
        return len(some)

    def _sink(self, file: Hashed, columns: Columns, chats: Chats, extras: Extras) -> _Sink:
        if self._wanted.format is Format.JSONL:
            return _Lines(file, extras)
        if self._wanted.format is Format.CSV:
            return CsvTable(file, columns, extras)
        if self._wanted.format is Format.PARQUET:
            return ParquetTable(file, self._wanted.state, extras, has_samples=self._has_samples)
        return _ChatLines(file, chats, self._details)
