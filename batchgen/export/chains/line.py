"""A line of an export of chains: an item's way through the steps, or as far as a row of one."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from json import loads
from math import fsum
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from batchgen.export.chains.walk import Part
from batchgen.export.reviewed import as_stored, is_edited, verdict_of
from batchgen.steps import Link, Plan, chain_values, value_of
from batchgen.store import ResultRow, Verdict
from batchgen.text.json_text import dump_json

_NO_TEXT = "null"
_COST_DIGITS = 12  # sums of binary fractions have more, and mean none of them


class ChainLine(Struct, frozen=True, dict=True):
    """`first` is the chain's first row, with the item, which has the number `item_id`, and `parts`
    are its rows that are done. The answer and the value of the line are those of `own`, one of them
    (None: the chain has none), or the `value` alone, as JSON. `failed` is the row with which the
    chain failed, `ended` the step at which it has ended."""

    plan: Plan
    item_id: int
    first: ResultRow
    parts: tuple[Part, ...]
    own: Part | None = None
    value: str | None = None
    failed: Part | None = None
    ended: str | None = None

    @property
    def id(self) -> int:
        """The number of the row that the answer is from; without one, of that which came last."""
        return self.answering.id

    @property
    def failed_step(self) -> str | None:
        return None if self.failed is None else self.plan.steps[self.failed.number].name

    @property
    def answer(self) -> ResultRow:
        """The answer alone, as a result of the chain's item."""
        row, place = self.answering, "".join(f"[{n}]" for n in self.elements)
        name = self.first.custom_id or str(self.first.id)
        return replace(
            row, custom_id=f"{name}{place}", metadata=self.first.metadata, sample=self.row.sample
        )

    @cached_property
    def row(self) -> ResultRow:
        """The line as a result, with the item of the first row and with sums over all."""
        results = list(self.results())
        last = self._rows[-1].result
        answering = self.own or self.failed
        answer = answering and answering.result
        costs = [one.cost_usd for one in results if one.cost_usd is not None]
        return replace(
            self.first,
            response=answer.response if answer else _NO_TEXT,
            parsed=self._parsed(),
            model=answer.model if answer else None,
            finish_reason=answer.finish_reason if answer else None,
            prompt_tokens=_sum(one.prompt_tokens for one in results),
            completion_tokens=_sum(one.completion_tokens for one in results),
            cached_tokens=_sum(one.cached_tokens for one in results),
            reasoning_tokens=_sum(one.reasoning_tokens for one in results),
            cost_usd=round(fsum(costs), _COST_DIGITS) if costs else None,
            tries=sum(one.tries for one in results),
            finished_at=last.finished_at,
            sample=None if self._is_gathered else self.first.sample,
            reason=self.failed.result.reason if self.failed else None,
            error=self.failed.result.error if self.failed else None,
        )

    def results(self) -> Iterator[ResultRow]:
        """Of all its rows, each once: those that were gathered, too, and the one that failed."""
        return _results_of(self._rows)

    @property
    def answering(self) -> ResultRow:
        """The row that the answer is from; without one, that which came last."""
        return (self.own or self._rows[-1]).result

    @property
    def has_edits(self) -> bool:
        return any(map(is_edited, self.results()))

    def verdict(self, step: int | None) -> str | None:
        """What people said of it: rejected if they did so of any of its rows or, with a `step`, of
        its row of that step or one that this was made of; else what they said of its answer."""
        parts = [part for part in self._rows if step is None or part.number <= step]
        if any(verdict_of(row) == Verdict.REJECTED for row in _results_of(parts)):
            return Verdict.REJECTED
        return verdict_of(self.answering)

    def steps(self) -> Iterator[tuple[str, Part | list[tuple[Part, ...]]]]:
        """Of each step that it went through the row or, where they were gathered, a list of rows,
        each with those that it was made of."""
        for part in self.parts:
            if self.plan.steps[part.number].gather:
                yield from self._gathered_steps(part)
            yield self.plan.steps[part.number].name, part
        if self.failed and self.plan.steps[self.failed.number].gather:
            yield from self._gathered_steps(self.failed)

    @property
    def elements(self) -> tuple[int, ...]:
        """Its places in the lists of the steps with `each`, since what was gathered last."""
        return elements_of(self.plan, self._rows)

    @cached_property
    def values(self) -> dict[str, Any]:
        """What each step is called by, and each element and list."""
        return chain_values(self.plan, len(self.plan.steps), self.links())

    def links(self, upto: int | None = None, recipes: dict[int, int] | None = None) -> list[Link]:
        """Its rows as those that others are made of, up to that of step `upto`, without it. With
        `recipes`, theirs by their numbers, they are as they were sent, without edits."""
        parts = [part for part in self.parts if upto is None or part.number < upto]
        root = [Part(0, 0, self.first)] if self._is_gathered else []
        return [link_of(part, recipes) for part in (*root, *parts)]

    @property
    def _rows(self) -> tuple[Part, ...]:
        return (*self.parts, self.failed) if self.failed else self.parts

    @property
    def _is_gathered(self) -> bool:
        """Whether its first row is one of those that were gathered, or might have been."""
        return self.plan.steps[self._rows[0].number].gather is not None

    def _gathered_steps(self, part: Part) -> Iterator[tuple[str, list[tuple[Part, ...]]]]:
        before = self.plan.gathering_before(part.number)
        for number in range(before + 1, part.number):
            chains = dict[int, tuple[Part, ...]]()
            for chain in part.gathered:
                for place, one in enumerate(chain, 1):
                    if one.number == number:
                        chains[one.result.id] = chain[:place]
            yield self.plan.steps[number].name, list(chains.values())

    def _parsed(self) -> str | None:
        if self.failed:
            return None
        if self.own is None:
            return self.value or _NO_TEXT
        return parsed_value(self.plan, self.own)


def _results_of(parts: Sequence[Part]) -> Iterator[ResultRow]:
    """Of all rows, each once: those that were gathered, too."""
    seen = set[int]()
    for part in parts:
        for chain in (*part.gathered, (part,)):
            for one in chain:
                if one.result.id not in seen:
                    seen.add(one.result.id)
                    yield one.result


def parsed_json(part: Part) -> str:
    """What the parser made of the answer, or the function."""
    return part.result.parsed or part.result.response


def parsed_value(plan: Plan, part: Part) -> str | None:
    """What the step is called by, as JSON; None when it is the response."""
    if plan.steps[part.number].value == "parsed":
        return part.result.parsed
    response = loads(part.result.response)
    return dump_json(value_of(plan, part.number, part.result.parsed, response))


def link_of(part: Part, recipes: dict[int, int] | None) -> Link:
    """The row as one that others are made of; with `recipes` as these were."""
    row = part.result if recipes is None else as_stored(part.result)
    recipe_id = (recipes or {}).get(row.id, 0)
    return Link(
        row.id, row.experiment_id, part.number, recipe_id, row.result_seq, row.input,
        row.parsed, loads(row.response), None, row.sample, row.custom_id,
        tuple(tuple(link_of(one, recipes) for one in chain) for chain in part.gathered),
    )  # fmt: skip


def elements_of(plan: Plan, parts: Sequence[Part]) -> tuple[int, ...]:
    """The places of a row in the lists that it, and those above it, were made for."""
    elements = list[int]()
    for part in parts:
        rule = plan.steps[part.number]
        if rule.gather:
            elements.clear()
        elif rule.each:
            elements.append(part.element)
    return tuple(elements)


def _sum(numbers: Iterator[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None
