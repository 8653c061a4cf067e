"""The transactions of `retry` and `reparse`: items that ended go back, or end otherwise."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace

from batchgen.items import Done, Fail, Recipe, State
from batchgen.store.deltas import CounterDeltas
from batchgen.store.sqlite.deltas import write_deltas
from batchgen.store.sqlite.intake import recipe_number
from batchgen.store.sqlite.sql import QUERIES
from batchgen.store.values import EndedAnswer, EndedItem, Reparsed

_PAGE_CHARS = 4 << 20  # so that memory stays bounded


def failed_page(
    db: sqlite3.Connection,
    experiment_id: int,
    reason: str | None,
    message: str | None,
    after: int,
    limit: int,
) -> list[EndedItem]:
    """The next failed items after item `after`, those with `message` in their error. Ends with an
    empty page."""
    which = {"experiment_id": experiment_id, "reason": reason, "after": after, "limit": limit}
    while rows := db.execute(QUERIES["failed_items"], which).fetchall():
        page = [EndedItem(*row) for row in rows]
        if found := [item for item in page if says(item, message)]:
            return found
        which["after"] = page[-1].item_id
    return []


def says(item: EndedItem, message: str | None) -> bool:
    """Whether its error contains `message`, in whatever case. None is in every one."""
    return message is None or message.casefold() in (item.error or "").casefold()


def ended_item(db: sqlite3.Connection, item_id: int) -> EndedItem | None:
    found = db.execute(QUERIES["ended_item"], {"item_id": item_id}).fetchone()
    return found and EndedItem(*found)


def reopen(
    db: sqlite3.Connection,
    items: Sequence[EndedItem],
    change: Callable[[Recipe], Recipe] | None,
    now: int,
) -> int:
    """Items that ended back to pending, with all their tries; what they brought so far is kept.

    Those that did not end for the reason given any more are left: another retry was faster.
    `change` gives them another recipe; they stay the same items.
    """
    deltas, recipes = CounterDeltas(), _Recipes(db, change, now)
    reopened = 0
    for item in items:
        found = ended_item(db, item.item_id)
        if found is None or found.reason != item.reason:
            continue
        db.execute(QUERIES["reopen"], {"item_id": item.item_id})
        recipes.change(item.item_id)
        reopened += 1
        deltas.move(
            item.experiment_id, State.FAILED if item.reason else State.DONE, -1, item.reason
        )
        deltas.move(item.experiment_id, State.PENDING, +1)
        if not item.reason:
            deltas.supersede(item.experiment_id)
    write_deltas(db, deltas)
    return reopened


def items_with_own(
    db: sqlite3.Connection, item_ids: Sequence[int], names: Sequence[str]
) -> set[int]:
    """Those of the items that have one of these parameters themselves."""
    which = {"ids": json.dumps(list(item_ids)), "names": json.dumps(list(names))}
    return {item_id for (item_id,) in db.execute(QUERIES["items_with_own"], which)}


def answer_page(
    db: sqlite3.Connection, experiment_id: int, done_too: bool, after: int, limit: int
) -> list[EndedAnswer]:
    """The next answers after item `after` that a parser could not use (`done_too`: or could):
    `limit` of them, or fewer when they are big. Ends with an empty page."""
    query = "all_answers" if done_too else "unparsed_answers"
    which = {"experiment_id": experiment_id, "after": after, "limit": limit}
    page, chars = [], 0
    for columns in db.execute(QUERIES[query], which):
        row = EndedAnswer(*columns)
        page.append(row)
        chars += len(row.input) + len(row.response) + len(row.parsed or "")
        if chars > _PAGE_CHARS:
            break
    return page


def answer_of(db: sqlite3.Connection, item_id: int) -> EndedAnswer | None:
    """None when it has not ended with an answer that was for a parser."""
    found = db.execute(QUERIES["answer_of_item"], {"item_id": item_id}).fetchone()
    return found and EndedAnswer(*found)


def write_reparsed(
    db: sqlite3.Connection, reparsed: Sequence[Reparsed], parser: str, now: int
) -> set[int]:
    """New results beside the old ones, and recipes with the new parser; the items that it left, as
    they have another result by now. The experiments accept the new recipes for the same items."""
    deltas, recipes = (
        CounterDeltas(),
        _Recipes(db, lambda recipe: replace(recipe, parser=parser), now),
    )
    left = set()
    (seq,) = db.execute(QUERIES["last_id"], {"name": "results"}).fetchone()
    for one in reparsed:
        was = one.was
        if not db.execute(QUERIES["still_ended_so"], was._asdict()).fetchone():
            left.add(was.item_id)
            continue
        recipes.change(was.item_id)
        if one.now is not None:
            seq += 1
            _end_otherwise(db, was, one.now, seq, now)
            _count(deltas, was, one.now)
    for experiment_id in {one.was.experiment_id for one in reparsed if one.was.item_id not in left}:
        recipes.accept(experiment_id)
    write_deltas(db, deltas)
    return left


def _end_otherwise(
    db: sqlite3.Connection, was: EndedAnswer, now: Done | Fail, seq: int, at: int
) -> None:
    done = isinstance(now, Done)
    result = {
        "seq": seq,
        "item_id": was.item_id,
        "attempt_seq": was.attempt_seq,
        "state": "done" if done else "failed",
        "reason": None if isinstance(now, Done) else now.reason,
        "error": None if isinstance(now, Done) else now.error,
        "parsed": now.parsed_json if isinstance(now, Done) else None,
        "finished_at": at,
    }
    db.execute(QUERIES["append_result"], result)
    moved = {"state": result["state"], "new_seq": seq, "result_seq": was.result_seq}
    db.execute(QUERIES["end_otherwise"], {**moved, "item_id": was.item_id})


def _count(deltas: CounterDeltas, was: EndedAnswer, now: Done | Fail) -> None:
    deltas.move(was.experiment_id, State.FAILED if was.reason else State.DONE, -1, was.reason or "")
    if was.reason is None:
        deltas.supersede(was.experiment_id)
    if isinstance(now, Done):
        deltas.move(was.experiment_id, State.DONE, +1)
    else:
        deltas.move(was.experiment_id, State.FAILED, +1, now.reason)


class _Recipes:
    """Items get another recipe, made of their own by `change`."""

    def __init__(
        self, db: sqlite3.Connection, change: Callable[[Recipe], Recipe] | None, now: int
    ) -> None:
        self._db = db
        self._change = change
        self._now = now
        self._changed: dict[int, int] = {}

    def change(self, item_id: int) -> None:
        if self._change is None:
            return
        (old,) = self._db.execute(QUERIES["recipe_of_item"], {"item_id": item_id}).fetchone()
        new = self._changed_recipe(old)
        if new != old:
            row = {"item_id": item_id, "recipe_id": new}
            self._db.execute(QUERIES["set_recipe"], row)

    def accept(self, experiment_id: int) -> None:
        """All recipes that the experiment accepts, changed: for the same items."""
        which = {"experiment_id": experiment_id}
        for old, _ in self._db.execute(QUERIES["accepted_recipes"], which).fetchall():
            row = {"recipe_id": self._changed_recipe(old), "same_as": old, "now": self._now}
            self._db.execute(QUERIES["accept_recipe_as"], {**which, **row})

    def _changed_recipe(self, recipe_id: int) -> int:
        if recipe_id not in self._changed:
            assert self._change is not None
            (body,) = self._db.execute(QUERIES["recipe"], {"recipe_id": recipe_id}).fetchone()
            changed = self._change(Recipe.from_json(body))
            self._changed[recipe_id] = recipe_number(self._db, changed, self._now)
        return self._changed[recipe_id]
