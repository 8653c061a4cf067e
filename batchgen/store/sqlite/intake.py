"""The transactions of enqueueing: experiments, recipes, and new items told from known ones."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count

from batchgen.items import NewItem, Recipe, State
from batchgen.json_text import canonical_json
from batchgen.store.deltas import CounterDeltas
from batchgen.store.keys import key_of_copy, key_of_id, key_of_sample
from batchgen.store.sqlite.deltas import write_deltas
from batchgen.store.sqlite.sql import QUERIES, last_id
from batchgen.store.values import Added, Intake, OtherRecipe


def begin_intake(
    db: sqlite3.Connection,
    experiment: str,
    recipe: Recipe,
    mode: OtherRecipe,
    now: int,
    samples: int = 1,
) -> Intake:
    """Make sure of experiment and recipe, and start a pass over a pool.

    `OtherRecipe.REPLACE` drops the pending items of other recipes; it does nothing, and says so by
    `running`, while such items are in flight.
    """
    experiment_id = _experiment_id(db, experiment, now)
    recipe_id = recipe_number(db, recipe, now)
    accepted = db.execute(QUERIES["accepted_recipes"], {"experiment_id": experiment_id}).fetchall()
    others = [body for id_, body in accepted if id_ != recipe_id]
    dropped = 0
    if mode is OtherRecipe.STOP and others and len(others) == len(accepted):
        other = Recipe.from_json(others[0])
        return Intake(experiment_id, recipe_id, recipe_id, 0, other_recipe=other)
    if mode is OtherRecipe.REPLACE and others:
        (running,) = db.execute(
            QUERIES["count_running"], {"experiment_id": experiment_id}
        ).fetchone()
        if running:
            return Intake(experiment_id, recipe_id, recipe_id, 0, running=running)
        dropped = _drop_other_recipes(db, experiment_id, recipe_id)
    accepting = {"experiment_id": experiment_id, "recipe_id": recipe_id, "now": now}
    db.execute(QUERIES["accept_recipe"], accepting)
    (identity_recipe_id,) = db.execute(QUERIES["identity_recipe"], accepting).fetchone()
    (number,) = db.execute(QUERIES["start_pass"], {"experiment_id": experiment_id}).fetchone()
    return Intake(experiment_id, identity_recipe_id, recipe_id, number, samples, dropped=dropped)


def add_items(
    db: sqlite3.Connection,
    intake: Intake,
    items: Sequence[NewItem],
    priority: int,
    taken: Callable[[], object] | None = None,
) -> Added:
    """Add the items that are not there yet, each with its samples; all of them, or up to the first
    conflict, in one go.

    `taken` is called when SQLite has the rows: what follows needs no Python, so another thread can
    use it meanwhile.
    """
    first = last_id(db, "items") + 1
    ids = range(first, first + len(items) * intake.samples)
    db.execute("savepoint all_new")  # the usual case
    _add_rows(db, intake, _all_rows(intake, items, first))
    if taken is not None:
        taken()
    if _add_new_keys(db, intake, items, ids):
        added = Added(list(ids[:: intake.samples]), len(ids))
    else:
        db.execute("rollback to all_new")
        added = _add_new_of(db, intake, items, first)
    db.execute("release all_new")
    db.execute(QUERIES["add_work"], {"first": first, "priority": priority})
    deltas = CounterDeltas()
    deltas.move(intake.experiment_id, State.PENDING, added.new)
    write_deltas(db, deltas)
    return added


def items_with_ids(
    db: sqlite3.Connection, experiment_id: int, custom_ids: Sequence[str]
) -> dict[str, tuple[int, str]]:
    """The number and the input of each item that has one of these ids."""
    keys = b"".join([key_of_id(experiment_id, custom_id) for custom_id in custom_ids])
    which = {"keys": keys, "numbers": json.dumps(list(range(len(custom_ids))))}
    rows = db.execute(QUERIES["items_by_keys"], which)
    return {custom_ids[place]: (item_id, input_json) for place, item_id, input_json in rows}


def _experiment_id(db: sqlite3.Connection, name: str, now: int) -> int:
    found = db.execute(QUERIES["find_experiment"], {"name": name}).fetchone()
    if found:
        return int(found[0])
    added = db.execute(QUERIES["add_experiment"], {"name": name, "now": now}).lastrowid
    assert added is not None
    return added


def recipe_number(db: sqlite3.Connection, recipe: Recipe, now: int) -> int:
    """The number of a recipe, which is stored when it is new."""
    digest = recipe.digest()
    found = db.execute(QUERIES["find_recipe"], {"digest": digest}).fetchone()
    if found:
        return int(found[0])
    added = db.execute(
        QUERIES["add_recipe"], {"digest": digest, "body": recipe.to_json(), "now": now}
    ).lastrowid
    assert added is not None
    return added


def _drop_other_recipes(db: sqlite3.Connection, experiment_id: int, recipe_id: int) -> int:
    which = {"experiment_id": experiment_id, "recipe_id": recipe_id}
    db.execute(QUERIES["keep_first_samples"], which)
    db.execute(QUERIES["drop_keys_of_other_recipes"], which)
    dropped = db.execute(QUERIES["drop_work_of_other_recipes"], which).rowcount
    db.execute(QUERIES["forget_other_recipes"], which)
    deltas = CounterDeltas()
    deltas.move(experiment_id, State.PENDING, -dropped)
    write_deltas(db, deltas)
    return dropped


_Row = dict[str, object]


def _add_rows(db: sqlite3.Connection, intake: Intake, rows: Iterable[_Row]) -> None:
    db.executemany(QUERIES["add_item" if intake.samples == 1 else "add_sample"], rows)


def _all_rows(intake: Intake, items: Sequence[NewItem], first: int) -> Iterator[_Row]:
    if intake.samples == 1:
        for number, item in enumerate(items, start=first):
            yield _row(intake, number, item)
        return
    for item_id, item in zip(count(first, intake.samples), items, strict=False):
        for sample in range(1, intake.samples + 1):
            yield _sample_row(intake, item_id + sample - 1, item, sample, item_id)


def _row(intake: Intake, number: int, item: NewItem) -> _Row:
    return {
        "id": number,
        "experiment_id": intake.experiment_id,
        "recipe_id": intake.new_recipe_id,
        "custom_id": item.custom_id,
        "input": item.input_json,
    }


def _sample_row(intake: Intake, number: int, item: NewItem, sample: int, first_id: int) -> _Row:
    sample_of = None if sample == 1 else first_id
    return _row(intake, number, item) | {"sample": sample, "sample_of": sample_of}


def _add_new_keys(
    db: sqlite3.Connection, intake: Intake, items: Sequence[NewItem], ids: Sequence[int]
) -> bool:
    """Add the keys of all rows; False when one of them was there, and then some are missing.

    In the order of the keys, as that touches each page of the index once.
    """
    keys = [item.key for item in items]
    if intake.samples > 1:
        samples = range(1, intake.samples + 1)
        keys = [key_of_sample(key, sample) for key in keys for sample in samples]
    in_key_order = sorted(zip(keys, ids, strict=True))
    row = {
        "keys": b"".join([key for key, _ in in_key_order]),
        "item_ids": json.dumps([item_id for _, item_id in in_key_order]),
        "pass": intake.number,
    }
    return db.execute(QUERIES["add_keys_if_new"], row).rowcount == len(keys)


def _add_new_of(
    db: sqlite3.Connection, intake: Intake, items: Sequence[NewItem], first: int
) -> Added:
    """Tell new from known, row by row."""
    ids: list[int] = []
    new: list[_Row] = []
    inputs = {}  # of this very call: not in the table yet
    first_by_sample: dict[int, int] = {}
    conflict = None
    for item in items:
        proposed = first + len(new)
        item_id, key = _see(db, intake, item, proposed)
        if item_id == proposed:
            new.append(_sample_row(intake, proposed, item, 1, proposed))
            inputs[proposed] = item.input_json
        elif item.custom_id is not None and not _same_content(db, item_id, item, inputs):
            conflict = item_id
            break
        ids.append(item_id)
        for sample in range(2, intake.samples + 1):
            proposed = first + len(new)
            number, _ = _see_key(db, intake, key_of_sample(key, sample), proposed)
            if number == proposed:
                new.append(_sample_row(intake, proposed, item, sample, item_id))
            else:
                first_by_sample[number] = item_id
    _add_rows(db, intake, new)
    if first_by_sample:
        db.execute(QUERIES["join_samples"], {"first_by_sample": json.dumps(first_by_sample)})
    return Added(ids, len(new), conflict)


def _see(db: sqlite3.Connection, intake: Intake, item: NewItem, proposed: int) -> tuple[int, bytes]:
    """The number of this item, `proposed` when it is a new one, and its key."""
    item_id, seen = _see_key(db, intake, item.key, proposed)
    if seen == 1 or item.custom_id is not None:
        return item_id, item.key
    key = key_of_copy(item.key, seen)
    return _see_key(db, intake, key, proposed)[0], key


def _see_key(db: sqlite3.Connection, intake: Intake, key: bytes, proposed: int) -> tuple[int, int]:
    """The number that the key stands for, and how often it was seen in this pass."""
    mark = {"key": key, "item_id": proposed, "pass": intake.number}
    item_id, seen = db.execute(QUERIES["see_key"], mark).fetchone()
    return item_id, seen


def _same_content(
    db: sqlite3.Connection, item_id: int, item: NewItem, inputs: dict[int, str]
) -> bool:
    known = inputs.get(item_id)
    if known is None:
        (known,) = db.execute(QUERIES["item_input"], {"item_id": item_id}).fetchone()
    return known == item.input_json or (
        canonical_json(json.loads(known)) == canonical_json(json.loads(item.input_json))
    )
