"""New items told from known ones, and added: a chunk of a pool at a time, in a few statements."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from batchgen.items import NewItem, State
from batchgen.store.deltas import CounterDeltas
from batchgen.store.keys import key_of_copy, key_of_sample
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
from batchgen.store.sqlite.packed import packed
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.deltas import write_deltas
from batchgen.store.transactions.rows import listed
from batchgen.store.values import Added, Intake, NewRows
from batchgen.text.json_text import load_json, same_content

if TYPE_CHECKING:
    from batchgen.store.database import Database


class _NewRow(Struct, frozen=True, gc=False):
    key: bytes
    item: NewItem
    sample: int | None = None
    sample_of: int | None = None


class _Told(NamedTuple):
    """What the items of a chunk are: the number of each; the rows that are new, which get the next
    numbers; and how often the pass has met each content by now, by the number of its item."""

    ids: list[int]
    new: list[_NewRow]
    met: dict[int, int]


def add_items(
    db: Transaction, intake: Intake, items: Sequence[NewItem], priority: int,
    begun: Callable[[], object] = lambda: None,
) -> Added:  # fmt: skip
    """Add the items that are not there yet, each with its samples; all of them, or up to the first
    conflict, in one go. `begun` is called first."""
    begun()
    first = db.newest("items") + 1
    known = look_up(db, [item.key for item in items], intake.seen)
    conflict = _first_conflict(db, items, known)
    told = _tell(db, intake, items[:conflict], known, first)
    if told.new:
        _add_rows(db, intake, told.new, first)
        append_keys(db, [row.key for row in told.new], first, intake.seen)
        row = {"first": first, "priority": priority, "experiment_id": intake.experiment_id}
        db.execute("add_work", row)
        deltas = CounterDeltas()
        deltas.move(intake.experiment_id, State.PENDING, len(told.new))
        write_deltas(db, deltas)
    note_met(db, told.met)
    if conflict is None:
        return Added(told.ids, len(told.new))
    key = items[conflict].key
    owner = known.get(key) or dict(zip([item.key for item in items], told.ids, strict=False))[key]
    return Added(told.ids, len(told.new), owner)


def begin_count(db: Transaction) -> int:
    """Before a pass over a pool that is only counted: the number of what would be its first row."""
    begin_pass(db)
    return db.newest("items") + 1


def count_new(db: Transaction, intake: Intake, items: Sequence[NewItem], first: int) -> NewRows:
    """What `add_items` would add, if none of the items had a conflict; as if these rows were there,
    from number `first` on."""
    intake = replace(intake, seen=SeenKeys(is_enough=False))  # as it tells of stored rows alone
    known = look_up(db, [item.key for item in items], intake.seen)
    told = _tell(db, intake, items, known, first)
    note_keys(db, [row.key for row in told.new], first, intake.seen)
    note_met(db, told.met)
    return NewRows(len(told.new), sum(row.sample_of is None for row in told.new))


def _first_conflict(
    db: Transaction, items: Sequence[NewItem], known: Mapping[bytes, int]
) -> int | None:
    """The place of the first item whose id belongs to one with other content."""
    named = [(place, item) for place, item in enumerate(items) if item.custom_id is not None]
    if not named:
        return None
    stored = {place: item for place, item in named if item.key in known}
    changed = _changed(db, stored, known)
    first: dict[bytes, NewItem] = {}
    for place, item in named:
        before = first.setdefault(item.key, item)
        if place in changed or not same_content(before.input_json, item.input_json):
            return place
    return None


def _changed(db: Transaction, items: Mapping[int, NewItem], known: Mapping[bytes, int]) -> set[int]:
    """The places of those whose stored content is another."""
    ids = [known[item.key] for item in items.values()]
    texts, spans = packed(item.input_json for item in items.values())
    which = {"texts": texts, "pairs": listed(list(zip(ids, spans, strict=True)))}
    (text,) = db.execute("changed_inputs", which).fetchone()
    others = list(map(list(items).__getitem__, load_json(text)))
    return {place for place in others if not _is_stored(db, items[place], known)}


def _is_stored(db: Transaction, item: NewItem, known: Mapping[bytes, int]) -> bool:
    (stored,) = db.execute("item_input", {"item_id": known[item.key]}).fetchone()
    return same_content(stored, item.input_json)


def _tell(
    db: Transaction, intake: Intake, items: Sequence[NewItem], known: dict[bytes, int],
    first: int,
) -> _Told:  # fmt: skip
    """`known` has those of the items' keys that are."""
    if not known and intake.samples == 1 and len({item.key for item in items}) == len(items):
        ids = list(range(first, first + len(items)))  # as in most pools that are new
        return _Told(ids, [_NewRow(item.key, item) for item in items], {})
    copies = _copies_before(db, intake, items, known)
    keys = _own_keys(items, copies)
    others = [key for key, item in zip(keys, items, strict=True) if key is not item.key]
    samples = range(2, intake.samples + 1)
    others += [key_of_sample(key, sample) for sample in samples for key in keys]
    numbers = known | look_up(db, others, intake.seen) if others else known.copy()
    ids, new = list[int](), list[_NewRow]()
    for key, item in zip(keys, items, strict=True):
        number = numbers.get(key)
        if number is None:
            number = numbers[key] = first + len(new)
            new.append(_NewRow(key, item, 1 if samples else None))
        ids.append(number)
        for sample in samples:
            sample_key = key_of_sample(key, sample)
            if numbers.setdefault(sample_key, first + len(new)) == first + len(new):
                new.append(_NewRow(sample_key, item, sample, number))
    by_item = zip(map(numbers.__getitem__, copies), copies.values(), strict=True)
    return _Told(ids, new, {id_: n for id_, n in by_item if n > 1 or id_ < intake.first})


