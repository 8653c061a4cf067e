"""Chains as tables: each step has columns of its own, `draft.parsed`, `critique.parsed.score`.
Those of a step that was gathered are lists."""

from collections.abc import Iterator, Sequence
from json import loads
from typing import Any

from batchgen.export.chains.line import ChainLine, parsed_json
from batchgen.export.chains.lines import steps_in_lines
from batchgen.export.chains.walk import Part
from batchgen.export.columns import GROUPS, calls_of, scalars_of
from batchgen.export.lines import value_of
from batchgen.export.parquet_table import CALL_KINDS, Kind, ParquetColumns, last_columns
from batchgen.export.value_type import ValueType
from batchgen.export.writer import Content
from batchgen.steps import Plan

FAILURE = ("failed", "reason", "error")
_STEP_DEPTH = 1 + GROUPS["parsed"]  # critique.parsed.user.name


def column_groups(plan: Plan, step: str | None) -> dict[str, int]:
    """The values that have columns for their fields, and how deep."""
    each = {"element": 1} if _lists(plan, step) else {}
    groups = {name: depth for name, depth in GROUPS.items() if name != "metadata"}
    steps = dict.fromkeys(steps_in_lines(plan, step), _STEP_DEPTH)
    return {**each, **groups, "ended": 1, **steps, "metadata": GROUPS["metadata"]}


class ChainCells:
    """A line as a table has it."""

    def __init__(self, line: ChainLine) -> None:
        self._line = line

    def groups(self) -> Iterator[tuple[str, Any]]:
        line = self._line
        if line.elements:
            yield "element", element_of(line)
        yield "input", loads(line.row.input)
        yield "response", loads(line.row.response)
        if line.failed is None:
            yield "parsed", value_of(line.row, "parsed")
        yield "ended", line.ended
        for name, found in line.steps():
            yield name, _cells(line.plan, found)
        yield "metadata", loads(line.row.metadata or "null")

    def value_of(self, group: str) -> Any:
        return dict(self.groups()).get(group)

    def scalars(self) -> dict[str, Any]:
        return {**scalars_of(self._line.row), "failed": self._line.failed_step}


def element_of(line: ChainLine) -> int | list[int] | None:
    """A list where it is in lists of several steps."""
    elements = list(line.elements)
    return elements[0] if len(elements) == 1 else elements or None


def see_chain_columns(content: Content, line: ChainLine) -> None:
    """The columns that the line needs."""
    content.columns.see(ChainCells(line), is_sample=line.row.sample is not None)


# Parquet


def see_chain_types(types: dict[str, ValueType], content: Content, line: ChainLine) -> None:
    """Take the values of the line into account for the types of their columns; `types` are those of
    the steps."""
    if line.failed is None:
        content.parsed_type.see(value_of(line.row, "parsed"))
    for name, found in line.steps():
        types[name].see(loads(_parsed(line.plan, found)))


def parquet_columns(
    content: Content, plan: Plan, step: str | None, types: dict[str, ValueType]
) -> ParquetColumns:  # fmt: skip
    columns: list[tuple[str, Kind]] = [("id", "text")]
    columns += [("sample", "count")] if content.has_samples else []
    lists = _lists(plan, step)
    columns += [("element", "count" if lists == 1 else "[count]")] if lists else []
    columns += [("input", "json"), ("response", "text"), ("parsed", content.parsed_type)]
    columns += [("ended", "text")]
    for name, type_ in types.items():
        is_list = _is_gathered(plan, name, list(types))
        has_each = plan.steps[plan.number_of(name)].each is not None
        columns += [(f"{name}.input", "json")] if has_each else []
        columns += [(f"{name}.parsed", type_)]
        columns += [
            (f"{name}.{column}", f"[{kind}]" if is_list else kind)
            for column, kind in (("response", "text"), *CALL_KINDS)
        ]
    columns += [("metadata", "json"), *CALL_KINDS, ("timestamp", "time")]
    columns += [(name, "text") for name in FAILURE] if content.has_failed else []
    return [*columns, *last_columns(content)]


def parquet_record(line: ChainLine, step: str | None) -> dict[str, Any]:
    row, plan = line.row, line.plan
    cells = {
        f"{name}.{column}": cell
        for name, found in line.steps()
        for column, cell in (_cells(plan, found) | _texts(plan, found)).items()
    }
    elements = list(line.elements) or None
    return scalars_of(row) | cells | {
        "id": row.custom_id or str(row.id),
        "element": elements[0] if elements and _lists(plan, step) == 1 else elements,
        "input": row.input,
        "response": loads(row.response),
        "parsed": (row.parsed or row.response) if line.failed is None else None,
        "ended": line.ended,
        "metadata": None if row.metadata == "null" else row.metadata,
        "timestamp": row.finished_at,
        "failed": line.failed_step,
    }  # fmt: skip


def _lists(plan: Plan, step: str | None) -> int:
    """How many lists a line is an element of, at most: since what was gathered last."""
    numbers = list(map(plan.number_of, steps_in_lines(plan, step)))
    since = max((number for number in numbers if plan.steps[number].gather), default=-1)
    return sum(number > since and plan.steps[number].each is not None for number in numbers)


def _is_gathered(plan: Plan, name: str, shown: Sequence[str]) -> bool:
    """Whether lines have several rows of the step; `shown` are all that they have."""
    number, last = plan.number_of(name), plan.number_of(shown[-1])
    later = plan.steps[number + 1 : last + 1]
    return plan.steps[number].gather is None and any(rule.gather for rule in later)


def _cells(plan: Plan, found: Part | list[tuple[Part, ...]]) -> dict[str, Any]:
    if isinstance(found, Part):
        given = {"input": loads(found.result.input)} if plan.steps[found.number].each else {}
        parsed, response = loads(parsed_json(found)), loads(found.result.response)
        return {**given, "parsed": parsed, "response": response, **calls_of(found.result)}
    rows = [_cells(plan, chain[-1]) for chain in found]
    names = rows[0] if rows else {}
    return {name: [row[name] for row in rows] for name in names}


def _texts(plan: Plan, found: Part | list[tuple[Part, ...]]) -> dict[str, str]:
    """The cells that are JSON."""
    if isinstance(found, Part):
        given = {"input": found.result.input} if plan.steps[found.number].each else {}
        return {**given, "parsed": parsed_json(found)}
    rows = [_texts(plan, chain[-1]) for chain in found]
    names = rows[0] if rows else {"parsed": ""}
    return {name: f"[{', '.join([row[name] for row in rows])}]" for name in names}


def _parsed(plan: Plan, found: Part | list[tuple[Part, ...]]) -> str:
    return _texts(plan, found)["parsed"]
