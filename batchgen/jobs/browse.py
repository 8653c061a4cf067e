"""Rows of an experiment, page by page: by state, reason and step, with a text in them, or those for
which a condition holds, as `export --where` has it.

What no index finds is looked for in stretches, each a short snapshot of its own, for as long as a
reader may be kept waiting; then it is said how far that went.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

from msgspec import Struct

from batchgen.errors import UsageError
from batchgen.export import chains_with_reviews, matches, with_reviews
from batchgen.items import State
from batchgen.jobs.export import Exportable, exportable
from batchgen.store import Chain, ChainRow, Counts, Listing, Order, PageRow, ReadStore
from batchgen.text.json_text import is_storable
from batchgen.where import Where

PAGE_ROWS = 50
BUDGET_S = 0.25
_STEP_S = 0.02
_FIRST, _FEWEST, _MOST = 50, 10, 5000
_MOST_ITEMS, _MOST_DIGITS = 250, 17
_MOST_CHARS = 1000
_ENDED = (None, State.DONE, State.FAILED)

_Row = tuple[str, int]
_Keep = Callable[[Sequence[_Row]], Awaitable[list[_Row]]]


class Wanted(Struct, frozen=True):
    """Which rows, and in which order: of one `step` or, without, of all; `where` is a condition of
    the export, and `text` is in the input, the answer, the value, the error or the id."""

    experiment: str
    step: str | None = None
    state: State | None = None
    reason: str | None = None
    where: str | None = None
    text: str | None = None
    order: Order = Order.NEWEST

    @property
    def is_searched(self) -> bool:
        """Whether no index leads to them."""
        is_rare = self.state is State.FAILED and self.order is Order.NEWEST
        return bool(self.where or self.text or self.reason or is_rare)


class Shown(Struct, frozen=True):
    """A page of `rows`, each with its place. What stands before it begins at `previous`, what comes
    after it at `next`; None: nothing does. So many rows were `looked_at`, `of` about so many, or
    (`counts_items`) items with all rows of their chains; with `is_cut` there was no time for more.
    `steps` are the names of steps, by experiment, `step` that of which all are, and `lists` the
    experiments whose rows are elements of lists. `absent` is what the condition looks for and no
    row has had."""

    rows: tuple[PageRow, ...]
    places: tuple[str, ...]
    previous: str | None
    next: str | None
    looked_at: int
    of: int
    is_cut: bool
    counts: Counts
    steps: dict[int, str]
    step: str | None = None
    lists: frozenset[int] = frozenset()
    absent: tuple[str, ...] = ()
    counts_items: bool = False


async def browse(
    store: ReadStore, wanted: Wanted, *, after: str | None = None, before: str | None = None,
    limit: int = PAGE_ROWS, budget_s: float = BUDGET_S,
) -> Shown:  # fmt: skip
    """The rows after a place, or before one; without, the first ones. Raises UsageError for an
    experiment or a step that is not there, a condition that cannot be read, and a place that is
    none."""
    search = await _Search.of(store, wanted, budget_s)
    if before is not None:
        found = await search.find(before, limit + 1, back=True)
        page = found.rows[:limit][::-1]
        previous = page[0][0] if len(found.rows) > limit else found.end
        return await search.shown(found, page, previous, page[-1][0] if page else before)
    found = await search.find(after, limit + 1, back=False)
    page = found.rows[:limit]
    previous = page[0][0] if page and after is not None else None
    return await search.shown(
        found, page, previous, page[-1][0] if len(found.rows) > limit else found.end
    )


class Neighbour(Struct, frozen=True):
    """A row and its place; where there is no `row` it goes on at the place, or nothing comes any
    more (None)."""

    row: int | None
    place: str | None


async def neighbour(
    store: ReadStore, wanted: Wanted, place: str | None, *, back: bool, budget_s: float = BUDGET_S
) -> Neighbour:
    """The row after a place, or before it; None: the first one, or the last. Raises UsageError as
    `browse` does."""
    search = await _Search.of(store, wanted, budget_s)
    found = await search.find(place, 1, back=back)
    if found.rows:
        at, row = found.rows[0]
        return Neighbour(row, at)
    return Neighbour(None, found.end)


async def first_rows(store: ReadStore, wanted: Wanted, budget_s: float) -> tuple[list[int], bool]:
    """The rows that are wanted, as many as can be found in this time; and whether these are all.
    Raises UsageError as `browse` does."""
    search, rows, place = await _Search.of(store, wanted, budget_s), list[int](), None
    while True:
        found = await search.find(place, PAGE_ROWS, back=False)
        rows += [row for _, row in found.rows]
        place = found.end
        if place is None or search.is_over:
            return rows, place is None


async def place_of(store: ReadStore, wanted: Wanted, row: int) -> str:
    """Where a row stands in a list in the order of the pool, whether or not it is in it."""
    search = await _Search.of(store, wanted, 0)
    return str(await _chain_place(store, row) if search.is_of_chains else row)


class _Found(Struct):
    """`end` is where to go on; `is_cut`: there was no time for more."""

    rows: list[_Row]
    looked_at: int = 0
    end: str | None = None
    is_cut: bool = False


class _ChainPlace(NamedTuple):
    """Where a line of a chain stands: by its item, and there by the row that it is shown by. In
    row 0 of an item nothing of it has come yet."""

    item: int
    row: int

    def __str__(self) -> str:
        return f"{self.item}.{self.row}"

    @classmethod
    def of(cls, text: str) -> "_ChainPlace":
        numbers = text.split(".")
        if len(numbers) != 2 or not all(map(_is_number, numbers)):
            raise UsageError(f"{text[:60]!r} is no place in this list of rows.")
        return cls(*map(int, numbers))


_Items = list[list[ChainRow]]


class _Search:
    def __init__(
        self, store: ReadStore, wanted: Wanted, of: Exportable, chain: Chain | None,
        budget_s: float,
    ) -> None:  # fmt: skip
        self._store, self._wanted, self._of, self._chain = store, wanted, of, chain
        self._until_s = time.monotonic() + budget_s
        self._where = None if wanted.where is None else Where(wanted.where, of.where_names)
        steps = () if chain is None else chain.steps
        self._steps = {step.experiment_id: step.name for step in steps}
        self._lists = frozenset[int]() if chain is None else chain.lists
        chosen = [step.experiment_id for step in steps if of.step in (None, step.name)]
        ids = tuple(reversed(chosen)) or (of.experiment.id,)
        self._listing = Listing(ids, wanted.order, wanted.state, wanted.reason)

    @classmethod
    async def of(cls, store: ReadStore, wanted: Wanted, budget_s: float) -> "_Search":
        if wanted.where is not None and wanted.state not in _ENDED:
            problem = "a condition is about what came of a row: of done or failed ones."
            raise UsageError(f"where: {problem}")
        text = wanted.text or ""
        if len(text) > _MOST_CHARS or not is_storable(text):
            raise UsageError(f"text: {_MOST_CHARS:,} characters are looked for at most.")
        of = await exportable(store, wanted.experiment, wanted.step, remedy=None)
        return cls(store, wanted, of, await store.chain_if_step(of.experiment), budget_s)

    @property
    def is_of_chains(self) -> bool:
        return self._chain is not None and self._where is not None

    @property
    def is_over(self) -> bool:
        """Whether there is no more time."""
        return time.monotonic() >= self._until_s

    async def find(self, place: str | None, want: int, *, back: bool) -> _Found:
        """So many; fewer when the end, or that of the time, comes first."""
        if self.is_of_chains:
            at = None if place is None else _ChainPlace.of(place)
            return await self._lines(at, want, back=back)
        return await self._rows(place, want, back=back)

    async def _rows(self, place: str | None, want: int, *, back: bool) -> _Found:
        keep, found = self._keep(), _Found([], 0, place)
        size = want if keep is None and self._wanted.reason is None else max(want, _FIRST)
        while True:
            begun_s = time.monotonic()
            part = await self._store.pages.stretch(self._listing, found.end, back=back, limit=size)
            found.rows += part.rows if keep is None else await keep(part.rows)
            found.looked_at += part.looked_at
            found.end = part.end
            now_s = time.monotonic()
            if len(found.rows) >= want or part.end is None:
                return found
            if now_s >= self._until_s:
                found.is_cut = True
                return found
            if keep is not None or self._wanted.reason is not None:
                size = _next_size(size, now_s - begun_s)

    @property
    def _needs_reviews(self) -> bool:
        names = self._of.review_names
        return self._where is not None and not self._where.names.isdisjoint(names)

    def _keep(self) -> _Keep | None:
        text, where = self._wanted.text, self._where
        if text and where:
            return partial(self._with_both, text, where)
        if text:
            return partial(self._with_text, text)
        return partial(self._for_which, where) if where else None

    async def _with_text(self, text: str, rows: Sequence[_Row]) -> list[_Row]:
        hits = set(await self._store.pages.with_text([id_ for _, id_ in rows], text))
        return [one for one in rows if one[1] in hits]

    async def _for_which(self, where: Where, rows: Sequence[_Row]) -> list[_Row]:
        hits, ids = set[int](), [id_ for _, id_ in rows]
        while ids:
            page, ids = await self._store.pages.results(ids)
            if self._needs_reviews:
                page = await with_reviews(self._store, page)
            hits.update(row.id for row in page if matches(row, where))
        return [one for one in rows if one[1] in hits]

    async def _with_both(self, text: str, where: Where, rows: Sequence[_Row]) -> list[_Row]:
        return await self._for_which(where, await self._with_text(text, rows))

    async def _lines(self, at: _ChainPlace | None, want: int, *, back: bool) -> _Found:
        """As the export has them: of each item all lines, in the order of the pool, each shown by
        the row that its answer is from."""
        found, size = _Found([], 0, None if at is None else str(at)), 4
        items_beside, begun = self._items_before if back else self._items_after, at
        while True:
            begun_s = time.monotonic()
            items, end = await items_beside(at, size)
            for rows in items:
                item = rows[0].item_id
                hits = [(_ChainPlace(item, id_), id_) for id_ in await self._hits(rows, back=back)]
                found.rows += [
                    (str(place), id_)
                    for place, id_ in hits
                    if begun is None or (place < begun if back else place > begun)
                ]
                was_begun = begun is not None and begun.row > 0 and item == begun.item
                if not was_begun:  # on the page before it was counted
                    found.looked_at += 1
                found.end = str(_ChainPlace(item if back else item + 1, 0))
                if len(found.rows) >= want:
                    return found
            found.end = None if end is None else str(end)
            now_s = time.monotonic()
            if end is None or now_s >= self._until_s:
                found.is_cut = end is not None
                return found
            at, size = end, _next_size(size, now_s - begun_s, fewest=1, most=_MOST_ITEMS)

    async def _items_after(
        self, at: _ChainPlace | None, size: int
    ) -> tuple[_Items, _ChainPlace | None]:
        """The rows of the next items, from that of the place on, and the place where they end; None
        at the end of all."""
        assert self._chain is not None
        after = 0 if at is None else at.item - 1
        rows = await self._store.pages.chain_page(self._chain.first_id, after, size)
        return _by_item(rows), _ChainPlace(rows[-1].item_id + 1, 0) if rows else None

    async def _items_before(
        self, at: _ChainPlace | None, size: int
    ) -> tuple[_Items, _ChainPlace | None]:
        """The same backwards, the last item first."""
        assert self._chain is not None
        first_id, rows = self._chain.first_id, list[ChainRow]()
        before = None if at is None else str(at.item + (at.row > 0))
        firsts = Listing((first_id,), Order.POOL)
        part = await self._store.pages.stretch(firsts, before, back=True, limit=size)
        ids = [id_ for _, id_ in part.rows]  # also those of other samples
        after, last = (ids[-1] - 1, ids[0]) if ids else (0, 0)
        while after < last and (
            page := await self._store.pages.chain_page(first_id, after, len(ids))
        ):
            rows += [row for row in page if row.item_id <= last]
            after = page[-1].item_id
        end = None if part.end is None else _ChainPlace(int(part.end), 0)
        return _by_item(rows)[::-1], end

    async def _hits(self, rows: Sequence[ChainRow], *, back: bool) -> list[int]:
        """The rows by which lines of an item are shown, whose rows these are."""
        from batchgen.export.chains import chosen_lines  # here: few have steps

        assert self._chain is not None
        if self._needs_reviews:
            rows = await chains_with_reviews(self._store, rows)
        states = {State.DONE, State.FAILED} if self._wanted.state is None else {self._wanted.state}
        reason = self._wanted.reason
        lines = chosen_lines(self._chain.plan, rows, self._of.step, states, self._where)
        ids = sorted(
            {line.id for line in lines
             if reason is None or (line.failed and line.failed.result.reason == reason)},
            reverse=back,
        )  # fmt: skip
        if self._wanted.text:
            having = set(await self._store.pages.with_text(ids, self._wanted.text))
            ids = [id_ for id_ in ids if id_ in having]
        return ids

    async def shown(
        self, found: _Found, page: Sequence[_Row], previous: str | None, next_: str | None
    ) -> Shown:
        rows = await self._store.pages.rows([id_ for _, id_ in page])
        places = {id_: place for place, id_ in page}
        counts = await self._store.counts(self._listing.experiment_ids)
        firsts = counts
        if self.is_of_chains and self._chain is not None:  # items are looked at
            firsts = await self._store.counts([self._chain.first_id])
        return Shown(
            tuple(rows), tuple(places[row.id] for row in rows), previous, next_,
            found.looked_at, _number_of(firsts, self._wanted), found.is_cut,
            counts, self._steps, self._of.step, self._lists,
            () if self._where is None else self._where.absent, self.is_of_chains,
        )  # fmt: skip


def _number_of(counts: Counts, wanted: Wanted) -> int:
    if wanted.reason is not None:
        return counts.failed if wanted.order is Order.POOL else counts.finished
    if wanted.state is None:
        return counts.total if wanted.order is Order.POOL else counts.finished
    if wanted.state is State.FAILED and wanted.order is Order.NEWEST:
        return counts.finished
    return int(getattr(counts, wanted.state))


def _next_size(size: int, took_s: float, fewest: int = _FEWEST, most: int = _MOST) -> int:
    """So that a step takes as long as it should, about."""
    factor = min(4.0, max(0.25, _STEP_S / max(took_s, 1e-6)))
    return max(fewest, min(most, int(size * factor)))


def _by_item(rows: Sequence[ChainRow]) -> _Items:
    return [list(one) for _, one in groupby(rows, key=lambda row: row.item_id)]


async def _chain_place(store: ReadStore, row: int) -> _ChainPlace:
    made_of = (await store.links_of([row])).get(row)
    first = row if made_of is None else made_of.links[0].item_id
    samples = await store.pages.samples(first)
    return _ChainPlace(samples[0].id if samples else first, row)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS
