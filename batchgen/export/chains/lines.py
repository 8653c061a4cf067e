"""The lines that an export has of an item's chains, and what is in them by name. Pure."""

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any

from batchgen.export.chains.line import ChainLine, parsed_value
from batchgen.export.chains.walk import End, How, ItemRows, Part
from batchgen.export.lines import value_of
from batchgen.export.reviewed import REVIEW_NAMES
from batchgen.items import State
from batchgen.steps import Plan
from batchgen.store import ChainRow
from batchgen.where import NAMES, Where

_STATES = {State.DONE: How.ENDED, State.FAILED: How.FAILED, State.STALE: How.STALE}


def ends_of(item: ItemRows, step: int | None) -> Iterator[End]:
    """Of the item's chains or, as far as they go, of its rows of a step."""
    if step is None:
        return item.ends()
    rows = item.rows_of_step(step)
    return (End(_STATES.get(State(row.state), How.OPEN), row) for row in rows)


def line_of(item: ItemRows, plan: Plan, row: ChainRow, step: int | None) -> ChainLine | None:
    """The line of a chain that ended, or failed, with this row; with a `step`, of this row of it.
    None: something in it is no more."""
    parts, first = item.parts_up_to(row), item.first_of(row)
    if parts is None or first.result is None:
        return None
    if row.state == State.FAILED:
        return ChainLine(plan, row.item_id, first.result, parts[:-1], failed=parts[-1])
    if step is None:
        own, value = _result(plan, parts)
        ended = plan.steps[row.number].name
        return ChainLine(plan, row.item_id, first.result, parts, own, value, ended=ended)
    after, has_ended = item.done_after(row)
    whole = (*parts, *after)
    last = plan.steps[whole[-1].number].name if has_ended else None
    return ChainLine(plan, row.item_id, first.result, whole, parts[-1], ended=last)


def lines_of(
    plan: Plan, rows: Sequence[ChainRow], step: int | None, wanted: Collection[How]
) -> Iterator[tuple[How, ChainLine | None]]:
    """Of an item, whose rows these are: how each of its chains stands, or each row of a step; and
    its line, if that is `wanted` and nothing in it is stale."""
    item = ItemRows(plan, rows)
    for how, row in ends_of(item, step):
        line = None
        if how in wanted and row is not None:
            line = line_of(item, plan, row, step)
            how = how if line else How.STALE
        yield how, line


def chosen_lines(
    plan: Plan, rows: Sequence[ChainRow], step: str | None, states: Collection[State],
    where: Where | None,
) -> Iterator[ChainLine]:  # fmt: skip
    """The lines for an item, whose rows these are, that an export has of chains, or of rows of a
    step, in these states and for which a condition holds."""
    number = None if step is None else plan.number_of(step)
    for _, line in lines_of(plan, rows, number, {_STATES[state] for state in states}):
        if line is not None and (
            where is None or where.holds(partial(value_by_name, line, number))
        ):
            yield line


def names_in_lines(plan: Plan, step: str | None) -> tuple[str, ...]:
    """What a condition on a line may name: with a `step`, of the steps after it only those of which
    a chain has one row at most. Last what people said of it, unless steps have these names."""
    if step is None:
        own = plan.names_before(len(plan.steps))
    else:
        own = (*plan.names_before(plan.number_of(step) + 1), *_names_after(plan, step))
    return (*NAMES, *own, *review_names(plan))


def review_names(plan: Plan) -> tuple[str, ...]:
    """Those by which a condition means what people said."""
    of_steps = plan.names_before(len(plan.steps))
    return tuple(name for name in REVIEW_NAMES if name not in of_steps)


def steps_in_lines(plan: Plan, step: str | None) -> tuple[str, ...]:
    """The steps that a line may have."""
    if step is None:
        return tuple(rule.name for rule in plan.steps)
    before = (rule.name for rule in plan.steps[: plan.number_of(step) + 1])
    return (*before, *_names_after(plan, step))


def value_by_name(line: ChainLine, step: int | None, name: str) -> Any:
    """A value of the line, as `names_in_lines` has them; `step` is that of which it is a row."""
    if name in NAMES:
        return value_of(line.row, name)
    if name not in review_names(line.plan):
        return line.values.get(name)
    return line.verdict(step) if name == "review" else value_of(line.answering, name)


def _names_after(plan: Plan, step: str) -> Iterator[str]:
    for rule in plan.steps[plan.number_of(step) + 1 :]:
        if rule.each or rule.gather:
            break
        yield rule.name


def _result(plan: Plan, parts: tuple[Part, ...]) -> tuple[Part | None, str | None]:
    """Whose answer and value the line has: of the steps that say so the first that is there. Of one
    that was gathered, the list of the values, as JSON."""
    by_number = {part.number: part for part in parts}
    for number in map(plan.number_of, plan.result):
        if number in by_number:
            return by_number[number], None
        for part in parts:
            if plan.gathering_before(part.number) < number < part.number and part.gathered:
                return None, _values(plan, part, number)
    return None, None


def _values(plan: Plan, gathering: Part, number: int) -> str:
    found = {
        one.result.id: parsed_value(plan, one) or one.result.response
        for chain in gathering.gathered
        for one in chain
        if one.number == number
    }
    return f"[{', '.join(found.values())}]"
