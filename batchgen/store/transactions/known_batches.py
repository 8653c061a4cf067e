"""What is read of provider batches."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from batchgen.items import Item
from batchgen.store.batch_records import BatchState, ProviderBatch
from batchgen.store.transactions.budget import look_at_budget
from batchgen.store.transactions.claimed import items_claimed
from batchgen.store.transactions.rows import listed, rows_of

if TYPE_CHECKING:
    from batchgen.store.database import Reads
    from batchgen.store.transaction import Transaction
    from batchgen.store.values import Budget, Spent

_NEWEST = 2**62


class KnownBatches:
    """The side of `Batches` that only reads."""

    def __init__(self, database: "Reads") -> None:
        self._db = database

    async def unfinished(self) -> list[ProviderBatch]:
        """Those that are not closed, the oldest first."""
        return await self._db.read(unclosed)

    async def newest(self, limit: int, before: int | None = None) -> list[ProviderBatch]:
        """The newest first, those before number `before`."""
        return await self._db.read(newest_batches, limit, before)

    async def with_files(self, limit: int = 100) -> list[ProviderBatch]:
        """Closed ones whose files may still be at the provider, the newest first."""
        return await self._db.read(batches_with_files, limit)

    async def booked(self, budget: "Budget") -> "tuple[Spent, Spent]":
        """What is spent of a budget, and what is reserved, for calls and for batches."""
        return await self._db.read(look_at_budget, budget)

    async def batch(self, number: int) -> ProviderBatch | None:
        return await self._db.read(batch_of, number)

    async def of_item(self, item_id: int) -> ProviderBatch | None:
        """The one that holds this row."""
        return await self._db.read(batch_of_item, item_id)

    async def has_sent(self, experiment_id: int, recipe_id: int) -> bool:
        """Whether a provider has ever had a batch of the experiment with this recipe."""
        return await self._db.read(was_sent_before, experiment_id, recipe_id)


def unclosed(db: "Transaction") -> list[ProviderBatch]:
    return _batches(rows_of(db, "unclosed_batches", ProviderBatch))


def newest_batches(db: "Transaction", limit: int, before: int | None) -> list[ProviderBatch]:
    which = {"limit": limit, "before": _NEWEST if before is None else before}
    return _batches(rows_of(db, "newest_batches", ProviderBatch, which))


def batches_with_files(db: "Transaction", limit: int) -> list[ProviderBatch]:
    return _batches(rows_of(db, "batches_with_files", ProviderBatch, {"limit": limit}))


def batch_of(db: "Transaction", number: int) -> ProviderBatch | None:
    found = _batches(rows_of(db, "batch", ProviderBatch, {"number": number}))
    return found[0] if found else None


def batch_of_item(db: "Transaction", item_id: int) -> ProviderBatch | None:
    found = db.execute("batch_of_item", {"item_id": item_id}).fetchone()
    return None if found is None else batch_of(db, found[0])


def was_sent_before(db: "Transaction", experiment_id: int, recipe_id: int) -> bool:
    which = {"experiment_id": experiment_id, "recipe_id": recipe_id}
    return db.execute("was_sent_before", which).fetchone() is not None


def items_held(db: "Transaction", number: int, item_ids: Sequence[int]) -> list[Item]:
    batch = batch_of(db, number)
    if batch is None:
        return []
    return _items(db, batch, [item_id for item_id, _, _ in rows_held(db, batch, item_ids)])


def next_items_held(db: "Transaction", number: int, after: int, limit: int) -> list[Item]:
    batch = batch_of(db, number)
    if batch is None:
        return []
    which = {"worker_id": batch.worker_id, "after": after, "limit": limit}
    return _items(db, batch, [item_id for (item_id,) in db.execute("page_of_batch", which)])


def _batches(rows: Iterator[ProviderBatch]) -> list[ProviderBatch]:
    return [
        replace(
            row,
            state=BatchState(row.state),
            files_gone=bool(row.files_gone),
            absent=bool(row.absent),
        )
        for row in rows
    ]


def rows_held(
    db: "Transaction", batch: ProviderBatch, item_ids: Iterable[int]
) -> list[tuple[int, int, int | None]]:
    """Of these rows those that it holds: each with its epoch, and the number of its answer, if that
    waits for its parser."""
    which = {"worker_id": batch.worker_id, "ids": listed(list(item_ids))}
    return db.execute("held_by_batch", which).fetchall()


def _items(db: "Transaction", batch: ProviderBatch, item_ids: Sequence[int]) -> list[Item]:
    items = items_claimed(db, dict.fromkeys(item_ids, batch.server), {}, {})
    return sorted(items, key=lambda item: item.id)
