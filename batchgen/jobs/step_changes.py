"""What is said when a pool comes with other steps than its experiment has: what differs, step by
step, and what each way costs."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import asdict, replace

from batchgen.errors import Remedy, UsageError
from batchgen.jobs.follow import count_other_followers
from batchgen.jobs.recipe_choice import calls_text, cost_of_a_call, recipe_changes
from batchgen.llm.prices import Prices
from batchgen.store import (
    Chain,
    ChainStep,
    Counts,
    EndedItem,
    Intake,
    OtherRecipe,
    RecipeChoice,
    Store,
)

if TYPE_CHECKING:
    from batchgen.jobs.chain import ConfiguredChain
    from batchgen.steps import Plan, StepRule


GATHERED_BEFORE = "what was gathered of their items before is stale then"


class OtherRecipeOfStep(Struct, frozen=True):
    """A step whose recipe is another one now: its `changes` in words, and how many of its rows each
    way would ask."""

    step: ChainStep
    changes: tuple[str, ...]
    choice: RecipeChoice


async def refuse_other_steps(
    store: Store, experiment: str, chain: "ConfiguredChain", mode: OtherRecipe
) -> Chain | None:
    """The chain that the experiment has, None where it is new. Raises UsageError when it can have
    no such steps."""
    found = [one for one in await store.experiments() if one.name == experiment]
    if not found:
        return None
    there = await store.chain_of(found[0].id)
    if mode is OtherRecipe.ADD:
        raise UsageError(
            f"experiment {experiment!r} has steps, so nothing is asked once more beside the old.",
            Remedy.NAME_EXPERIMENT,
        )
    if there is None:
        if (await store.counts([found[0].id])).total:
            raise UsageError(
                f"experiment {experiment!r} was enqueued without steps, so it gets none now.",
                Remedy.NAME_EXPERIMENT,
            )
        return None
    _refuse_moved(experiment, there, chain.plan)
    return there


def is_moved(old: "Plan", new: "Plan") -> bool:
    """Whether steps were removed, renamed or moved."""
    before, after = [[rule.name for rule in plan.steps] for plan in (old, new)]
    return after[: len(before)] != before


def refuse_unknown_steps(
    experiment: str, there: Chain, plan: "Plan", chosen: Collection[int] | None, rows: int
) -> None:
    """Before work on so many `rows`: a step that the config does not have may have been asked at a
    server of its own, which nobody knows any more. `chosen` are the experiments to be worked on."""
    known = {rule.name for rule in plan.steps}
    unknown = [
        step.name for step in there.steps
        if step.name not in known and (chosen is None or step.experiment_id in chosen)
    ]  # fmt: skip
    if unknown:
        raise UsageError(
            f"experiment {experiment!r}: {rows:,} of its rows wait, and the config has no step "
            f"{unknown[0]}, so nobody knows at which server that is asked. Nothing was asked. Work "
            "on them with the steps that they were enqueued with; other steps are another "
            "experiment."
        )


def _refuse_moved(experiment: str, there: Chain, plan: "Plan") -> None:
    old = [step.name for step in there.steps]
    new = [rule.name for rule in plan.steps]
    if is_moved(there.plan, plan):
        raise UsageError(
            f"experiment {experiment!r} has the steps {', '.join(old)}; now there is "
            f"{', '.join(new)}. Steps can be edited, and added at the end; with one removed, "
            "renamed or moved it is another experiment.",
            Remedy.NAME_EXPERIMENT,
        )
    for step, rule in zip(there.steps, plan.steps, strict=False):
        if step.runs_code != rule.runs_code:
            was, is_ = ("a function", "a call") if step.runs_code else ("a call", "a function")
            raise UsageError(
                f"experiment {experiment!r}: step {step.name} was {was}, and is {is_} now; with "
                "that it is another experiment.",
                Remedy.NAME_EXPERIMENT,
            )


class Way(Struct):
    """What one way would come to, by the names of steps: how many rows are `asked` that are there
    already, and `made` of what is done. `stale` are those that were made of rows which are asked
    again, and `unmade` those that the new rules do not make, from the step of number `unmade_from`
    on: of the rows after that which are asked or wait, some may be stale. `failing` are done, but
    have no list for a step with `each`, and `without_list` have failed for want of one, and are
    read again. `waiting` ones are to be asked anyway. What was gathered before is stale then, if
    that `outdates_gathered`."""

    asked: Counter[str] = field(default_factory=Counter)
    made: Counter[str] = field(default_factory=Counter)
    stale: int = 0
    unmade: int = 0
    unmade_from: int | None = None
    failing: int = 0
    without_list: int = 0
    waiting: int = 0
    outdates_gathered: bool = False

    @property
    def rows(self) -> Counter[str]:
        return self.asked + self.made

    def may_be_stale(self, plan: "Plan") -> bool:
        """Whether some of the rows that are asked again may be none that the new rules make."""
        numbers = [plan.number_of(name) for name in self.asked]
        return self.unmade_from is not None and max(numbers, default=-1) >= self.unmade_from


async def other_steps_error(
    store: Store, experiment: str, first_id: int, chain: "ConfiguredChain", new: int
) -> UsageError:
    """That the experiment has other steps, and what each way costs. `new` rows of the pool are not
    there yet."""
    there = await store.chain_of(first_id)
    assert there is not None
    others = await other_recipes(store, there, chain)
    changes = [f"step {one.step.name}: {'; '.join(one.changes)}" for one in others]
    changes += rule_changes(there.plan, chain.plan)
    counts = await store.counts_by_experiment()
    costs = {}
    for mode in (OtherRecipe.REPLACE, OtherRecipe.AGAIN):
        way = await way_of(store, there, chain, mode)
        said = _cost_of(way, there, chain, counts, new)
        if mode is OtherRecipe.AGAIN and _after(way.asked, chain.plan):
            said += "; new answers may make new rows"
        costs[str(mode)] = said
    return UsageError(
        f"experiment {experiment!r} was enqueued with other steps: {'. '.join(changes)}. "
        "Nothing was enqueued.",
        Remedy.CHOOSE_STEPS,
        **costs,
    )


async def way_of(store: Store, there: Chain, chain: "ConfiguredChain", mode: OtherRecipe) -> Way:
    """What enqueueing would do with rows that are there. Where those of one step are all asked
    again, what was made of them is not, but is stale."""
    way, counts = Way(), await store.counts_by_experiment()
    for step, configured in zip(there.steps, chain.steps, strict=False):
        planned = await store.planned_intake(step.experiment_id, configured.recipe, mode, 1)
        its = counts.get(step.experiment_id, Counts())
        if way.asked and mode is OtherRecipe.AGAIN:
            way.stale += its.finished + its.open
        elif planned.asked_anew:
            way.asked[step.name] = planned.asked_anew
            way.waiting += max(0, its.open - planned.asked_anew)
        elif mode is OtherRecipe.AGAIN and _converses_otherwise(there, chain, step):
            way.asked[step.name] = its.done
            way.waiting += its.open
        else:
            way.waiting += its.open
    if there.plan.steps != chain.plan.steps:
        followers = await count_other_followers(store, there, chain.plan)
        way.made, way.unmade, way.failing = followers.new, followers.stale, followers.failing
        way.without_list, way.unmade_from = followers.without_list, followers.stale_from
        named = {one.name: counts.get(one.experiment_id, Counts()) for one in there.steps}
        way.outdates_gathered = outdates_gathered(chain.plan, named, way.made)
    return way


def outdates_gathered(
    plan: "Plan", counts: Mapping[str, Counts], made: Mapping[str, int], *, extends: bool = False
) -> bool:
    """Whether there is more to be gathered by rows that are there: there are more samples of known
    items, if that `extends` them, or `made` rows of steps before. `counts` are by steps."""
    return any(
        rule.gather is not None
        and counts.get(rule.name, Counts()).total > 0
        and (extends or any(before.name in made for before in plan.steps[:number]))
        for number, rule in enumerate(plan.steps)
    )


async def ask_in_other_conversation(
    store: Store, there: Chain, chain: "ConfiguredChain"
) -> dict[int, int]:
    """Where a step goes on from a conversation now, or does no more, its recipe is the same, but
    its rows are asked something else: those that are done are asked again; how many, by its
    experiment. What comes after a step whose rows are asked again is stale."""
    for step, configured in zip(there.steps, chain.steps, strict=False):
        recipe, again = configured.recipe, OtherRecipe.AGAIN
        planned = await store.planned_intake(step.experiment_id, recipe, again, 1)
        if planned.asked_anew:
            return {}
        if _converses_otherwise(there, chain, step) and (asked := await _ask_done(store, step)):
            return {step.experiment_id: asked}
    return {}


async def _ask_done(store: Store, step: ChainStep) -> int:
    asked = after = 0
    while page := await store.follow_page(step.experiment_id, after):
        after = page[-1].item_id
        done = [EndedItem(row.item_id, row.experiment_id, None, None) for row in page]
        asked += await store.reopen(done)
    return asked


def _converses_otherwise(there: Chain, chain: "ConfiguredChain", step: ChainStep) -> bool:
    before, after = there.plan.steps[step.number], chain.plan.steps[step.number]
    return before.conversation != after.conversation


async def with_other_steps(
    store: Store, planned: Intake, there: Chain, chain: "ConfiguredChain"
) -> Intake:
    """With what would hold the pool up in later steps."""
    if planned.choice is None and rule_changes(there.plan, chain.plan):
        return replace(planned, other_plan=there.plan)
    for one in await other_recipes(store, there, chain) if planned.choice is None else ():
        return replace(planned, choice=one.choice, step=one.step.name)
    return planned


async def with_running_steps(
    store: Store, planned: Intake, there: Chain, chain: "ConfiguredChain", mode: OtherRecipe
) -> Intake:
    """With the rows of later steps that get another recipe, and are being worked on."""
    for step, configured in zip(there.steps, chain.steps, strict=False):
        its = await store.planned_intake(step.experiment_id, configured.recipe, mode, 1)
        if its.running and not planned.running:
            return replace(
                planned, running=its.running, at_provider=its.at_provider, step=step.name
            )
    return planned


async def other_recipes(
    store: Store, there: Chain, chain: "ConfiguredChain"
) -> list[OtherRecipeOfStep]:
    """Of the steps that are there, those that are to be asked otherwise."""
    found = []
    for step, configured in zip(there.steps, chain.steps, strict=False):
        planned = await store.planned_intake(
            step.experiment_id, configured.recipe, OtherRecipe.STOP, 1
        )
        if planned.choice is not None:
            changes = tuple(recipe_changes(planned.choice.present, configured.recipe))
            found.append(OtherRecipeOfStep(step, changes, planned.choice))
    return found


def rule_changes(old: "Plan", new: "Plan") -> list[str]:
    """What differs in the rules of the steps that both have, in words; what is another model's or
    template's is in the recipes."""
    found = []
    for before, after in zip(old.steps, new.steps, strict=False):
        if changes := _changes_of(before, after):
            found.append(f"step {after.name}: {'; '.join(changes)}")
    return found