def _copies_before(
    db: Transaction, intake: Intake, items: Sequence[NewItem], known: Mapping[bytes, int]
) -> dict[bytes, int]:
    """How often this pass has met the contents that it has met, by their keys. What it has made,
    once at least."""
    if not known:
        return {}
    contents = {known[item.key]: item.key for item in items
                if item.custom_id is None and item.key in known}  # fmt: skip
    made = {id_: 1 for id_ in contents if id_ >= intake.first}
    met = made | count_met(db, contents)
    return {contents[id_]: n for id_, n in met.items()}


def _own_keys(items: Sequence[NewItem], copies: dict[bytes, int]) -> list[bytes]:
    """The key of each; of copies of a content, which are counted, each has one of its own."""
    keys = [item.key for item in items]
    if not copies and len(set(keys)) == len(keys):  # as in a pool that is known
        copies |= dict.fromkeys([item.key for item in items if item.custom_id is None], 1)
        return keys
    for place, item in enumerate(items):
        if item.custom_id is None:
            copies[item.key] = number = copies.get(item.key, 0) + 1
            if number > 1:
                keys[place] = key_of_copy(item.key, number)
    return keys


def _add_rows(
    db: Transaction, intake: Intake, rows: Sequence[_NewRow], first: int
) -> None:  # fmt: skip
    named = [row.item.custom_id for row in rows if row.item.custom_id]
    texts, spans = packed([*[row.item.input_json for row in rows], *named])
    id_spans, more = iter(spans[len(rows) :]), []
    if named or intake.samples > 1:
        more = [
            (next(id_spans) if row.item.custom_id else None, row.sample, row.sample_of)
            for row in rows
        ]
    db.execute("add_items", {
        "first": first, "experiment_id": intake.experiment_id, "variant": intake.variant,
        "recipe_id": intake.recipe_id, "texts": texts, "spans": listed(spans[: len(rows)]),
        "more": listed(more),
    })  # fmt: skip


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
