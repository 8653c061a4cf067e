"""What is said when a pool comes with another recipe: what differs, and what each way costs."""

import json
from typing import NamedTuple

from msgspec import Struct

from batchgen.errors import Remedy, UsageError
from batchgen.items import Recipe
from batchgen.llm.prices import Estimate, Prices
from batchgen.store import Counts, RecipeChoice, Store

_LONGEST_VALUES = 80


class Costs(Struct, frozen=True):
    """What calls cost, told from the `estimate` of some of them; None: nobody knows."""

    estimate: Estimate | None
    estimated: int

    def of(self, calls: int) -> str:
        said = calls_text(calls)
        if self.estimate is None or self.estimate.cost_usd is None or not self.estimated * calls:
            return said
        cost_usd = self.estimate.cost_usd / self.estimated * calls
        return f"{said}, {'about' if self.estimate.is_measured else 'at most'} ${cost_usd:,.4f}"


def calls_text(calls: int) -> str:
    return f"{calls:,} call{'' if calls == 1 else 's'}"


async def estimate_of(store: Store, experiment_id: int, prices: Prices | None) -> Estimate | None:
    """One to which requests can be added. An answer is taken to be as long as the experiment's were
    so far."""
    if prices is None:
        return None
    return Estimate(prices, tokens_of_an_answer(await store.counts([experiment_id])))


def tokens_of_an_answer(counts: Counts) -> float | None:
    """By the answers that there are so far, if any."""
    used = tokens_of_a_call(counts)
    return None if used is None else used.completion or None


class CallTokens(NamedTuple):
    """What a call takes on average."""

    prompt: float
    completion: float


def tokens_of_a_call(counts: Counts) -> CallTokens | None:
    """By the calls so far, with those after which their item was asked again; None: nobody knows,
    as none took any."""
    calls = counts.last_calls
    if calls <= 0 or not (counts.prompt_tokens or counts.completion_tokens):
        return None
    return CallTokens(counts.prompt_tokens / calls, counts.completion_tokens / calls)


def cost_of_a_call(counts: Counts, prices: Prices) -> float | None:
    """The same in money, at the present price of what the config asks for; None: nobody knows."""
    used, price = tokens_of_a_call(counts), prices.of_section
    return None if used is None or price is None else price.cost_of_tokens(*used)


def times(n: float, each: float | None) -> float | None:
    """Of `n` such; None: not known."""
    return None if each is None else each * n


def other_recipe_error(
    experiment: str, recipe: Recipe, choice: RecipeChoice, costs: Costs, new: int, added: int,
    pool_alone: bool = False,
) -> UsageError:  # fmt: skip
    """`new` rows of the pool are not there yet, and `added` would be there beside the others."""
    most = added if pool_alone else choice.rows + new
    changes = "; ".join(recipe_changes(choice.present, recipe))
    return UsageError(
        f"experiment {experiment!r} was enqueued with another recipe: {changes}. "
        "Nothing was enqueued.",
        Remedy.CHOOSE_RECIPE,
        replace=costs.of(min(choice.replace + new, most)),
        again=costs.of(min(choice.again + new, most)),
        add=f"{costs.of(added)}, {choice.rows + added:,} rows",
    )


def still_running_error(experiment: str, running: int, at_provider: int) -> UsageError:
    rows = at_provider or running
    where = "at the provider, in batches" if at_provider else "being worked on"
    return UsageError(
        f"experiment {experiment!r}: {rows:,} of its rows {'is' if rows == 1 else 'are'} "
        f"{where}, so {'it' if rows == 1 else 'they'} cannot get another recipe.",
        Remedy.END_BATCHES if at_provider else Remedy.STOP_WORKERS,
    )


def recipe_changes(old: Recipe, new: Recipe) -> list[str]:
    """What differs between two recipes, in words."""
    changes = []
    for part in ("system", "user"):
        before, after = getattr(old, part), getattr(new, part)
        if before != after:
            what = "changed" if before and after else "was added" if after else "was removed"
            changes.append(f"the {part} template {what}")
    if old.endpoint != new.endpoint:
        changes.append(f"endpoint {old.endpoint} -> {new.endpoint}")
    if old.model != new.model:
        changes.append(f"model {old.model!r} -> {new.model!r}")
    for name in sorted({*old.params, *new.params}):
        before, after = old.params.get(name), new.params.get(name)
        if before != after:
            values = f"{json.dumps(before)} -> {json.dumps(after)}"
            changes.append(f"{name} {values if len(values) <= _LONGEST_VALUES else 'changed'}")
    return changes
