"""A result as a line of JSON: the stored texts are put into it as they are, without parsing. Also
whether a condition holds for it."""

from collections.abc import Callable, Mapping
from functools import partial
from json import JSONEncoder, loads
from typing import Any

from batchgen.clock import timestamp
from batchgen.store import ResultRow
from batchgen.where import Where

_quote = JSONEncoder(ensure_ascii=False).encode


def export_line(row: ResultRow, extras: Mapping[str, str | None] = {}) -> str:
    """One line of JSON, with its line break. `extras` are JSON text, or None, by name."""
    sample = "" if row.sample is None else f'"sample": {row.sample}, '
    done = row.reason is None
    end = "" if done else f', "reason": "{row.reason}", "error": {_json(row.error)}'
    end += "".join(f', "{name}": {text or "null"}' for name, text in extras.items())
    return (
        f'{{"id": {_id(row, row.id)}, {sample}"input": {row.input}, {_answer(row)}, '
        f'"metadata": {row.metadata or "null"}, {_call(row)}{end}}}\n'
    )


def group_head(row: ResultRow, first: int) -> str:
    """The beginning of the line for an item with all its samples, up to the list of them. `row` is
    one of the samples, `first` the number of the first."""
    return (
        f'{{"id": {_id(row, first)}, "input": {row.input}, '
        f'"metadata": {row.metadata or "null"}, "samples": ['
    )


def sample_object(row: ResultRow) -> str:
    """One sample in a line that `group_head` begins."""
    return f'{{"sample": {row.sample or 1}, {_answer(row)}, {_call(row)}}}'


def result_object(row: ResultRow) -> dict[str, Any]:
    """The line as an object, for Python; only failed items have `error`."""
    result: dict[str, Any] = loads(export_line(row))
    return result


def _id(row: ResultRow, number: int) -> str:
    return _json(row.custom_id) if row.custom_id else str(number)


def _answer(row: ResultRow) -> str:
    # Parser raw stores no second copy of the answer.
    parsed = "null" if row.reason is not None else row.parsed or row.response
    return f'"response": {row.response}, "parsed": {parsed}'


def _call(row: ResultRow) -> str:
    return (
        f'"model": {_json(row.model)}, "finish_reason": {_json(row.finish_reason)}, '
        f'"usage": {_usage(row)}, "cost_usd": {_json(row.cost_usd)}, '
        f'"attempts": {row.tries}, "timestamp": "{timestamp(row.finished_at)}"'
    )


def _usage(row: ResultRow) -> str:
    """Tokens as the server counted them; details only where the server gave them."""
    usage = (
        f'"prompt_tokens": {_json(row.prompt_tokens)}, '
        f'"completion_tokens": {_json(row.completion_tokens)}'
    )
    if row.cached_tokens is not None:
        usage += f', "cached_tokens": {row.cached_tokens}'
    if row.reasoning_tokens is not None:
        usage += f', "reasoning_tokens": {row.reasoning_tokens}'
    return f"{{{usage}}}"


def _json(value: str | float | None) -> str:
    if value is None:
        return "null"
    return _quote(value) if isinstance(value, str) else repr(value)


def matches(row: ResultRow, where: Where | None) -> bool:
    """Whether the condition holds for the row, by the names that it has in the export."""
    return where is None or where.holds(partial(value_of, row))


def value_of(row: ResultRow, name: str) -> Any:
    """A value of the row, by the name that it has in the export."""
    return _VALUES[name](row)


_VALUES: Mapping[str, Callable[[ResultRow], Any]] = {
    "id": lambda row: row.custom_id or row.id,
    "input": lambda row: loads(row.input),
    "metadata": lambda row: loads(row.metadata or "null"),
    "response": lambda row: loads(row.response),
    "parsed": lambda row: loads(row.parsed or row.response) if row.reason is None else None,
}
