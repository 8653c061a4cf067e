"""New items added: a chunk of a pool at a time, in a few statements.

How thousands of keys are looked up at once, and rows written, is each engine's own."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from batchgen.items import NewItem, State
from batchgen.store.deltas import CounterDeltas
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.deltas import write_deltas
from batchgen.store.transactions.new_rows import KnownKeys, NewRow, first_conflict, tell
from batchgen.store.transactions.packed import packed
from batchgen.store.transactions.rows import listed
from batchgen.store.values import Added, Intake, NewRows
from batchgen.text.json_text import load_json, same_content


class PoolPass(KnownKeys, Protocol):
    """One transaction of a pass over a pool, as the engine carries it out."""

    def add_rows(self, intake: Intake, rows: Sequence[NewRow], first: int, priority: int) -> None:
        """With their keys, and their work; the numbers of the rows are those from `first` on."""

    def note_met(self, copies: Mapping[int, int]) -> None:
        """How many copies the pass has met of each of these items by now."""


def add_items(
    db: Transaction, pool: PoolPass, intake: Intake, items: Sequence[NewItem], priority: int
) -> Added:
    """Add the items that are not there yet, each with its samples; all of them, or up to the first
    conflict, in one go."""
    known = pool.look_up([item.key for item in items])
    conflict = first_conflict(items, known, lambda stored: _changed(db, stored, known))
    told = tell(pool, intake, items[:conflict], known)
    if told.new:
        first = db.first_new("items", len(told.new))
        told = told.numbered(first)
        pool.add_rows(intake, told.new, first, priority)
        deltas = CounterDeltas()
        deltas.move(intake.experiment_id, State.PENDING, len(told.new))
        write_deltas(db, deltas)
    pool.note_met(told.met)
    if conflict is None:
        return Added(told.ids, len(told.new))
    key = items[conflict].key
    owner = known.get(key) or dict(zip([item.key for item in items], told.ids, strict=False))[key]
    return Added(told.ids, len(told.new), owner)


class PoolCount(KnownKeys, Protocol):
    """The same of a pass that only counts."""

    def note_keys(self, keys: Sequence[bytes], first: int) -> None:
        """Of rows that would be new."""

    def note_met(self, copies: Mapping[int, int]) -> None: ...


def count_new(pool: PoolCount, intake: Intake, items: Sequence[NewItem], first: int) -> NewRows:
    """What `add_items` would add, if none of the items had a conflict; as if these rows were there,
    from number `first` on."""
    told = tell(pool, intake, items, pool.look_up([item.key for item in items])).numbered(first)
    pool.note_keys([row.key for row in told.new], first)
    pool.note_met(told.met)
    return NewRows(len(told.new), sum(row.sample_of is None for row in told.new))


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
