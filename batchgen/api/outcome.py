"""The results of a run: of each row, or, where items have steps, of each chain."""

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from batchgen.api.request import Result
from batchgen.export import result_object
from batchgen.store import ChainRow, Experiment, ResultRow, Store

if TYPE_CHECKING:  # what has no steps need not load them
    from batchgen.export.chains import EndedChain

_PAGE_ITEMS = 500
_FIRST_ITEMS, _MOST_ITEMS = 16, 250


class Ended(Struct, frozen=True):
    """A result; no other one has its `key`."""

    key: int
    result: Result


class NewlyEnded(Struct, frozen=True):
    """What has ended up to the result `upto`."""

    ended: Sequence[Ended]
    upto: int


class Outcome(Protocol):
    """`earlier` results, of those that `in_order` gave, answer a recipe that is not the present
    one; `stale` chains are not among them, as something in them has been replaced."""

    earlier: int
    stale: int

    def so_far(self) -> AsyncIterator[Ended]:
        """What has ended, in the order of the pool."""

    def since(self, after: int) -> AsyncIterator[NewlyEnded]:
        """What has ended since the result `after`, page by page."""

    def is_whole(self, seen: Collection[int]) -> bool:
        """Whether nothing more can come when the results with these keys have been seen."""

    async def in_order(self) -> list[Result]:
        """What has ended, as often as its item was given, in the order of the pool."""


class RowOutcome(Outcome):
    """Of an experiment without steps. `rows` may be given twice."""

    def __init__(
        self, store: Store, experiment: Experiment, rows: Sequence[int], *, samples: int
    ) -> None:
        self._store, self._experiment, self._samples = store, experiment, samples
        self._given, self._rows = rows, dict.fromkeys(rows)
        self.earlier = self.stale = 0

    async def so_far(self) -> AsyncIterator[Ended]:
        for page in _pages(list(self._rows)):
            for row in await self._store.results_of(page):
                yield self._ended(row)

    async def since(self, after: int) -> AsyncIterator[NewlyEnded]:
        is_last = False
        while not is_last:
            page = await self._store.files.live_page(self._experiment.id, after, failed_too=True)
            if page is None:
                return
            after, is_last = page.result_seq, page.is_last
            yield NewlyEnded([self._ended(row) for row in page.rows if row.id in self._rows], after)

    def is_whole(self, seen: Collection[int]) -> bool:
        return len(seen) == len(self._rows)

    async def in_order(self) -> list[Result]:
        found: dict[int, ResultRow] = {}
        self.earlier = 0
        for page in _pages(list(self._rows)):
            found |= {row.id: row for row in await self._store.results_of(page)}
            self.earlier += await self._store.count_earlier_recipes(page)
        return [self._ended(found[row]).result for row in self._given if row in found]

    def _ended(self, row: ResultRow) -> Ended:
        return Ended(row.id, _numbered(result_object(row), self._samples))


class ChainOutcome(Outcome):
    """Of an experiment with steps. `items` may be given twice; `rows` are those of its first step
    that the run is about, with the samples of each item."""

    def __init__(
        self, store: Store, experiment: Experiment, items: Sequence[int], rows: Sequence[int], *,
        samples: int,
    ) -> None:  # fmt: skip
        self._store, self._experiment, self._samples = store, experiment, samples
        self._items, self._rows = items, frozenset(rows)
        self.earlier = self.stale = 0

    async def so_far(self) -> AsyncIterator[Ended]:
        async for _, chains in self._chains_by_item():
            for chain in chains:
                yield self._ended(chain)

    async def since(self, after: int) -> AsyncIterator[NewlyEnded]:
        from batchgen.export.chains import newly_ended

        is_last = False
        while not is_last:
            page = await self._store.chains.live_chain_page(
                self._experiment.id, after, failed_too=True
            )
            if page is None:
                return
            after, is_last = page.result_seq, page.is_last
            mine = [one for one in newly_ended(page) if one.first in self._rows]
            yield NewlyEnded([self._ended(one) for one in mine], after)

    def is_whole(self, seen: Collection[int]) -> bool:  # noqa: ARG002  lists have any length
        return False

    async def in_order(self) -> list[Result]:
        found: dict[int, list[EndedChain]] = {}
        self.earlier = self.stale = 0
        async for item, chains in self._chains_by_item():
            found[item] = chains
            rows = dict.fromkeys(row for chain in chains for row in chain.rows)
            self.earlier += await self._store.count_earlier_recipes(list(rows))
        return [self._ended(one).result for item in self._items for one in found.get(item, ())]

    async def _chains_by_item(self) -> "AsyncIterator[tuple[int, list[EndedChain]]]":
        from batchgen.export.chains import chains_of_item

        chain = await self._store.chain_of(self._experiment.id)
        if chain is None:  # it has been deleted
            return
        async for item, rows in self._rows_by_item():
            chains = chains_of_item(chain.plan, rows)
            self.stale += chains.stale
            yield item, [one for one in chains.ended if one.first in self._rows]

    async def _rows_by_item(self) -> AsyncIterator[tuple[int, list[ChainRow]]]:
        """Of each item once, in the order of the experiment. Where most of its items are wanted,
        many are read at once."""
        wanted = sorted({*self._items})
        known, at, limit = {*wanted}, 0, _FIRST_ITEMS
        while at < len(wanted):
            page = await self._store.chains.chain_page(
                self._experiment.id, wanted[at] - 1, limit
            )  # fmt: skip
            if not page:
                return
            items = [(item, list(rows)) for item, rows in groupby(page, lambda row: row.item_id)]
            mine = [one for one in items if one[0] in known]
            for one in mine:
                yield one
            while at < len(wanted) and wanted[at] <= items[-1][0]:
                at += 1
            is_dense = 2 * len(mine) >= len(items)
            limit = min(2 * limit, _MOST_ITEMS) if is_dense else max(1, limit // 2)

    def _ended(self, chain: "EndedChain") -> Ended:
        result = chain.result
        several = [one for one in result["steps"].values() if isinstance(one, list)]
        return Ended(chain.last, result if several else _numbered(result, self._samples))


def _numbered(result: Result, samples: int) -> Result:
    """Where several answers are wanted each has its number, also one that was there before."""
    if samples > 1:
        result.setdefault("sample", 1)
    return result


def _pages(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    return (rows[start : start + _PAGE_ITEMS] for start in range(0, len(rows), _PAGE_ITEMS))
