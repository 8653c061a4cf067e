"""What is read of provider batches."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec.structs import replace

from batchgen.store.batch_records import BatchState, ProviderBatch
from batchgen.store.transactions.rows import rows_of

if TYPE_CHECKING:
    from batchgen.store.database import Reads
    from batchgen.store.transaction import Transaction

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
