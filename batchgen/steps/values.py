"""What each step of a chain is called by, for those after it."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

from batchgen.steps.links import Link
from batchgen.steps.plan import Plan
from batchgen.text.json_text import load_json

_CHARS_KEPT, _FEWEST_CHARS = 1 << 20, 1000


class _Read(NamedTuple):
    path: str
    parsed_json: str | None
    response: str | None
    value: Any

    @property
    def chars(self) -> int:
        return len(self.parsed_json or "") + len(self.response or "")


class Lists:
    """Values of which `each` makes rows: the newest ones, each read once for all of its elements.
    Nobody may change what is in them."""

    def __init__(self) -> None:
        self._read: OrderedDict[int, _Read] = OrderedDict()  # by result; the newest last
        self._chars = 0

    def value_of(self, plan: Plan, link: Link) -> Any:
        path = plan.steps[link.number].value
        known = self._read.get(link.result_seq)
        if known is not None and known[:3] == (path, link.parsed_json, link.response):
            # The newest texts: those of the rows that were claimed together are the same objects.
            texts = link.parsed_json, link.response
            self._read[link.result_seq] = _Read(path, *texts, known.value)
            self._read.move_to_end(link.result_seq)
            return known.value
        value = value_of(plan, link.number, link.parsed_json, link.response)
        self._keep(link.result_seq, _Read(path, link.parsed_json, link.response, value))
        return value

    def _keep(self, result_seq: int, read: _Read) -> None:
        if (before := self._read.pop(result_seq, None)) is not None:
            self._chars -= before.chars
        self._read[result_seq] = read
        self._chars += read.chars
        while self._chars > _CHARS_KEPT and len(self._read) > 1:
            self._chars -= self._read.popitem(last=False)[1].chars


def chain_values(
    plan: Plan, number: int, links: Sequence[Link], gathered: Sequence[Sequence[Link]] = (),
    lists: Lists | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What a row of step `number` sees that was made of these `links` and, of a gathering step, of
    those that are `gathered`: by their names the values of the steps before it, and the elements
    that these were made for. A step that was passed over is None.

    A gathering step, and those after it, see lists: those that were gathered, by the name of
    `gather`, and each step and element between the gathering before and this one, in the same
    order. The element of the row itself is in its own input. What is in `lists`, if given, is not
    read again.
    """
    values: dict[str, Any] = dict.fromkeys(plan.names_before(number))
    for link in links:
        _add(plan, values, link, lists)
    if number < len(plan.steps) and plan.steps[number].gather:
        _add_lists(plan, values, number, gathered)
    return values


def value_of(plan: Plan, number: int, parsed_json: str | None, response: str | None) -> Any:
    """What step `number` is called by, of this result of it."""
    rule = plan.steps[number]
    if rule.value == "response":
        return response
    parsed = response if parsed_json is None else load_json(parsed_json)
    if rule.value == "parsed":
        return parsed
    return plan.conditions(number).value.value({"parsed": parsed, "response": response}.get)


def _add(plan: Plan, values: dict[str, Any], link: Link, lists: Lists | None = None) -> None:
    rule = plan.steps[link.number]
    if rule.gather:
        _add_lists(plan, values, link.number, link.gathered)
    if rule.each:
        name = rule.each[0]
        values[name] = load_json(link.input_json).get(name)
    if lists is not None and _may_be_a_list(plan, link):
        values[rule.name] = lists.value_of(plan, link)
    else:
        values[rule.name] = value_of(plan, link.number, link.parsed_json, link.response)


def _may_be_a_list(plan: Plan, link: Link) -> bool:
    """A long one, of which rows are made."""
    if len(link.parsed_json or "") < _FEWEST_CHARS:
        return False
    return any(rule.each for rule in plan.steps[link.number + 1 :])


def _added(
    plan: Plan, link: Link, read: dict[tuple[int, int], dict[str, Any]]
) -> dict[str, Any]:  # fmt: skip
    """What a link adds. It is `read` once, as the elements of a list have it all in common."""
    key = (link.item_id, link.result_seq)
    if key not in read:
        read[key] = {}
        _add(plan, read[key], link)
    return read[key]


def _add_lists(
    plan: Plan, values: dict[str, Any], number: int, gathered: Sequence[Sequence[Link]]
) -> None:
    before = plan.gathering_before(number)
    seen, read = list[dict[str, Any]](), dict[tuple[int, int], dict[str, Any]]()
    for chain in gathered:  # they have in common what is up to the gathering before
        one = dict(values)
        for link in chain:
            if link.number > before:
                one |= _added(plan, link, read)
        seen.append(one)
    for rule in plan.steps[before + 1 : number]:
        for name in rule.names:
            values[name] = [one.get(name) for one in seen]
    gathering, last = plan.steps[number], plan.steps[number - 1]
    assert gathering.gather is not None
    values[gathering.gather] = [one.get(last.name) for one in seen]
