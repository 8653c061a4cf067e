"""The transactions of `retry` and `reparse`: items that ended go back, or end otherwise."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from batchgen.items import Recipe
from batchgen.store.plan_repair import plan_reopened, plan_reparsed
from batchgen.store.sqlite.deltas import write_deltas
from batchgen.store.sqlite.intake import recipe_number
from batchgen.store.sqlite.rows import bounded, row_of, rows_of
from batchgen.store.sqlite.sql import QUERIES, last_id
from batchgen.store.values import EndedAnswer, EndedItem, Reparsed


def failed_page(
    db: sqlite3.Connection,
    experiment_id: int,
    reason: str | None,
    message: str | None,
    after: int,
    limit: int,
) -> list[EndedItem]:
    which = {"experiment_id": experiment_id, "reason": reason, "after": after, "limit": limit}
    while page := list(rows_of(db, "failed_items", EndedItem, which)):
        if found := [item for item in page if item.has_message(message)]:
            return found
        which["after"] = page[-1].item_id
    return []


def ended_item(db: sqlite3.Connection, item_id: int) -> EndedItem | None:
    return next(_ended_items(db, [item_id]), None)


def _ended_items(db: sqlite3.Connection, item_ids: Sequence[int]) -> Iterator[EndedItem]:
    return rows_of(db, "ended_items", EndedItem, {"ids": json.dumps(item_ids)})


def reopen(
    db: sqlite3.Connection,
    items: Sequence[EndedItem],
    change: Callable[[Recipe], Recipe] | None,
    now: int,
) -> int:
    ended = _ended_items(db, [item.item_id for item in items])
    plan = plan_reopened(items, {item.item_id: item.reason for item in ended})
    db.executemany(QUERIES["reopen"], plan.reopened)
    if change is not None:
        _Recipes(db, change, now).change(plan.items)
    write_deltas(db, plan.deltas)
    return len(plan.items)


def items_with_own(
    db: sqlite3.Connection, item_ids: Sequence[int], names: Sequence[str]
) -> set[int]:
    which = {"ids": json.dumps(list(item_ids)), "names": json.dumps(list(names))}
    return {item_id for (item_id,) in db.execute(QUERIES["items_with_own"], which)}


def answer_page(
    db: sqlite3.Connection, experiment_id: int, done_too: bool, after: int, limit: int
) -> list[EndedAnswer]:
    query = "all_answers" if done_too else "unparsed_answers"
    which = {"experiment_id": experiment_id, "after": after, "limit": limit}
    page, _ = bounded(rows_of(db, query, EndedAnswer, which), _chars_of)
    return page


def _chars_of(answer: EndedAnswer) -> int:
    return len(answer.input) + len(answer.response) + len(answer.parsed or "")


def answer_of(db: sqlite3.Connection, item_id: int) -> EndedAnswer | None:
    return row_of(db, "answer_of_item", EndedAnswer, {"item_id": item_id})


def write_reparsed(
    db: sqlite3.Connection, reparsed: Sequence[Reparsed], parser: str, now: int
) -> set[int]:
    """New results beside the old ones, and recipes with the new parser; the items that were
    skipped, as they have another result by now. The experiments accept the new recipes for the
    same items."""
    ids = {"ids": json.dumps([one.was.item_id for one in reparsed])}
    result_seqs = dict(db.execute(QUERIES["results_of_items"], ids).fetchall())
    plan = plan_reparsed(reparsed, result_seqs, last_id(db, "results"), now)
    db.executemany(QUERIES["append_result"], plan.results)
    db.executemany(QUERIES["replace_result"], plan.replaced)
    recipes = _Recipes(db, lambda recipe: replace(recipe, parser=parser), now)
    recipes.change(plan.items)
    kept = set(plan.items)
    for experiment_id in {one.was.experiment_id for one in reparsed if one.was.item_id in kept}:
        recipes.accept(experiment_id)
    write_deltas(db, plan.deltas)
    return {one.was.item_id for one in reparsed} - kept


class _Recipes:
    """Items get another recipe, made of their own by `change`."""

    def __init__(
        self, db: sqlite3.Connection, change: Callable[[Recipe], Recipe], now: int
    ) -> None:
        self._db = db
        self._change = change
        self._now = now
        self._changed: dict[int, int] = {}

    def change(self, item_ids: Sequence[int]) -> None:
        ids = {"ids": json.dumps(item_ids)}
        recipes = self._db.execute(QUERIES["recipes_of_items"], ids).fetchall()
        rows = [
            {"item_id": item_id, "recipe_id": self._changed_recipe(recipe_id)}
            for item_id, recipe_id in recipes
            if self._changed_recipe(recipe_id) != recipe_id
        ]
        self._db.executemany(QUERIES["set_recipe"], rows)

    def accept(self, experiment_id: int) -> None:
        """All recipes that the experiment accepts, changed: for the same items."""
        which = {"experiment_id": experiment_id}
        for old, _ in self._db.execute(QUERIES["accepted_recipes"], which).fetchall():
            row = {"recipe_id": self._changed_recipe(old), "same_as": old, "now": self._now}
            self._db.execute(QUERIES["accept_recipe_as"], {**which, **row})

    def _changed_recipe(self, recipe_id: int) -> int:
        if recipe_id not in self._changed:
            (body,) = self._db.execute(QUERIES["recipe"], {"recipe_id": recipe_id}).fetchone()
            changed = self._change(Recipe.from_json(body))
            self._changed[recipe_id] = recipe_number(self._db, changed, self._now)
        return self._changed[recipe_id]
