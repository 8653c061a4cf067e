"""The rows that a provider batch holds."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from batchgen.items import Item
from batchgen.store.batch_records import ProviderBatch
from batchgen.store.transactions.claimed import items_claimed
from batchgen.store.transactions.known_batches import batch_of
from batchgen.store.transactions.rows import listed

if TYPE_CHECKING:
    from batchgen.store.transaction import Transaction


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
