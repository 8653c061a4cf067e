"""One result as a line of JSON: the stored texts are put into it as they are, without parsing."""

from collections.abc import Mapping
from json import JSONEncoder, loads
from typing import Any

from batchgen.items import timestamp
from batchgen.store import ResultRow

_quote = JSONEncoder(ensure_ascii=False).encode


def export_line(row: ResultRow, extras: Mapping[str, str | None] = {}) -> str:
    """One line of JSON, with its line break. `extras` are JSON text, or None, by name."""
    done = row.reason is None
    # Parser raw stores no second copy of the answer.
    parsed = (row.parsed or row.response) if done else "null"
    sample = "" if row.sample is None else f'"sample": {row.sample}, '
    end = "" if done else f', "reason": "{row.reason}", "error": {_json(row.error)}'
    end += "".join(f', "{name}": {text or "null"}' for name, text in extras.items())
    return (
        f'{{"id": {_json(row.custom_id) if row.custom_id else row.id}, '
        f'{sample}"input": {row.input}, '
        f'"response": {row.response}, "parsed": {parsed}, "metadata": {row.metadata or "null"}, '
        f'"model": {_json(row.model)}, "finish_reason": {_json(row.finish_reason)}, '
        f'"usage": {_usage(row)}, "cost_usd": {_json(row.cost_usd)}, '
        f'"attempts": {row.attempts}, "timestamp": "{timestamp(row.finished_at)}"{end}}}\n'
    )


def result_object(row: ResultRow) -> dict[str, Any]:
    """The line as an object, for Python; `error` is there for failed items only."""
    result: dict[str, Any] = loads(export_line(row))
    return result


def _usage(row: ResultRow) -> str:
    """Tokens as the server counted them; the details only where it gave them."""
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
