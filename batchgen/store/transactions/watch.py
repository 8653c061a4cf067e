"""At which stored answers the process died, when a user's parser read them again and killed it.

Those that are under way stand in the database meanwhile. What the next process finds there of one
that is gone are suspects; what stands there as parsed alone has killed its process twice.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from batchgen.shutdown import uninterrupted
from batchgen.store.transaction import Transaction

if TYPE_CHECKING:
    from batchgen.store.database import Database


class ParseWatch:
    """What one process parses again by one parser. `suspects` are the items at which an earlier one
    died, `guilty` those of them that were parsed alone when it did."""

    def __init__(self, database: "Database", parser_id: int, left: Mapping[int, bool]) -> None:
        self._db = database
        self._parser_id = parser_id
        self._under_way: list[int] = []
        self.suspects = frozenset(left)
        self.guilty = frozenset(item_id for item_id, alone in left.items() if alone)

    async def begin(self, item_ids: Sequence[int], *, alone: bool) -> None:
        """They are about to be parsed; `Parsers.write` ends it."""
        self._under_way = list(item_ids)
        await self._db.write(_begin, self._under_way, self._parser_id, alone)

    async def end(self) -> None:
        """The process lives, whatever kept it from writing what became of them."""
        if self._under_way:
            await self._db.write(_end, self._under_way)


@asynccontextmanager
async def watched(database: "Database", parser_id: int) -> AsyncIterator[ParseWatch | None]:
    """None: another process parses answers again, so that what stands there is no suspect."""
    async with database.only_parsing_again() as is_only:
        if not is_only:
            yield None
            return
        watch = ParseWatch(database, parser_id, await database.read(_left, parser_id))
        try:
            yield watch
        finally:
            await uninterrupted(watch.end())


def _begin(db: Transaction, item_ids: Sequence[int], parser_id: int, alone: bool) -> None:
    row = {"ids": json.dumps(item_ids), "parser_id": parser_id, "alone": alone}
    db.execute("begin_reparsing", row)


def _end(db: Transaction, item_ids: Sequence[int]) -> None:
    db.execute("end_reparsing", {"ids": json.dumps(item_ids)})


def _left(db: Transaction, parser_id: int) -> dict[int, bool]:
    rows = db.execute("left_reparsing", {"parser_id": parser_id})
    return {item_id: bool(alone) for item_id, alone in rows}
