"""The transactions of `retry` and `reparse`: items that ended go back, or end otherwise."""

import json
from collections.abc import Callable, Iterator, Sequence

from batchgen.items import Recipe
from batchgen.store.plan_repair import plan_reopened, plan_reparsed
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.deltas import write_deltas
from batchgen.store.transactions.intake import recipe_number
from batchgen.store.transactions.results import append_results
from batchgen.store.transactions.rows import bounded, row_of, rows_of
from batchgen.store.values import AnswerChoice, EndedAnswer, EndedItem, Reparsed


def failed_page(
    db: Transaction,
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


def ended_item(db: Transaction, item_id: int) -> EndedItem | None:
    return next(_ended_items(db, [item_id]), None)


def _ended_items(db: Transaction, item_ids: Sequence[int]) -> Iterator[EndedItem]:
    return rows_of(db, "ended_items", EndedItem, {"ids": json.dumps(item_ids)})


def reopen(
    db: Transaction,
    items: Sequence[EndedItem],
    change: Callable[[Recipe], Recipe] | None,
    now: int,
) -> int:
    from batchgen.store.transactions.replaced import Replaced  # here: a worker has no use for it

    ids = [item.item_id for item in items]
    ended = {item.item_id: item for item in _ended_items(db, ids)}
    below = Replaced(db, {item.experiment_id for item in items}, ids)
    for item_id in below.that_gather_nothing:
        ended.pop(item_id, None)
    plan = plan_reopened(items, ended)
    db.execute_many("reopen", plan.reopened)
    if change is not None:
        _Recipes(db, change, now).change(plan.items)
    below.stale(plan.items, plan.deltas, now)
    write_deltas(db, plan.deltas)
    return len(plan.items)


def answer_page(
    db: Transaction, experiment_id: int, choice: AnswerChoice, after: int, limit: int
) -> list[EndedAnswer]:
    query = "all_answers" if choice.done_too else "unparsed_answers"
    which = {
        "experiment_id": experiment_id, "cut_off_too": choice.cut_off_too, "after": after,
        "limit": limit,
    }  # fmt: skip
    page, _ = bounded(rows_of(db, query, EndedAnswer, which), _chars_of)
    return page


def outdated_page(
    db: Transaction, experiment_id: int, parser_id: int, after: int, limit: int
) -> list[EndedAnswer]:
    which = {
        "experiment_id": experiment_id, "parser_id": parser_id, "after": after, "limit": limit,
    }  # fmt: skip
    found = rows_of(db, "answers_of_other_parsers", EndedAnswer, which)
    page, _ = bounded(found, _chars_of)
    return page


def run_by_others(
    db: Transaction, experiment_id: int, parser_id: int, after: int, limit: int
) -> list[EndedItem]:
    which = {
        "experiment_id": experiment_id, "parser_id": parser_id, "after": after, "limit": limit,
    }  # fmt: skip
    return list(rows_of(db, "ended_by_other_functions", EndedItem, which))


def _chars_of(answer: EndedAnswer) -> int:
    return len(answer.input) + len(answer.response) + len(answer.parsed or "")


def answer_of(db: Transaction, item_id: int) -> EndedAnswer | None:
    return row_of(db, "answer_of_item", EndedAnswer, {"item_id": item_id})


def write_reparsed(
    db: Transaction, reparsed: Sequence[Reparsed], parser_id: int, now: int
) -> set[int]:
    """New results beside the old ones; the items that were skipped, as they have another result by
    now."""
    from batchgen.store.transactions.replaced import Replaced  # here, too

    item_ids = [one.was.item_id for one in reparsed]
    ids = {"ids": json.dumps(item_ids)}
    db.execute("end_reparsing", ids)
    result_seqs = dict(db.execute("results_of_items", ids).fetchall())
    below = Replaced(db, {one.was.experiment_id for one in reparsed}, item_ids)
    made = sum(one.now is not None for one in reparsed)
    plan = plan_reparsed(
        [one for one in reparsed if below.follows_present_plan(one)], parser_id, result_seqs,
        db.first_new("results", made) - 1, now, below.made_of,
    )  # fmt: skip
    append_results(db, plan.results)
    db.execute_many("replace_result", plan.replaced)
    db.execute_many("set_parser_of_result", plan.confirmed)
    ends = {one.was.item_id: one.now for one in reparsed}
    below.follow(plan.replaced, ends, plan.deltas, now)
    write_deltas(db, plan.deltas)
    return {one.was.item_id for one in reparsed} - set(plan.items)


class _Recipes:
    """Items get another recipe, made of their own by `change`."""

    def __init__(self, db: Transaction, change: Callable[[Recipe], Recipe], now: int) -> None:
        self._db = db
        self._change = change
        self._now = now
        self._changed: dict[int, int] = {}

    def change(self, item_ids: Sequence[int]) -> None:
        ids = {"ids": json.dumps(item_ids)}
        recipes = self._db.execute("recipes_of_items", ids).fetchall()
        rows = [
            {"item_id": item_id, "recipe_id": self._changed_recipe(recipe_id)}
            for item_id, recipe_id in recipes
            if self._changed_recipe(recipe_id) != recipe_id
        ]
        self._db.execute_many("set_recipe", rows)

    def _changed_recipe(self, recipe_id: int) -> int:
        if recipe_id not in self._changed:
            (body,) = self._db.execute("recipe", {"recipe_id": recipe_id}).fetchone()
            changed = self._change(Recipe.from_json(body))
            self._changed[recipe_id] = recipe_number(self._db, changed, self._now)
        return self._changed[recipe_id]
