"""The transactions of enqueueing: experiments, recipes, and new items told from known ones."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

from batchgen.items import NewItem, Recipe, canonical_json
from batchgen.store.ledger import Ledger
from batchgen.store.sql import QUERIES


class OtherRecipe(StrEnum):
    """What to do when an experiment was enqueued with another recipe before."""

    STOP = "stop"
    ADD = "add"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class Intake:
    """One enqueueing of one pool. When `other_recipe` is set nothing was begun: the experiment has
    that recipe, and the caller did not say what to do.

    Items are known by `recipe_id`, and the new ones get `new_recipe_id`: another one only when
    `reparse` has changed the experiment's parser.
    """

    experiment_id: int
    recipe_id: int
    new_recipe_id: int
    number: int
    other_recipe: Recipe | None = None
    dropped: int = 0
    running: int = 0


@dataclass(frozen=True, slots=True)
class Added:
    """The item ids of the rows, in their order; `new` of them did not exist before.

    With `conflict` set, the row after the last id has an id that an item with other content has
    already: that item's number.
    """

    ids: list[int]
    new: int
    conflict: int | None = None


def begin_intake(
    db: sqlite3.Connection, experiment: str, recipe: Recipe, mode: OtherRecipe, now: int
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
    (known_as,) = db.execute(QUERIES["known_as"], accepting).fetchone()
    (number,) = db.execute(QUERIES["start_pass"], {"experiment_id": experiment_id}).fetchone()
    return Intake(experiment_id, known_as, recipe_id, number, dropped=dropped)


def add_items(
    db: sqlite3.Connection,
    intake: Intake,
    rows: Sequence[NewItem],
    priority: int,
    taken: Callable[[], object] | None = None,
) -> Added:
    """Add the rows that are not there yet; all of them, or up to the first conflict, in one go.

    `taken` is called when SQLite has the rows: what follows needs no Python, so another thread can
    use it meanwhile.
    """
    (base,) = db.execute(QUERIES["last_id"], {"name": "items"}).fetchone()
    first = base + 1
    ids = list(range(first, first + len(rows)))
    db.execute("savepoint all_new")  # the usual case
    _add_items(db, intake, rows, first)
    if taken is not None:
        taken()
    if _add_new_keys(db, intake, rows, ids):
        added = Added(ids, len(rows))
    else:
        db.execute("rollback to all_new")
        added, new_rows = _tell_new_from_known(db, intake, rows, first)
        _add_items(db, intake, new_rows, first)
    db.execute("release all_new")
    db.execute(QUERIES["add_work"], {"first": first, "priority": priority})
    ledger = Ledger()
    ledger.move(intake.experiment_id, "pending", added.new)
    ledger.write(db)
    return added


def key_of_id(experiment_id: int, custom_id: str) -> bytes:
    """The identity of an item that has an id of the user's own."""
    return blake2b(f"{experiment_id}\0id\0{custom_id}".encode(), digest_size=16).digest()


def key_of_content(experiment_id: int, recipe_id: int, content: str) -> bytes:
    """The identity of the first item with this canonical content."""
    return blake2b(f"{experiment_id}\0{recipe_id}\0{content}".encode(), digest_size=16).digest()


def _key_of_copy(key: bytes, number: int) -> bytes:
    return blake2b(key + number.to_bytes(8, "big"), digest_size=16).digest()


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
    db.execute(QUERIES["drop_keys_of_other_recipes"], which)
    dropped = db.execute(QUERIES["drop_work_of_other_recipes"], which).rowcount
    db.execute(QUERIES["forget_other_recipes"], which)
    ledger = Ledger()
    ledger.move(experiment_id, "pending", -dropped)
    ledger.write(db)
    return dropped


def _add_items(db: sqlite3.Connection, intake: Intake, rows: Sequence[NewItem], first: int) -> None:
    db.executemany(
        QUERIES["add_item"],
        (
            {
                "id": number,
                "experiment_id": intake.experiment_id,
                "recipe_id": intake.new_recipe_id,
                "custom_id": row.custom_id,
                "input": row.input_json,
            }
            for number, row in enumerate(rows, start=first)
        ),
    )


def _add_new_keys(
    db: sqlite3.Connection, intake: Intake, rows: Sequence[NewItem], ids: Sequence[int]
) -> bool:
    """Add the keys of all rows; False when one of them was there, and then some are missing.

    In the order of the keys, as that touches each page of the index once.
    """
    in_key_order = sorted(zip([row.key for row in rows], ids, strict=True))
    keys = {
        "keys": b"".join([key for key, _ in in_key_order]),
        "item_ids": json.dumps([item_id for _, item_id in in_key_order]),
        "pass": intake.number,
    }
    return db.execute(QUERIES["add_keys_if_new"], keys).rowcount == len(rows)


def _tell_new_from_known(
    db: sqlite3.Connection, intake: Intake, rows: Sequence[NewItem], first: int
) -> tuple[Added, list[NewItem]]:
    ids: list[int] = []
    new_rows: list[NewItem] = []
    inputs = {}  # of this very call: not in the table yet
    for row in rows:
        proposed = first + len(new_rows)
        item_id = _see(db, intake, row, proposed)
        if item_id == proposed:
            new_rows.append(row)
            inputs[proposed] = row.input_json
        elif row.custom_id is not None and not _same_content(db, item_id, row, inputs):
            return Added(ids, len(new_rows), conflict=item_id), new_rows
        ids.append(item_id)
    return Added(ids, len(new_rows)), new_rows


def _see(db: sqlite3.Connection, intake: Intake, row: NewItem, proposed: int) -> int:
    """The id of this row's item: `proposed` when it is a new one."""
    mark = {"key": row.key, "item_id": proposed, "pass": intake.number}
    item_id, seen = db.execute(QUERIES["see_key"], mark).fetchone()
    if seen > 1 and row.custom_id is None:
        mark["key"] = _key_of_copy(row.key, seen)
        item_id, _ = db.execute(QUERIES["see_key"], mark).fetchone()
    return int(item_id)


def _same_content(
    db: sqlite3.Connection, item_id: int, row: NewItem, inputs: dict[int, str]
) -> bool:
    known = inputs.get(item_id)
    if known is None:
        (known,) = db.execute(QUERIES["item_input"], {"item_id": item_id}).fetchone()
    return known == row.input_json or (
        canonical_json(json.loads(known)) == canonical_json(json.loads(row.input_json))
    )
