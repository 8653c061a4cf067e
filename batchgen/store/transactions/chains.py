"""Chains of steps: the side of the store that is about rows which are made of others."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchgen.clock import now_ms
from batchgen.steps import Followed
from batchgen.store.chain_records import ChainRow, FollowRow, LiveChains, Refollowed, StaleRow
from batchgen.store.transactions import chain_rows, refollow

if TYPE_CHECKING:
    from batchgen.store.database import Database


class Chains:
    """Each method is one transaction or snapshot."""

    def __init__(self, database: "Database") -> None:
        self._db = database

    async def standing_children(
        self, rows: Sequence[tuple[FollowRow, Followed]]
    ) -> set[tuple[int, int, int]]:
        """Of the rows that would be made of these, those that are there already, and would be asked
        nothing: stale ones, mostly. By parent, number of their step, and element."""
        return await self._db.read(refollow.standing_children, rows)

    async def write_followed(self, rows: Sequence[tuple[FollowRow, Followed]]) -> Refollowed:
        """What follows these rows by the present plan: what is missing is made, what is there is
        matched. Twice does no harm."""
        return await self._db.write(refollow.write_followed, rows, now_ms())

    async def end_following(self, first_id: int, plan_id: int) -> None:
        """All that is done has been followed by this plan, if it is still the present one."""
        while await self._db.write(refollow.gather_missing, first_id, now_ms()):
            pass
        await self._db.write(refollow.end_following, first_id, plan_id)

    async def chain_page(self, first_id: int, after: int, limit: int = 250) -> list[ChainRow]:
        """All rows of the next items after item `after`, in the order of the pool; of an item, of
        one sample after another, each row followed by all that was made of it, in the order of the
        lists. Items are whole; an empty page is the end. A gathering row stands below the first
        sample's row, or below the gathering row before."""
        return await self._db.read(chain_rows.chain_page, first_id, after, limit)

    async def chain_rows_above(self, item_ids: Sequence[int]) -> dict[int, ChainRow]:
        """These rows, those that they were made of, and what they gather, up to the first ones; by
        their numbers. `item_id` says nothing here."""
        return await self._db.read(chain_rows.chain_rows_above, item_ids)

    async def live_chain_page(
        self, first_id: int, after: int, limit: int = 500, *, failed_too: bool = False
    ) -> LiveChains | None:
        """With which rows chains have ended since result `after`, in finishing order; None: the
        experiment is there no more."""
        return await self._db.settled(
            chain_rows.live_chain_page, first_id, after, limit, failed_too
        )

    async def stale_page(self, experiment_id: int, after: int, limit: int = 1000) -> list[StaleRow]:
        """The next stale rows of a step after row `after`; an empty page at the end."""
        return await self._db.read(refollow.stale_page, experiment_id, after, limit)

    async def reopen_stale(self, rows: Sequence[StaleRow]) -> tuple[int, int]:
        """Those that do not wait are pending, to be made of their parent's newest result and asked
        with the present recipe; or, where that says what it said before, as they were. How many
        are asked, and how many came back without a call."""
        return await self._db.write(refollow.reopen_stale, rows, now_ms())
