"""`failures`, `show` and `experiments` as text."""

import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from batchgen.clock import timestamp
from batchgen.display.commands import Commands
from batchgen.display.visible import visible_line
from batchgen.endpoints import parts_beside_text
from batchgen.jobs.experiments import ExperimentSummary
from batchgen.jobs.failures import FailedLike, Failures
from batchgen.jobs.show import ItemDetails, ShownPrompt
from batchgen.parsers import shown_spec
from batchgen.store import StoredAttempt


def failures_text(
    failures: Failures, commands: Commands, hint_of: Callable[[FailedLike], str]
) -> str:
    """`failures`, of one experiment; `hint_of` says what to do about a group."""
    is_clean = not failures.groups and not failures.left_out
    lines = [f"{failures.experiment}:{' no item failed.' if is_clean else ''}"]
    for one in failures.groups:
        group, example = one.group, f"({commands.show} {shlex.quote(one.example)})"
        lines.append(f"{group.n:>8}  {group.reason:<13} {visible_line(group.error)}   {example}")
        lines.append(f"{'':>10}{hint_of(one)}")
    if failures.left_out:
        lines.append(f"{failures.left_out:>8}  with other messages")
    if failures.calls:
        lines.append("  calls that failed, of these and of other items:")
    lines += [
        f"{calls.n:>8}  {calls.failure!s:<17} {visible_line(calls.newest_error)}"
        for calls in failures.calls
    ]
    return "\n".join(lines)


def item_text(details: ItemDetails) -> str:
    """`show`."""
    item = details.item
    head = f"item {item.id}"
    if item.custom_id:
        head += f" (id {visible_line(item.custom_id)})"
    if item.sample is not None:
        head += f", sample {item.sample},"
    head += f" of {item.experiment}: {item.state}"
    if item.reason:
        head += f", {item.reason}: {visible_line(item.error or '')}"
    lines = [head, "", "input:", _indent(_pretty(details.input))]
    lines += ["", "model and parameters:"]
    settings = {"endpoint": details.endpoint.name, **details.settings}
    lines += [_indent(f"{name}: {_pretty(value)}") for name, value in settings.items()]
    for title, value in _prompt_parts(details.prompt):
        lines += ["", f"{title}:", _indent(_pretty(value))]
    for number, call in enumerate(details.attempts, start=1):
        lines += ["", _call_line(number, call)]
        lines += map(_indent, _what_came_back(call))
    if item.state == "done":
        by = f"parsed, by {visible_line(shown_spec(item.parser or ''))}:"
        lines += ["", by, _indent(_pretty(details.parsed))]
    return "\n".join(lines)


def prompt_text(prompt: ShownPrompt) -> str:
    """The prompt as it is sent, each of its messages after an empty line."""
    return "\n".join(f"\n{title}:\n{_pretty(value)}" for title, value in _prompt_parts(prompt))


def _prompt_parts(prompt: ShownPrompt) -> Iterator[tuple[str, Any]]:
    """Messages by their roles, and what else there is by its name in the request."""
    for name, value in prompt.members.items():
        if name == prompt.conversation and isinstance(value, list):
            for one in value:
                is_message = isinstance(one, dict) and "role" in one
                yield (one["role"], one.get("content")) if is_message else (name, one)
        else:
            yield name, value


def _what_came_back(call: StoredAttempt) -> list[str]:
    """A text, and what came beside it; or the raw body."""
    if call.response is None:
        return [call.body] if call.body else []
    beside = parts_beside_text(call.body)
    texts = [call.response] if call.response else []
    if "reasoning" in beside:
        thought = ["reasoning:", _indent(_pretty(json.loads(beside["reasoning"])))]
        texts = [*thought, "", *texts] if texts else thought
    if "tool_calls" in beside:
        texts += ["tool calls:", _indent(_pretty(json.loads(beside["tool_calls"])))]
    return texts


def _call_line(number: int, call: StoredAttempt) -> str:
    parts = [f"attempt {number}: {call.outcome}"]
    if call.server:
        parts.append(f"server {call.server}")
    if call.reason:
        parts.append(f"{call.reason}: {visible_line(call.error or '')}")
    elif call.error:
        parts.append(f"but not parsed: {visible_line(call.error)}")
    if call.http_status is not None:
        parts.append(f"HTTP {call.http_status}")
    if call.latency_ms is not None:
        parts.append(f"{call.latency_ms / 1000:.2f} s")
    if call.finish_reason:
        parts.append(f"finish_reason {visible_line(call.finish_reason)}")
    if call.prompt_tokens is not None:
        parts.append(f"tokens {call.prompt_tokens}+{call.completion_tokens}")
    if call.cost_usd is not None:
        parts.append(f"${call.cost_usd:.6f}")
    return ", ".join(parts) + f"  ({timestamp(call.finished_at)})"


def experiments_text(found: Sequence[ExperimentSummary], commands: Commands) -> str:
    if not found:
        return f"No experiments yet: enqueue a data pool first ({commands.enqueue})."
    width = max(len(one.name) for one in found)
    return "\n".join(
        f"{one.name:<{width}}  {_local(one.experiment.created_at)}  total {one.counts.total}, "
        f"done {one.counts.done}, failed {one.counts.failed}"
        for one in found
    )


def _local(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC).astimezone():%Y-%m-%d %H:%M}"


def _pretty(value: Any) -> str:
    if isinstance(value, str):
        return value
    is_vector = isinstance(value, list) and bool(value) and {*map(type, value)} <= {int, float}
    return json.dumps(value, ensure_ascii=False, indent=None if is_vector else 2)


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.split("\n"))
