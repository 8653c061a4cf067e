"""Chains that have ended, or failed, one by one: for Python, which takes them as they come and in
the order of its pool, and for files that are kept up to date."""

from collections.abc import Sequence
from json import loads
from typing import Any

from msgspec import Struct

from batchgen.export.chains.line import ChainLine
from batchgen.export.chains.lines import line_of
from batchgen.export.chains.text import chain_text
from batchgen.export.chains.walk import How, ItemRows
from batchgen.steps import Plan
from batchgen.store import ChainRow, LiveChains


class EndedChain(Struct, frozen=True):
    """A chain of the item `first`, its first row, which ended with the row `last`. `rows` are all
    that have a part in it, and `text` is its line."""

    first: int
    last: int
    rows: tuple[int, ...]
    text: str

    @property
    def result(self) -> dict[str, Any]:
        """The line as an object."""
        found: dict[str, Any] = loads(self.text)
        return found


class ChainsOfItem(Struct, frozen=True):
    """Those that have `ended`, in the order of an export; `stale` others have a row that was made
    of what has been replaced since."""

    ended: list[EndedChain]
    stale: int


def chains_of_item(plan: Plan, rows: Sequence[ChainRow]) -> ChainsOfItem:
    """Of an item, whose rows these are."""
    item = ItemRows(plan, rows)
    ended, stale = list[EndedChain](), 0
    for how, row in item.ends():
        line = None
        if row is not None and how in (How.ENDED, How.FAILED):
            line = line_of(item, plan, row, None)
            how = how if line else How.STALE
        if row is not None and line is not None:
            ended.append(_ended(line, row))
        stale += how is How.STALE
    return ChainsOfItem(ended, stale)


def newly_ended(page: LiveChains) -> list[EndedChain]:
    """Those of a page, in the order in which they ended."""
    plan = page.chain.plan
    item = ItemRows(plan, list(page.above.values()))
    found = ((page.above[row_id], line_of(item, plan, page.above[row_id], None))
             for row_id in page.rows)  # fmt: skip
    return [_ended(line, row) for row, line in found if line is not None]


def _ended(line: ChainLine, row: ChainRow) -> EndedChain:
    rows = tuple(one.id for one in line.results())
    return EndedChain(line.first.id, row.id, rows, chain_text(line))
