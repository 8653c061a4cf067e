"""Which rows are made of one that is done."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from batchgen.errors import ParseError
from batchgen.steps.links import Child, Followed, Link
from batchgen.steps.plan import NO_LIST, Plan
from batchgen.steps.values import value_of
from batchgen.text.json_text import content_of, dump_json

_HASH_BYTES = 8
_NO_HASH = bytes(_HASH_BYTES)
_KINDS = {str: "a text", bool: "true or false", int: "a number", float: "a number"}


def follow(
    plan: Plan,
    plan_id: int,
    number: int,
    links: Sequence[Link],
    item_names: Mapping[str, Any],
    seen: Mapping[str, Any],
    parsed_json: str | None,
    response: str | None,
    *,
    input_json: str = "{}",
    gathered: Sequence[Sequence[Link]] = (),
) -> Followed:
    """What follows a row of step `number`, when its result is this one. `links`, `input_json` and
    `gathered` are the row's own, and `seen` is what it sees of the steps before it, with its own
    element. `item_names` are the id, the input and the metadata of the chain's first row.

    It is the first step after it for which `when` holds; where one does not hold, `otherwise` says
    whether the chain ends. Nothing is made for a gathering step: whoever writes the last of its
    rows makes it. Raises ParseError where `each` finds no list, and nothing else: what is missing
    is None to conditions and paths.
    """
    try:
        value = value_of(plan, number, parsed_json, response)
        looks = plan.looks_at_values(number)
        names = {**item_names, **seen, plan.steps[number].name: value} if looks else {}
        children, passed_over = _next(plan, number, names)
        passed_on = _hash(number, links, input_json, gathered, value)
    except RecursionError:
        raise ParseError("what the parser returned is nested too deep") from None
    return Followed(plan_id, children, passed_over, passed_on)


def _next(plan: Plan, number: int, names: Mapping[str, Any]) -> tuple[tuple[Child, ...], int]:
    """The children, and how many steps were passed over."""
    for after in range(number + 1, len(plan.steps)):
        rule = plan.steps[after]
        passed_over = after - number - 1
        if rule.gather:
            return (), passed_over
        when = plan.conditions(after).when
        if when is None or when.holds(names.get):
            return _children(plan, after, names), passed_over
        if rule.otherwise == "end":
            return (), passed_over + 1
    return (), len(plan.steps) - number - 1


def _children(plan: Plan, number: int, names: Mapping[str, Any]) -> tuple[Child, ...]:
    rule, path = plan.steps[number], plan.conditions(number).each
    if rule.each is None or path is None:
        return (Child(number),)
    name, found = rule.each[0], path.value(names.get)
    if not isinstance(found, list):
        raise ParseError(
            f"step {rule.name} {NO_LIST} {path.text}, which is {_kind(found)}, not a list"
        )
    return tuple(
        Child(number, element, dump_json({name: one})) for element, one in enumerate(found)
    )


def _kind(value: Any) -> str:
    if value is None:
        return "missing or null"
    return _KINDS.get(type(value), "an object")


def _hash(
    number: int, links: Sequence[Link], input_json: str, gathered: Sequence[Sequence[Link]],
    value: Any,
) -> bytes:  # fmt: skip
    """Of all that those made of it see. What was gathered has all that came before it in it."""
    before = [chain[-1] for chain in gathered] or links[-1:]
    passed_on = b"".join([link.passed_on or _NO_HASH for link in before])
    own = input_json if number else ""  # that of the first step is the item, which stays the same
    content = b"%b%b%b\0%b" % (
        len(before).to_bytes(4), passed_on, own.encode(), content_of(value)
    )  # fmt: skip
    return blake2b(content, digest_size=_HASH_BYTES).digest()
