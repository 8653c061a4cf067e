"""Results in any format, chosen by a condition and split into files: page by page, in constant
memory. Each page is parsed and written on a thread."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Generic

from msgspec import Struct, field

from batchgen.export.files import Hashed
from batchgen.export.request import ExportRequest
from batchgen.export.source import R, Source
from batchgen.export.writer import Content
from batchgen.items import Recipe
from batchgen.shutdown import uninterrupted
from batchgen.store import ResultRow


class Tally(Struct):
    """Sums over the rows that were written; `recipes` counts those of each recipe, where the
    request needs to know them."""

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


class Converted(Struct, frozen=True):
    """`rows` is the number of rows of each file; `recipes` are those of the rows, by their id;
    `absent_columns` are those asked for that none of the rows has."""

    rows: list[int]
    tally: Tally
    recipes: dict[int, Recipe]
    absent_columns: tuple[str, ...]


async def convert(source: Source[R], files: Sequence[Hashed], request: ExportRequest) -> Converted:
    """Write the rows to the files, in their order and in shares as equal as possible. Raises
    UsageError for an item that the format cannot hold."""
    content = await source.content()
    total: int | None = 0
    if len(files) > 1:
        total = None if request.chooses else await source.count()
    if source.see or total is None:
        total = await _scan(source, content)
    shares = _Shares(source, files, request, content, total)
    try:
        async for page in source.pages():
            if request.needs_details:
                await source.read_details(page, content)
            await uninterrupted(asyncio.to_thread(shares.write, page))
        await uninterrupted(asyncio.to_thread(shares.close))
    except BaseException:
        shares.abandon()
        raise
    absent = content.chosen.absent if content.chosen and any(shares.rows) else ()
    return Converted(shares.rows, shares.tally, content.recipes, absent)


async def _scan(source: Source[R], content: Content) -> int:
    """Read all results before any is written: how many are chosen, and what the format must know
    of all."""
    total, see = 0, source.see

    def scan(page: list[R]) -> int:
        rows = [row for row in page if source.matches(row)]
        for row in rows if see else ():
            see(content, row)  # type: ignore[misc]
        return len(rows)

    async for page in source.pages():
        total += await uninterrupted(asyncio.to_thread(scan, page))
    return total


class _Shares(Generic[R]):
    """Writes the chosen rows: each file gets its share, one file after another."""

    def __init__(
        self, source: Source[R], files: Sequence[Hashed], request: ExportRequest,
        content: Content, total: int,
    ) -> None:  # fmt: skip
        self._source, self._request, self._content = source, request, content
        self._writers = [source.writer(file, content) for file in files]
        self._shares = [
            total * (n + 1) // len(files) - total * n // len(files) for n in range(len(files))
        ]
        self._current = 0
        self.rows = [0] * len(files)
        self.tally = Tally()

    def write(self, page: list[R]) -> None:
        rows = [row for row in page if self._source.matches(row)]
        details = self._content.details
        if self._request.needs_details:
            # An item that was sent back to pending at this moment has no result any more.
            rows = [row for row in rows if row.id in details]
        for row in rows:
            for result in self._source.counted(row):
                self.tally.add(result)
                if result.id in details:
                    self.tally.recipes[details[result.id].recipe_id] += 1
        while rows:
            rows = rows[self._write_some(rows) :]

    def close(self) -> None:
        for writer in self._writers[self._current :]:
            writer.close()

    def abandon(self) -> None:
        for writer in self._writers[self._current :]:
            writer.abandon()

    def _write_some(self, rows: list[R]) -> int:
        """Write to the current file, and return how many rows it took. The last file also takes the
        rows that have come since they were counted."""
        last = self._current == len(self._writers) - 1
        share_left = len(rows) if last else self._shares[self._current] - self.rows[self._current]
        if share_left == 0:
            self._writers[self._current].close()
            self._current += 1
            return 0
        some = rows[:share_left]
        self._writers[self._current].write(some)
        self.rows[self._current] += len(some)
        return len(some)
