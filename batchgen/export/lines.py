"""A result as a line of JSON: the stored texts are put into it as they are, without parsing. Also
whether a condition holds for it."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from json import loads
from typing import Any

from batchgen.clock import timestamp
from batchgen.export.reviewed import REVIEW_VALUES
from batchgen.store import ResultRow
from batchgen.text.json_text import text_json
from batchgen.where import Where

_known_json = lru_cache(maxsize=100)(text_json)  # models, and how their answers end, are few
_known_time = lru_cache(maxsize=100)(timestamp)  # what ended in one exchange did at the same time


def export_line(row: ResultRow, extras: Mapping[str, str | None] = {}) -> str:
    """One line of JSON, with its line break. `extras` are JSON text, or None, by name."""
    sample = "" if row.sample is None else f'"sample": {row.sample}, '
    done = row.reason is None
    end = "" if done else f', "reason": "{row.reason}", "error": {_json(row.error)}'
    if extras:
        end += "".join(f', "{name}": {text or "null"}' for name, text in extras.items())
    return (
        f'{{"id": {id_text(row)}, {sample}"input": {row.input}, {answer_text(row)}, '
        f'"metadata": {row.metadata or "null"}, {call_text(row)}{end}}}\n'
    )


def group_head(row: ResultRow, first: int, name: str = "samples") -> str:
    """The beginning of the line for an item with all its samples, up to the list of them, which is
    called `name`. `row` is one of the samples, `first` the number of the first."""
    return (
        f'{{"id": {id_text(row, first)}, "input": {row.input}, '
        f'"metadata": {row.metadata or "null"}, "{name}": ['
    )


def sample_object(row: ResultRow, more: str = "") -> str:
    """One sample in a line that `group_head` begins; `more` is what else is said of it."""
    return f'{{"sample": {row.sample or 1}, {answer_text(row)}, {call_text(row)}{more}}}'


def result_object(row: ResultRow) -> dict[str, Any]:
    """The line as an object, for Python; only failed items have `error`."""
    result: dict[str, Any] = loads(export_line(row))
    return result


def id_text(row: ResultRow, number: int | None = None) -> str:
    """The user's id, or the number of the item."""
    return _json(row.custom_id) if row.custom_id else str(number or row.id)


def answer_text(row: ResultRow) -> str:
    """The answer and its value, in a JSON object."""
    # Parser raw stores no second copy of the answer.
    parsed = "null" if row.reason is not None else row.parsed or row.response
    return f'"response": {row.response}, "parsed": {parsed}'


def call_text(row: ResultRow) -> str:
    """What is known of its calls, in a JSON object."""
    return f'{use_text(row)}, "timestamp": "{_known_time(row.finished_at)}"'


def use_text(row: ResultRow) -> str:
    """The same without the time. Tokens as the server counted them; details only where the server
    gave them."""
    prompt_tokens, completion_tokens = row.prompt_tokens, row.completion_tokens
    cached_tokens, reasoning_tokens = row.cached_tokens, row.reasoning_tokens
    cached = "" if cached_tokens is None else f', "cached_tokens": {cached_tokens}'
    reasoning = "" if reasoning_tokens is None else f', "reasoning_tokens": {reasoning_tokens}'
    cost_usd = row.cost_usd
    return (
        f'"model": {_known_json(row.model)}, "finish_reason": {_known_json(row.finish_reason)}, '
        f'"usage": {{"prompt_tokens": {"null" if prompt_tokens is None else prompt_tokens}, '
        f'"completion_tokens": {"null" if completion_tokens is None else completion_tokens}'
        f'{cached}{reasoning}}}, "cost_usd": {"null" if cost_usd is None else repr(cost_usd)}, '
        f'"attempts": {row.tries}'
    )


def _json(value: str | float | None) -> str:
    if value is None:
        return "null"
    return text_json(value) if isinstance(value, str) else repr(value)


def matches(row: ResultRow, where: Where | None) -> bool:
    """Whether the condition holds for the row, by the names that it has in the export."""
    return where is None or where.holds(partial(value_of, row))


def value_of(row: ResultRow, name: str) -> Any:
    """A value of the row, by the name that it has in the export, or of what was said of it."""
    return _VALUES[name](row)


_VALUES: Mapping[str, Callable[[ResultRow], Any]] = {
    "id": lambda row: row.custom_id or row.id,
    "input": lambda row: loads(row.input),
    "metadata": lambda row: loads(row.metadata or "null"),
    "response": lambda row: loads(row.response),
    "parsed": lambda row: loads(row.parsed or row.response) if row.reason is None else None,
    **REVIEW_VALUES,
}
