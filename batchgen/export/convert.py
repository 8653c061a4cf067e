"""Results in any format, chosen by a condition and split into files: page by page, in constant
memory. Each page is parsed and written on a thread."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence

from msgspec import Struct, field

from batchgen.export.chosen_columns import ChosenColumns
from batchgen.export.files import Hashed
from batchgen.export.lines import matches
from batchgen.export.request import ExportRequest, Progress, untold
from batchgen.export.writer import Content
from batchgen.items import Recipe
from batchgen.shutdown import uninterrupted
from batchgen.store import Experiment, ResultRow, Store

_PAGE_ROWS = 500
_PAGE_ROWS_WITH_BODIES = 50  # a body with logprobs is a hundred times its answer


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


async def convert(
    store: Store, experiment: Experiment, files: Sequence[Hashed], request: ExportRequest,
    progress: Progress = untold,
) -> Converted:  # fmt: skip
    """Write the results to the files, in the order of the pool and in shares as equal as possible.
    Raises UsageError for an item that the format cannot hold."""
    has_samples = await store.has_samples(experiment.id)
    content = Content(
        request.extras, has_samples=has_samples, has_failed=request.has_failed,
        chosen=ChosenColumns(request.columns) if request.columns else None,
        is_guarded=request.is_guarded,
    )  # fmt: skip
    total = 0
    if request.see or (len(files) > 1 and request.where):
        total = await _scan(store, experiment, request, content, progress)
    elif len(files) > 1:
        total = request.rows_of(await store.counts([experiment.id]))
    shares = _Shares(files, request, content, total)
    try:
        async for page in _pages(store, experiment, request, progress):
            if request.needs_details:
                await _read_details(store, page, request, content)
            await uninterrupted(asyncio.to_thread(shares.write, page))
        await uninterrupted(asyncio.to_thread(shares.close))
    except BaseException:
        shares.abandon()
        raise
    absent = content.chosen.absent if content.chosen and any(shares.rows) else ()
    return Converted(shares.rows, shares.tally, content.recipes, absent)


async def _scan(
    store: Store, experiment: Experiment, request: ExportRequest, content: Content,
    progress: Progress,
) -> int:  # fmt: skip
    """Read all results before any is written: how many are chosen, and what the format must know
    of all."""
    total, see = 0, request.see

    def scan(page: list[ResultRow]) -> int:
        rows = [row for row in page if matches(row, request.where)]
        for row in rows if see else ():
            see(content, row)  # type: ignore[misc]
        return len(rows)

    async for page in _pages(store, experiment, request, progress):
        total += await uninterrupted(asyncio.to_thread(scan, page))
    return total


async def _pages(
    store: Store, experiment: Experiment, request: ExportRequest, progress: Progress
) -> AsyncIterator[list[ResultRow]]:
    limit = _PAGE_ROWS_WITH_BODIES if request.needs_bodies else _PAGE_ROWS
    after = rows = 0
    while page := await store.result_page(experiment.id, request.only_state, after, limit):
        after = page[-1].id
        rows += len(page)
        progress(rows)
        yield page


async def _read_details(
    store: Store, page: list[ResultRow], request: ExportRequest, content: Content
) -> None:
    ids = [row.id for row in page]
    content.details = await store.answer_details(ids, bodies=request.needs_bodies)
    recipe_ids = {details.recipe_id for details in content.details.values()}
    for recipe_id in recipe_ids - content.recipes.keys():
        content.recipes[recipe_id] = await store.recipe(recipe_id)


class _Shares:
    """Writes the chosen rows: each file gets its share, one file after another."""

    def __init__(
        self, files: Sequence[Hashed], request: ExportRequest, content: Content, total: int
    ) -> None:
        self._request, self._content = request, content
        self._writers = [request.format.writer(file, content) for file in files]
        self._shares = [
            total * (n + 1) // len(files) - total * n // len(files) for n in range(len(files))
        ]
        self._current = 0
        self.rows = [0] * len(files)
        self.tally = Tally()

    def write(self, page: list[ResultRow]) -> None:
        rows = [row for row in page if matches(row, self._request.where)]
        if self._request.needs_details:
            details = self._content.details
            # An item that was sent back to pending at this moment has no result any more.
            rows = [row for row in rows if row.id in details]
            self.tally.recipes.update(details[row.id].recipe_id for row in rows)
        for row in rows:
            self.tally.add(row)
        while rows:
            rows = rows[self._write_some(rows) :]

    def close(self) -> None:
        for writer in self._writers[self._current :]:
            writer.close()

    def abandon(self) -> None:
        for writer in self._writers[self._current :]:
            writer.abandon()

    def _write_some(self, rows: list[ResultRow]) -> int:
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
