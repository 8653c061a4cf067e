"""Lines of an export of chains as JSON: the stored texts are put into it as they are."""

from collections.abc import Mapping, Sequence

from batchgen.export.chains.line import ChainLine, elements_of
from batchgen.export.chains.walk import Part
from batchgen.export.lines import answer_text, call_text, group_head, id_text, use_text
from batchgen.export.reviewed import EDITED, is_edited
from batchgen.steps import Plan
from batchgen.text.json_text import text_json


def chain_text(line: ChainLine, extras: Mapping[str, str | None] = {}) -> str:
    """One line of JSON, with its line break. `extras` are JSON text, or None, by name."""
    row = line.row
    more = "".join(f', "{name}": {text or "null"}' for name, text in extras.items())
    return (
        f'{{"id": {id_text(row)}, {_place(row.sample, line.elements)}"input": {row.input}, '
        f"{_course(line)}, "
        f'"metadata": {row.metadata or "null"}, {call_text(row)}{_failure(line)}{more}}}\n'
    )


def chain_object(line: ChainLine) -> str:
    """One chain in a line that `group_head` begins."""
    place = _place(line.row.sample, line.elements)
    return f"{{{place}{_course(line)}, {call_text(line.row)}{_edited(line.has_edits)}}}"


def chains_head(line: ChainLine) -> str:
    """The beginning of the line for an item with all its chains, up to the list of them."""
    return group_head(line.row, line.item_id, "chains")


def _course(line: ChainLine) -> str:
    ended = "null" if line.ended is None else text_json(line.ended)
    return f'{answer_text(line.row)}, "ended": {ended}, "steps": {_steps(line)}'


def _failure(line: ChainLine) -> str:
    if line.failed_step is None:
        return ""
    error = "null" if line.row.error is None else text_json(line.row.error)
    reason = line.row.reason
    return f', "failed": {text_json(line.failed_step)}, "reason": "{reason}", "error": {error}'


def _steps(line: ChainLine) -> str:
    parts = []
    for name, found in line.steps():
        text = _rows(line.plan, found) if isinstance(found, list) else _entry(line.plan, (found,))
        parts.append(f"{text_json(name)}: {text}")
    return f"{{{', '.join(parts)}}}"


def _rows(plan: Plan, chains: Sequence[tuple[Part, ...]]) -> str:
    return f"[{', '.join([_entry(plan, chain, _place_of(plan, chain)) for chain in chains])}]"


def _place_of(plan: Plan, chain: Sequence[Part]) -> str:
    return _place(chain[0].result.sample, elements_of(plan, chain))


def _place(sample: int | None, elements: Sequence[int]) -> str:
    """Where in the item it stands; as the first of what is said of it."""
    text = "" if sample is None else f'"sample": {sample}, '
    if len(elements) == 1:
        return f'{text}"element": {elements[0]}, '
    return f'{text}"element": {list(elements)}, ' if elements else text


def _entry(plan: Plan, chain: Sequence[Part], place: str = "") -> str:
    """Of the last row: with its element, where it was made for one."""
    part = chain[-1]
    given = f'"input": {part.result.input}, ' if plan.steps[part.number].each else ""
    edited = _edited(is_edited(part.result))
    return f"{{{place}{given}{answer_text(part.result)}, {use_text(part.result)}{edited}}}"


def _edited(edited: bool) -> str:
    return f', "{EDITED}": true' if edited else ""