def changes_of_plan(old: "Plan", new: "Plan") -> list[str]:
    """The same, and which steps there are by now."""
    before, after = [[rule.name for rule in plan.steps] for plan in (old, new)]
    if is_moved(old, new):
        return [f"the steps {', '.join(before)} -> {', '.join(after)}"]
    return [*rule_changes(old, new), *(f"step {name} was added" for name in after[len(before) :])]


def _changes_of(before: "StepRule", after: "StepRule") -> list[str]:
    olds, news = asdict(before), asdict(after)
    return [
        f"{name} {_shown(olds[name])} -> {_shown(news[name])}"
        for name in olds
        if olds[name] != news[name]
    ]


def _shown(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        name, path = value
        return f"{{{name}: {path}}}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cost_of(
    way: Way, there: Chain, chain: "ConfiguredChain", counts: Mapping[int, Counts], new: int
) -> str:
    """In calls, and in money as far as calls of these steps took some. What follows them is not
    counted, as nobody knows yet how much it is."""
    plan, ids = chain.plan, {step.name: step.experiment_id for step in there.steps}
    calls, cost_usd = 0, 0.0
    for step in chain.steps:
        n = 0 if step.model is None else way.rows[step.name]
        calls += n
        if n and step.model is not None:
            its = counts.get(ids.get(step.name, 0), Counts())
            each_usd = cost_of_a_call(its, Prices(step.model))
            cost_usd += n * (each_usd or 0.0)
    said = _calls_text(calls, way, plan)
    if cost_usd:
        said += f", about ${cost_usd:,.4f}"
    if way.made:
        said += f" (new rows: {made_text(way.made, [rule.name for rule in plan.steps])})"
    if way.outdates_gathered:
        said += f"; {GATHERED_BEFORE}"
    if way.waiting:
        waits = "row that waits" if way.waiting == 1 else "rows that wait"
        said += f", and the {way.waiting:,} {waits} already"
    if new:
        said += ", and the new item" if new == 1 else f", and the {new:,} new items"
    if way.unmade:
        said += (
            f"; {_rows(way.unmade)} stale then, and what follows: made no more, or of something "
            "else"
        )
    if way.failing:
        said += f"; {way.failing:,} done rows fail then, as there is no list for each in them"
    if way.without_list:
        said += (
            f"; {way.without_list:,} that failed for want of a list are read again, without a "
            "call, and what they make is asked"
        )
    if way.stale:
        after = "1 row after them is" if way.stale == 1 else f"{way.stale:,} rows after them are"
        said += f"; {after} stale then, unless the new answers say what the old ones did"
    return said


def _calls_text(calls: int, way: Way, plan: "Plan") -> str:
    is_all = all(rule.runs_code for rule in _after(way.rows, plan)) and not way.without_list
    if not (calls or is_all):
        return "nobody knows yet how many calls"
    is_most = calls > 0 and way.may_be_stale(plan)
    bound = {(True, True): "at most ", (False, False): "at least ", (False, True): "about "}
    return f"{bound.get((is_all, is_most), '')}{calls_text(calls)}"


def _after(rows: Mapping[str, int], plan: "Plan") -> "tuple[StepRule, ...]":
    """The steps after the first one of these."""
    if not rows:
        return ()
    return plan.steps[min(plan.number_of(name) for name in rows) + 1 :]


def made_text(made: Mapping[str, int], steps: Sequence[str]) -> str:
    """So many rows of these of the steps."""
    of = ", ".join(f"{n:,} of {name}" for name, n in made.items())
    return of if made.keys() <= {steps[-1]} else f"{of}, and what follows them"


def _rows(n: int) -> str:
    return "1 row is" if n == 1 else f"{n:,} rows are"
