"""What the steps of a chain would cost, each: by what its calls took before or, where it has not
run yet, by its prompts and `max_tokens`, as if each item went through all of them."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, to_builtins

from batchgen.config import Config, model_of
from batchgen.endpoints import ENDPOINTS
from batchgen.errors import TemplateError
from batchgen.items import ItemInput
from batchgen.jobs.chain import ConfiguredChain
from batchgen.jobs.recipe_choice import (
    cost_of_a_call,
    times,
    tokens_of_a_call,
    tokens_of_an_answer,
)
from batchgen.llm.prices import Estimate, Prices
from batchgen.prompts import Renderer, StandIn, input_of_step
from batchgen.store import Counts, NewRows
from batchgen.text.json_text import dump_json


class StepCost(Struct, frozen=True):
    """Of one step: its `calls`, and what they use; None: not known. `batch_cost_usd` is what they
    cost in provider batches. With `is_measured` a call is taken to use what its calls did so far,
    and else an answer to be as long as it can be. The number of calls is `at least` so many where a
    list decides it, `at most` where a condition does, and `about` where both do, or by what there
    were before. A function makes none."""

    step: str
    calls: int
    bound: str
    prompt_tokens: int
    completion_tokens: float | None
    cost_usd: float | None
    is_measured: bool
    runs_code: bool = False
    batch_cost_usd: float | None = None

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = to_builtins(self)
        return found


# What is said of a number of calls, by whether a list decides it, and whether a condition does.
_BOUNDS = {
    (False, False): "", (True, False): "at least", (False, True): "at most", (True, True): "about",
}  # fmt: skip


def _bound_of_both(one: str, other: str) -> str:
    return one or other if not (one and other) or one == other else "about"


class StepsEstimate:
    """Items are added, and then it is told what their rows would cost. `counts` are those of the
    steps that are there already, by their names."""

    def __init__(
        self, config: Config, chain: ConfiguredChain, counts: Mapping[str, Counts], samples: int
    ) -> None:
        self._items, self._samples = 0, samples
        self._steps = []
        before = counts.get(chain.steps[0].name, Counts())  # of what a row of a step stems from
        for number, one in enumerate(chain.steps):
            its = counts.get(one.name, Counts())
            self._steps.append(_Step(config, chain, number, its, before))
            before = its if self._steps[-1].gathers else before

    def add(self, item: ItemInput) -> None:
        self._items += 1
        for step in self._steps:
            step.add(item, self._steps)

    def costs(
        self, new: NewRows, asked_anew: Mapping[str, int], made: Mapping[str, int],
        waiting: Mapping[str, int], *, unmade_from: int | None = None,
    ) -> tuple[StepCost, ...]:  # fmt: skip
        """Of `new` first rows, with all that follows them; of rows of steps that are asked anew;
        and of those that are `waiting` already. These, and the `made` ones, were not asked yet:
        each goes through the steps after its own, up to one that gathers. That has a row for each
        new item, and for each that has none yet; where it has one, it is stale. Of the step of
        number `unmade_from`, and of those after it, some of the rows that are there are made no
        more."""
        first = self._steps[0]
        begun = waiting.get(first.name, 0)
        new += NewRows(begun, round(begun / self._samples))
        costs, follow, decides, waited = [], 0, (False, False), 0
        for number, step in enumerate(self._steps):
            waits = 0 if step is first else waiting.get(step.name, 0)
            if step.gathers:
                not_made = step.not_made(first, self._samples) - made.get(step.name, 0)
                follow, waits = 0, waits + min(waited, max(0, not_made))
            decides = step.decides_after(decides) if follow else (False, False)
            known = asked_anew.get(step.name, 0) + waits
            is_known = unmade_from is None or number < unmade_from
            if known > made.get(step.name, 0) and not is_known:
                decides = decides[0], True
            costs.append(step.cost(new, known + follow, _BOUNDS[decides], self._items))
            follow, waited = follow + made.get(step.name, 0) + waits, waited + waits
        return tuple(costs)


class _Step:
    """`before` are the counts of the last step before it that gathers, or of the first one."""

    def __init__(
        self, config: Config, chain: ConfiguredChain, number: int, counts: Counts, before: Counts
    ) -> None:
        plan, rules = chain.plan, chain.plan.steps[: number + 1]
        self.name = chain.steps[number].name
        self.runs_code = chain.steps[number].runs_code
        self._number, self._plan = number, plan
        self.said_tokens = 0.0  # of the last item: what it would be sent, and its answer
        self.gathers = plan.steps[number].gather is not None
        self._renderer = chain.renderers[number]
        self.counts = counts
        self._rows_each = 1.0
        last = max((n for n, rule in enumerate(rules) if rule.gather), default=-1)
        self._is_of_items = last >= 0
        has_list = any(rule.each for rule in rules[last + 1 :])
        has_condition = any(rule.when for rule in rules)
        self._bound = _BOUNDS[has_list, has_condition]
        if number not in (0, last) and counts.total and before.finished:
            self._rows_each = counts.total / before.finished
            self._bound = "about" if has_list or has_condition else ""
        if not self.runs_code:
            model = model_of(config, number)
            body = {"model": model.model, **model.params}
            tokens, prices = tokens_of_an_answer(counts), Prices(model)
            self._model = model.model
            self.answer_tokens = tokens or ENDPOINTS[model.endpoint].most_tokens(body) or 0
            self._estimate = Estimate(prices, tokens)
            self._used = tokens_of_a_call(counts)
            self._used_usd = cost_of_a_call(counts, prices)
            self._used_usd_in_batches = cost_of_a_call(counts, prices.in_batches)
        else:
            self.answer_tokens = 0

    def decides_after(self, before: tuple[bool, bool]) -> tuple[bool, bool]:
        """Of rows that come to it: whether a list, and a condition, decides how many there are."""
        rule = self._plan.steps[self._number]
        return before[0] or rule.each is not None, before[1] or rule.when is not None

    def not_made(self, first: "_Step", samples: int) -> int:
        """Of a step that gathers: so many items of which the `first` rows are there have no row."""
        return max(0, round(first.counts.finished / samples) - self.counts.total)

    def add(self, item: ItemInput, steps: "list[_Step]") -> None:
        if self._renderer is None:
            return
        names = self._plan.names_in(self._number)
        given = input_of_step(item, dict.fromkeys(names, StandIn())) if self._number else item
        body = self._body(self._renderer, given)
        before = {one.name: one.answer_tokens for one in steps[: self._number]}
        used = self._renderer.variables & before.keys()
        more = sum(before[name] for name in used)
        if self._plan.steps[self._number].conversation:
            more += steps[self._number - 1].said_tokens
        prompt_tokens = self._estimate.add(body, self._renderer.endpoint_of(given), round(more))
        self.said_tokens = prompt_tokens + self.answer_tokens

    def _body(self, renderer: Renderer, given: ItemInput) -> dict[str, Any]:
        """As it would be, were the values of other steps not to come yet."""
        try:
            return renderer.request_body(given)
        except TemplateError:  # its template does with a value what only a real one allows
            text = dump_json(dict(given.user_variables))
            return {"model": self._model, "messages": [{"role": "user", "content": text}]}

    def cost(self, new: NewRows, others: int, others_bound: str, items: int) -> StepCost:
        """Of what the `new` rows come to, and of `others`, of which those are known to be asked
        that are there."""
        begun = new.items if self._is_of_items else new.rows
        calls = round(begun * self._rows_each) + others
        its_own = self._bound if begun or self.gathers else ""
        bound = _bound_of_both(its_own, others_bound) if calls else ""
        if self.runs_code:
            return StepCost(self.name, 0, "", 0, 0, 0.0, False, True, 0.0)
        if self._used is not None:
            return StepCost(
                self.name, calls, bound, round(self._used.prompt * calls),
                self._used.completion * calls, times(calls, self._used_usd), is_measured=True,
                batch_cost_usd=times(calls, self._used_usd_in_batches),
            )  # fmt: skip
        share = calls / items if items else 0.0
        found = self._estimate
        return StepCost(
            self.name, calls, bound,
            round(found.prompt_tokens * share),
            times(share, found.completion_tokens),
            times(share, found.cost_usd),
            found.is_measured,
            batch_cost_usd=times(share, found.batch_cost_usd),
        )  # fmt: skip
