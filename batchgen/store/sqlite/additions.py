"""How new items get in; see `batchgen.store.transactions.additions`.

Keys wait in the order in which they came, until they are so many that to sort them in pays."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from batchgen.items import NewItem
from batchgen.store.seen_keys import SeenKeys
from batchgen.store.sqlite.item_keys import (
    append_keys,
    begin_pass,
    count_met,
    forget_new_keys,
    is_full,
    is_worth_seeing_all,
    items_by_keys,
    look_up,
    note_keys,
    note_met,
    see_stored,
    slices,
    sort_in,
    waiting_keys,
)
from batchgen.store.transaction import Transaction
from batchgen.store.transactions import additions
from batchgen.store.transactions.new_rows import NewRow
from batchgen.store.transactions.packed import PackedItems, packed
from batchgen.store.transactions.rows import listed
from batchgen.store.values import Added, Intake, NewRows

if TYPE_CHECKING:
    from batchgen.store.database import Database


class _Pass(Struct, frozen=True):
    """A pass over a pool, in a transaction; both `PoolPass` and `PoolCount`."""

    db: Transaction
    seen: SeenKeys
    items: Sequence[NewItem] = ()

    def look_up(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        return look_up(self.db, keys, self.seen)

    def count_met(self, item_ids: Iterable[int]) -> dict[int, int]:
        return count_met(self.db, item_ids)

    def note_met(self, copies: Mapping[int, int]) -> None:
        note_met(self.db, copies)

    def note_keys(self, keys: Sequence[bytes], first: int) -> None:
        note_keys(self.db, keys, first, self.seen)

    def add_rows(self, intake: Intake, rows: Sequence[NewRow], first: int, priority: int) -> None:
        texts, spans = self._texts(intake, rows)
        ids, of_ids = packed([row.item.custom_id for row in rows if row.item.custom_id])
        if more := bool(of_ids) or intake.samples > 1:
            of_id = iter(of_ids)
            spans = [
                (span, next(of_id) if row.item.custom_id else None, row.sample, row.sample_of)
                for span, row in zip(spans, rows, strict=True)
            ]
        self.db.execute("add_items", {
            "first": first, "experiment_id": intake.experiment_id, "variant": intake.variant,
            "recipe_id": intake.recipe_id, "texts": texts, "ids": ids, "spans": listed(spans),
            "more": more,
        })  # fmt: skip
        append_keys(self.db, [row.key for row in rows], first, self.seen)
        row = {"first": first, "priority": priority, "experiment_id": intake.experiment_id}
        self.db.execute("add_work", row)

    def _texts(self, intake: Intake, rows: Sequence[NewRow]) -> tuple[bytes, Sequence[object]]:
        """As they are packed already, when all the items are new."""
        items = self.items
        if isinstance(items, PackedItems) and len(rows) == len(items) and intake.samples == 1:
            return items.texts, items.spans
        return packed(row.item.input_json for row in rows)


def add_items(
    db: Transaction, intake: Intake, items: Sequence[NewItem], priority: int,
    begun: Callable[[], object] = lambda: None,
) -> Added:  # fmt: skip
    """`begun` is called first."""
    begun()
    return additions.add_items(db, _Pass(db, intake.seen, items), intake, items, priority)


def begin_count(db: Transaction) -> int:
    """Before a pass over a pool that is only counted: the number of what would be its first row."""
    begin_pass(db)
    return db.newest("items") + 1


def count_new(db: Transaction, intake: Intake, items: Sequence[NewItem], first: int) -> NewRows:
    """`SeenKeys` tells of stored rows alone."""
    return additions.count_new(_Pass(db, SeenKeys(is_enough=False)), intake, items, first)


class Additions:
    """How new items get in; see `batchgen.store.database`. Keys wait in the order in which they
    came, until they are so many that to sort them in pays."""

    def __init__(self, database: "Database") -> None:
        self._db = database

    def begin_pass(self, db: Transaction) -> SeenKeys:
        return begin_pass(db)

    def items_by_keys(
        self, db: Transaction, keys: Sequence[bytes]
    ) -> Sequence[tuple[int, int, str]]:
        return items_by_keys(db, keys)

    async def add_items(
        self, into: Intake, items: Sequence[NewItem], priority: int, begun: Callable[[], object]
    ) -> Added:
        added, waiting = await self._db.write_beside(_add_to_waiting, into, items, priority, begun)
        if is_full(waiting, into.seen):
            await self._sort_keys_in(waiting)
            into.seen.begin_anew()
            if is_worth_seeing_all(into.seen, into.first + into.seen.added):
                await self._see_all_keys(into.seen)
        return added

    async def end_pass(self) -> None:
        if waiting := await self._db.read(waiting_keys):
            await self._sort_keys_in(waiting)

    async def begin_count(self) -> int:
        return await self._db.write(begin_count)

    async def count_new(self, into: Intake, items: Sequence[NewItem], first: int) -> NewRows:
        return await self._db.write(count_new, into, items, first)

    async def _sort_keys_in(self, waiting: int) -> None:
        """All of those that wait. Others may write in between."""
        for since, until in slices(waiting):
            await self._db.write(sort_in, since, until)
        await self._db.write(forget_new_keys)

    async def _see_all_keys(self, seen: SeenKeys) -> None:
        """When all are sorted in. By who writes: two caches full of keys are too much memory."""
        after: bytes | None = b""
        while after is not None:
            after = await self._db.write(see_stored, seen, after)
        seen.has_all = True


def _add_to_waiting(
    db: Transaction, intake: Intake, items: Sequence[NewItem], priority: int,
    begun: Callable[[], object],
) -> tuple[Added, int]:  # fmt: skip
    """`add_items`, and how many keys wait then to be sorted in."""
    return add_items(db, intake, items, priority, begun), waiting_keys(db)
