"""The transactions of enqueueing but for its items: experiments, their variants, recipes and
parsers, and what is asked anew."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from batchgen.items import ParserVersion, Recipe, State
from batchgen.store.chain_records import Chain
from batchgen.store.keys import key_of_id
from batchgen.store.plan_repair import plan_asked
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.deltas import write_deltas
from batchgen.store.transactions.plans import (
    add_step,
    checked_chain,
    has_other_rules,
    set_gatherings,
    set_plan,
    stale_steps_after,
)
from batchgen.store.transactions.rows import rows_of
from batchgen.store.values import (
    AskedAgain,
    ChainIntake,
    Intake,
    OtherRecipe,
    RecipeChoice,
    RowGroup,
)

ItemsByKeys = Callable[[Transaction, Sequence[bytes]], Iterable[tuple[int, int, str]]]

_NO_RECIPE = -1  # one that is not stored yet, and no row has


def begin_intake(
    db: Transaction,
    experiment: str,
    recipe: Recipe,
    parser: ParserVersion,
    mode: OtherRecipe,
    now: int,
    samples: int = 1,
    chain: ChainIntake | None = None,
) -> Intake:
    """Make sure of experiment, parser and recipe, and of the steps after it, before a pass over a
    pool.

    A recipe that a variant has needs no `mode`. With another one, rows are asked anew as it says;
    none is, and the intake says so by `running`, while some of them are in flight.
    """
    parser_id = parser_number(db, parser, now)
    experiment_id = _experiment_id(db, experiment, parser_id, now)
    there = checked_chain(db, experiment_id, chain, experiment)
    way = _way(db, experiment_id, recipe_number(db, recipe, now), mode)
    intake = _planned(db, way, mode, samples)
    if intake.choice or intake.running:
        return intake
    if chain is not None:
        later = _Later(db, experiment_id, chain, mode, now)
        intake = later.planned(intake, there)
        if intake.step or intake.other_plan:
            return intake
    asked = Counter({experiment_id: _carry_out(db, way, intake, now)})
    if chain is not None:
        asked += later.write(experiment, there)
    intake = replace(intake, asked=asked)
    set_present_parser(db, experiment_id, parser_id)
    return replace(intake, first=db.newest("items") + 1)


def _carry_out(db: Transaction, way: "_Way", intake: Intake, now: int) -> int:
    """The variant gets its recipe, and the rows to ask anew are pending; how many they are. Of a
    step, those are not that have become stale, as rows of a step before it are asked anew."""
    row = _variant_row(way) | {"number": intake.variant, "now": now}
    if intake.asked_anew and way.choice:
        return _ask_anew(db, row, way.choice)
    if way.choice and not way.is_present:
        db.execute("set_recipe_of_variant", row)
    elif not way.is_present:
        db.execute("add_variant", row)
    return 0


class _Later:
    """The steps after the first, while a pool is enqueued."""

    def __init__(
        self, db: Transaction, first_id: int, chain: ChainIntake, mode: OtherRecipe, now: int
    ) -> None:
        self._db = db
        self._first_id = first_id
        self._chain = chain
        self._mode = mode
        self._now = now
        later = chain.steps[1:]
        self._recipes = [recipe_number(db, step.recipe, now) for step in later]
        self._parsers = [parser_number(db, step.parser, now) for step in later]
        self._ways: list[tuple[_Way, Intake]] = []

    def planned(self, first: Intake, there: Chain | None) -> Intake:
        """That of the first step, and what holds it up in the others."""
        if has_other_rules(there, self._chain.plan) and self._mode is OtherRecipe.STOP:
            assert there is not None
            return replace(first, other_plan=there.plan)
        for step, recipe_id in zip(there.steps[1:] if there else (), self._recipes, strict=False):
            way = _way(self._db, step.experiment_id, recipe_id, self._mode)
            one = _planned(self._db, way, self._mode, 1)
            if one.choice or one.running:
                return replace(
                    first, choice=one.choice, running=one.running, at_provider=one.at_provider,
                    step=step.name,
                )  # fmt: skip
            self._ways.append((way, one))
        asked = Counter(first.asked)
        for _, one in self._ways:
            asked.update(one.asked)
        return replace(first, asked=asked)

    def write(self, experiment: str, there: Chain | None) -> Counter[int]:
        """How many of their rows are asked anew, by the experiments."""
        set_plan(self._db, self._first_id, there, self._chain.plan, self._now)
        asked = Counter({
            way.experiment_id: _carry_out(self._db, way, intake, self._now)
            for way, intake in self._ways
        })  # fmt: skip
        for step, parser_id in zip(there.steps[1:] if there else (), self._parsers, strict=False):
            set_present_parser(self._db, step.experiment_id, parser_id)
        for number, rule in enumerate(self._chain.plan.steps):
            if number >= len(there.steps if there else [experiment]):
                add_step(
                    self._db, self._first_id, f"{experiment}/{rule.name}", rule, number,
                    parser_id=self._parsers[number - 1], recipe_id=self._recipes[number - 1],
                    now=self._now,
                )  # fmt: skip
        set_gatherings(self._db, self._first_id)
        return asked


def planned_intake(
    db: Transaction, experiment_id: int, recipe: Recipe, mode: OtherRecipe, samples: int
) -> Intake:
    """What `begin_intake` would begin. Nothing is written."""
    found = db.execute("find_recipe", {"digest": recipe.digest()}).fetchone()
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


def _way(db: Transaction, experiment_id: int, recipe_id: int, mode: OtherRecipe) -> _Way:
    variants = db.execute("variants", {"experiment_id": experiment_id}).fetchall()
    present = next((number for number, present in variants if present == recipe_id), None)
    is_present = present is not None
    choice = _rows_chosen(mode, is_present=is_present) if variants else None
    newest, newest_recipe = variants[0] if variants else (0, None)
    return _Way(experiment_id, recipe_id, present or newest, is_present, choice, newest_recipe)


def _variant_row(way: _Way) -> dict[str, int]:
    return {
        "experiment_id": way.experiment_id, "number": way.variant, "recipe_id": way.recipe_id,
    }  # fmt: skip


def _planned(db: Transaction, way: _Way, mode: OtherRecipe, samples: int) -> Intake:
    row = _variant_row(way)
    intake = Intake(way.experiment_id, way.variant, way.recipe_id, 0, samples)
    if way.newest is not None and not way.is_present and mode is OtherRecipe.STOP:
        return replace(intake, choice=_choice(db, row, way.newest))
    if way.choice:
        asked = sum(group.n for group in _rows_to_ask(db, row, way.choice))
        running, theirs = db.execute("count_running", row).fetchone() if asked else (0, 0)
        asked_anew = {way.experiment_id: asked}
        return replace(intake, asked=asked_anew, running=running, at_provider=theirs)
    return intake if way.is_present else replace(intake, variant=way.variant + 1)


def _choice(db: Transaction, variant: Mapping[str, int], present: int) -> RecipeChoice:
    (body,) = db.execute("recipe", {"recipe_id": present}).fetchone()
    (rows,) = db.execute("count_rows", variant).fetchone()
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


def ask_again(db: Transaction, into: Intake, row_ids: Sequence[int], now: int) -> AskedAgain:
    variant = {
        "experiment_id": into.experiment_id, "number": into.variant, "recipe_id": into.recipe_id,
        "now": now,
    }  # fmt: skip
    asked = _ask_anew(db, variant, "other", row_ids)
    others = _rows_to_ask(db, variant, "other")
    return AskedAgain(asked, sum(one.n for one in others if one.state == State.DONE))


def _ask_anew(
    db: Transaction, variant: Mapping[str, int], choice: str,
    row_ids: Sequence[int] | None = None,
) -> int:  # fmt: skip
    """The rows of a variant, or these of them, are asked with its new recipe, but those in flight;
    how many they are."""
    rows = _rows_to_ask(db, variant, choice, row_ids)
    groups = [group for group in rows if group.state != State.RUNNING]
    asked = _chosen(variant, choice, row_ids)
    db.execute("ask_rows", asked)
    db.execute("give_recipe", asked)
    db.execute("set_recipe_of_variant", variant)
    write_deltas(db, plan_asked(variant["experiment_id"], groups))
    stale_steps_after(db, variant["experiment_id"], groups)
    return sum(group.n for group in groups)


def _rows_to_ask(
    db: Transaction, variant: Mapping[str, int], choice: str,
    row_ids: Sequence[int] | None = None,
) -> list[RowGroup]:  # fmt: skip
    return list(rows_of(db, "rows_to_ask", RowGroup, _chosen(variant, choice, row_ids)))


def _chosen(
    variant: Mapping[str, int], choice: str, row_ids: Sequence[int] | None
) -> dict[str, object]:
    ids = None if row_ids is None else json.dumps(list(row_ids))
    return {**variant, "choice": choice, "ids": ids}


def parser_number(db: Transaction, parser: ParserVersion, now: int) -> int:
    """The number of a parser, which is stored when it is new."""
    row = {
        "spec": parser.spec, "fingerprint": parser.fingerprint, "now": now,
        "sources": json.dumps(dict(parser.sources)),
    }  # fmt: skip
    (number,) = db.execute("add_parser", row).fetchone()
    return int(number)


def set_present_parser(db: Transaction, experiment_id: int, parser_id: int) -> None:
    which = {"experiment_id": experiment_id, "parser_id": parser_id}
    db.execute("set_present_parser", which)


def items_with_ids(
    db: Transaction, items_by_keys: ItemsByKeys, experiment_id: int, custom_ids: Sequence[str],
    variant: int | None,
) -> dict[str, tuple[int, str]]:  # fmt: skip
    """The number and the input of each item that has one of these ids, in the variant (None: the
    newest)."""
    if variant is None:
        (variant, _), *_others = db.execute("variants", {"experiment_id": experiment_id})
    keys = [key_of_id(experiment_id, variant, custom_id) for custom_id in custom_ids]
    rows = items_by_keys(db, keys)
    return {custom_ids[place]: (item_id, input_json) for place, item_id, input_json in rows}


def _experiment_id(db: Transaction, name: str, parser_id: int, now: int) -> int:
    found = db.execute("find_experiment", {"name": name}).fetchone()
    if found:
        return int(found[0])
    new = {"name": name, "parser_id": parser_id, "now": now}
    (added,) = db.execute("add_experiment", new).fetchone()
    return int(added)


def recipe_number(db: Transaction, recipe: Recipe, now: int) -> int:
    """The number of a recipe, which is stored when it is new."""
    digest = recipe.digest()
    found = db.execute("find_recipe", {"digest": digest}).fetchone()
    if found:
        return int(found[0])
    new = {"digest": digest, "body": recipe.to_json(), "now": now}
    (added,) = db.execute("add_recipe", new).fetchone()
    return int(added)
