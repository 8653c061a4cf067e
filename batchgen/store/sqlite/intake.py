"""The transactions of enqueueing: experiments, their recipes and parsers, and new items told from
known ones."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import NamedTuple

from msgspec.structs import replace

from batchgen.items import NewItem, ParserVersion, Recipe, State
from batchgen.store.deltas import CounterDeltas
from batchgen.store.keys import key_of_copy, key_of_id, key_of_sample
from batchgen.store.plan_repair import plan_asked
from batchgen.store.sqlite.deltas import write_deltas
from batchgen.store.sqlite.rows import rows_of
from batchgen.store.sqlite.sql import QUERIES, last_id
from batchgen.store.values import Added, AskedAgain, Intake, OtherRecipe, RecipeChoice, RowGroup
from batchgen.text.json_text import canonical_json

_NO_RECIPE = -1  # one that is not stored yet, and no row has


def begin_intake(
    db: sqlite3.Connection,
    experiment: str,
    recipe: Recipe,
    parser: ParserVersion,
    mode: OtherRecipe,
    now: int,
    samples: int = 1,
) -> Intake:
    """Make sure of experiment, parser and recipe, and start a pass over a pool.

    A recipe that a variant has needs no `mode`. With another one, rows are asked anew as it says;
    none is, and the intake says so by `running`, while some of them are in flight.
    """
    parser_id = parser_number(db, parser, now)
    experiment_id = _experiment_id(db, experiment, parser_id, now)
    way = _way(db, experiment_id, recipe_number(db, recipe, now), mode)
    intake = _planned(db, way, mode, samples)
    if intake.choice or intake.running:
        return intake
    row = _variant_row(way) | {"number": intake.variant, "now": now}
    if intake.asked_anew and way.choice:
        _ask_anew(db, row, way.choice)
    elif way.choice and not way.is_present:
        db.execute(QUERIES["set_recipe_of_variant"], row)
    elif not way.is_present:
        db.execute(QUERIES["add_variant"], row)
    set_present_parser(db, experiment_id, parser_id)
    (pass_,) = db.execute(QUERIES["start_pass"], {"experiment_id": experiment_id}).fetchone()
    return replace(intake, number=pass_)


def planned_intake(
    db: sqlite3.Connection, experiment_id: int, recipe: Recipe, mode: OtherRecipe, samples: int
) -> Intake:
    """What `begin_intake` would begin. Nothing is written."""
    found = db.execute(QUERIES["find_recipe"], {"digest": recipe.digest()}).fetchone()
    recipe_id = int(found[0]) if found else _NO_RECIPE
    return _planned(db, _way(db, experiment_id, recipe_id, mode), mode, samples)


class _Way(NamedTuple):
    """How a pool goes into an experiment: into which variant, which has the recipe if it
    `is_present`; which of its rows are asked anew (None: none). `newest` is the recipe of the
    newest variant, None where there is none."""

    experiment_id: int
    recipe_id: int
    variant: int
    is_present: bool
    choice: str | None
    newest: int | None


def _way(db: sqlite3.Connection, experiment_id: int, recipe_id: int, mode: OtherRecipe) -> _Way:
    variants = db.execute(QUERIES["variants"], {"experiment_id": experiment_id}).fetchall()
    present = next((number for number, present in variants if present == recipe_id), None)
    is_present = present is not None
    choice = _rows_chosen(mode, is_present=is_present) if variants else None
    newest, newest_recipe = variants[0] if variants else (0, None)
    return _Way(experiment_id, recipe_id, present or newest, is_present, choice, newest_recipe)


def _variant_row(way: _Way) -> dict[str, int]:
    return {
        "experiment_id": way.experiment_id, "number": way.variant, "recipe_id": way.recipe_id,
    }  # fmt: skip


def _planned(db: sqlite3.Connection, way: _Way, mode: OtherRecipe, samples: int) -> Intake:
    row = _variant_row(way)
    intake = Intake(way.experiment_id, way.variant, way.recipe_id, 0, samples)
    if way.newest is not None and not way.is_present and mode is OtherRecipe.STOP:
        return replace(intake, choice=_choice(db, row, way.newest))
    if way.choice:
        asked = sum(group.n for group in _rows_to_ask(db, row, way.choice))
        (running,) = db.execute(QUERIES["count_running"], row).fetchone() if asked else (0,)
        return replace(intake, asked_anew=asked, running=running)
    return intake if way.is_present else replace(intake, variant=way.variant + 1)


def _choice(db: sqlite3.Connection, variant: Mapping[str, int], present: int) -> RecipeChoice:
    (body,) = db.execute(QUERIES["recipe"], {"recipe_id": present}).fetchone()
    (rows,) = db.execute(QUERIES["count_rows"], variant).fetchone()
    not_done, others = (_rows_to_ask(db, variant, which) for which in ("not_done", "all"))
    return RecipeChoice(
        Recipe.from_json(body), rows, sum(one.n for one in not_done), sum(one.n for one in others)
    )


def _rows_chosen(mode: OtherRecipe, *, is_present: bool) -> str | None:
    """Which rows are asked anew. After `replace`, those that are done have an earlier recipe than
    the present one, and `again` is for them."""
    if mode is OtherRecipe.AGAIN:
        return "other" if is_present else "all"
    return "not_done" if mode is OtherRecipe.REPLACE and not is_present else None


def ask_again(db: sqlite3.Connection, into: Intake, row_ids: Sequence[int], now: int) -> AskedAgain:
    variant = {
        "experiment_id": into.experiment_id, "number": into.variant, "recipe_id": into.recipe_id,
        "now": now,
    }  # fmt: skip
    asked = _ask_anew(db, variant, "other", row_ids)
    others = _rows_to_ask(db, variant, "other")
    return AskedAgain(asked, sum(one.n for one in others if one.state == State.DONE))


def _ask_anew(
    db: sqlite3.Connection, variant: Mapping[str, int], choice: str,
    row_ids: Sequence[int] | None = None,
) -> int:  # fmt: skip
    """The rows of a variant, or these of them, are asked with its new recipe, but those in flight;
    how many they are."""
    rows = _rows_to_ask(db, variant, choice, row_ids)
    groups = [group for group in rows if group.state != State.RUNNING]
    asked = _chosen(variant, choice, row_ids)
    db.execute(QUERIES["ask_rows"], asked)
    db.execute(QUERIES["give_recipe"], asked)
    db.execute(QUERIES["set_recipe_of_variant"], variant)
    write_deltas(db, plan_asked(variant["experiment_id"], groups))
    return sum(group.n for group in groups)


def _rows_to_ask(
    db: sqlite3.Connection, variant: Mapping[str, int], choice: str,
    row_ids: Sequence[int] | None = None,
) -> list[RowGroup]:  # fmt: skip
    return list(rows_of(db, "rows_to_ask", RowGroup, _chosen(variant, choice, row_ids)))


def _chosen(
    variant: Mapping[str, int], choice: str, row_ids: Sequence[int] | None
) -> dict[str, object]:
    ids = None if row_ids is None else json.dumps(list(row_ids))
    return {**variant, "choice": choice, "ids": ids}


def parser_number(db: sqlite3.Connection, parser: ParserVersion, now: int) -> int:
    """The number of a parser, which is stored when it is new."""
    row = {
        "spec": parser.spec, "fingerprint": parser.fingerprint, "now": now,
        "sources": json.dumps(dict(parser.sources)),
    }  # fmt: skip
    (number,) = db.execute(QUERIES["add_parser"], row).fetchone()
    return int(number)


def set_present_parser(db: sqlite3.Connection, experiment_id: int, parser_id: int) -> None:
    which = {"experiment_id": experiment_id, "parser_id": parser_id}
    db.execute(QUERIES["set_present_parser"], which)


def begin_count(db: sqlite3.Connection) -> None:
    """Before a pass over a pool that is only counted, on this connection."""
    db.execute(QUERIES["begin_count"])
    db.execute(QUERIES["forget_count"])


def count_new(db: sqlite3.Connection, intake: Intake, items: Sequence[NewItem]) -> int:
    """How many rows `add_items` would add."""
    new = 0
    for item in items:
        (copies,) = db.execute(QUERIES["count_copy"], {"key": item.key}).fetchone()
        if copies > 1 and item.custom_id is not None:
            continue
        key = item.key if copies == 1 else key_of_copy(item.key, copies)
        keys = (key_of_sample(key, sample) for sample in range(1, intake.samples + 1))
        found = [db.execute(QUERIES["is_known"], {"key": one}).fetchone() for one in keys]
        new += found.count(None)
    return new


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
    db: sqlite3.Connection, experiment_id: int, custom_ids: Sequence[str], variant: int | None
) -> dict[str, tuple[int, str]]:
    """The number and the input of each item that has one of these ids, in the variant (None: the
    newest)."""
    if variant is None:
        (variant, _), *_others = db.execute(QUERIES["variants"], {"experiment_id": experiment_id})
    keys = b"".join([key_of_id(experiment_id, variant, custom_id) for custom_id in custom_ids])
    which = {"keys": keys, "numbers": json.dumps(list(range(len(custom_ids))))}
    rows = db.execute(QUERIES["items_by_keys"], which)
    return {custom_ids[place]: (item_id, input_json) for place, item_id, input_json in rows}


def _experiment_id(db: sqlite3.Connection, name: str, parser_id: int, now: int) -> int:
    found = db.execute(QUERIES["find_experiment"], {"name": name}).fetchone()
    if found:
        return int(found[0])
    new = {"name": name, "parser_id": parser_id, "now": now}
    added = db.execute(QUERIES["add_experiment"], new).lastrowid
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
        "variant": intake.variant,
        "recipe_id": intake.recipe_id,
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
    _add_rows(db, intake, new)
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
