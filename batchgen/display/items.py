"""`failures`, `show` and `experiments` as text."""

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from batchgen.clock import timestamp
from batchgen.display.batch_words import held_text
from batchgen.display.commands import Commands
from batchgen.display.visible import visible_line
from batchgen.endpoints import parts_beside_text
from batchgen.jobs.experiments import ExperimentSummary
from batchgen.jobs.failures import FailedLike, Failures
from batchgen.jobs.show import ChainDetails, ItemDetails, ShownPrompt
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
        of = "" if is_clean else ", of these and of other items"
        lines.append(f"  calls that failed{of}:")
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
    head += f" of {item.experiment}: {_state_of(details)}"
    return "\n".join([head, "", "input:", _indent(_pretty(details.input)), *_rest_of(details)])


def chain_text(details: ChainDetails, commands: Commands) -> str:
    """`show` of an item with steps: a line for each row, and below what was sent and came back,
    unless there are very many."""
    rows, item = details.rows, details.item
    named = f" (id {visible_line(item.custom_id)})" if item.custom_id else ""
    lines = [f"item {item.id}{named} of {item.experiment}"]
    if details.of_row is not None:
        all_of_it = f"{commands.show} {shlex.quote(str(details.id))}"
        lines[0] += f", the chain of row {details.of_row} (all its rows: {all_of_it})"
    names = [_place_text(row) for row in rows]
    width = max(map(len, names))
    lines += [
        f"  {row.item.id:>{len(str(rows[-1].item.id))}} {name:<{width}}  {_standing(row)}"
        for row, name in zip(rows, names, strict=True)
    ]
    if len(rows) > _MOST_ROWS or details.left_out:
        return "\n".join([*lines, "", *_about_the_rest(details, commands)])
    for row, name in zip(rows, names, strict=True):
        lines += ["", f"--- {name.strip()} ({row.item.id}): {_state_of(row)}"]
        lines += ["input:", _indent(_pretty(row.input))] if row.input else []
        lines += _rest_of(row)
    return "\n".join(lines)


def _about_the_rest(details: ChainDetails, commands: Commands) -> list[str]:
    """How many rows are not in the list, and which commands show more."""
    lines = list[str]()
    if details.left_out:
        own = details.id if details.of_row is None else details.of_row
        all_of_them = f"{commands.show} {shlex.quote(str(own))} --limit 0"
        more = ", ".join(
            f"{states.total():,} of {name} ({_states_text(states)})"
            for name, states in details.left_out.items()
        )
        lines.append(f"Not listed: {more}. All of them: {all_of_them}")
    own_chain = f"{commands.show} NUMBER, with the number of a row"
    return [*lines, f"All that was sent and came back in a row's own chain: {own_chain}"]


def _states_text(states: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {state}" for state, n in states.items())


LISTED_ROWS = 20  # of each step
_MOST_ROWS = 12
_LONGEST_VALUE = 60


def _place_text(row: ItemDetails) -> str:
    step, item = row.step, row.item
    assert step is not None
    name = "  " * step.number + step.name
    if item.sample is not None and step.number == 0:
        name += f" #{item.sample}"
    return name if step.element is None else f"{name}[{step.element}]"


def _standing(row: ItemDetails) -> str:
    """How it stands, what it took, and what came of it; in one line."""
    item, n = row.item, len(row.attempts)
    calls = "function" if row.function else f"{n} call{'' if n == 1 else 's'}"
    cost = f"${row.cost_usd:,.6f}" if row.cost_usd else ""
    value = ""
    if item.reason:
        value = f"{item.reason}: {visible_line(item.error or '')}"
    elif row.in_batch is not None:
        value = held_text(row.in_batch)
    elif item.state == "done":
        value = visible_line(json.dumps(row.parsed, ensure_ascii=False))
    shown = value if len(value) <= _LONGEST_VALUE else f"{value[: _LONGEST_VALUE - 3]}..."
    return f"{item.state:<8} {calls:<9} {cost:<9} {shown}".rstrip()


def _state_of(row: ItemDetails) -> str:
    item = row.item
    if item.reason:
        return f"{item.state}, {item.reason}: {visible_line(item.error or '')}"
    return f"{item.state}: {held_text(row.in_batch)}" if row.in_batch else item.state


def _rest_of(details: ItemDetails) -> list[str]:
    """What was sent, and what came of it."""
    item, lines = details.item, list[str]()
    if details.function is not None:
        lines += ["", f"function: {visible_line(shown_spec(details.function))}"]
    elif details.problem is not None:
        lines += ["", f"no request can be made of it: {visible_line(details.problem)}"]
    else:
        lines += ["", "model and parameters:"]
        settings = {"endpoint": details.endpoint.name, **details.settings}
        lines += [_indent(f"{name}: {_pretty(value)}") for name, value in settings.items()]
        for title, value in prompt_parts(details.prompt):
            lines += ["", f"{title}:", _indent(_pretty(value))]
    for number, call in enumerate(details.attempts, start=1):
        lines += ["", _call_line(number, call)]
        lines += map(_indent, _what_came_back(call))
    if item.state == "done":
        what = "value" if details.function else "parsed"
        by = f"{what}, by {visible_line(shown_spec(item.parser or ''))}:"
        lines += ["", by, _indent(_pretty(details.parsed))]
    return lines


def prompt_text(prompt: ShownPrompt) -> str:
    """The prompt as it is sent, each of its messages after an empty line."""
    return "\n".join(f"\n{title}:\n{_pretty(value)}" for title, value in prompt_parts(prompt))


def prompt_parts(prompt: ShownPrompt) -> Iterator[tuple[str, Any]]:
    """What is sent: messages by their roles, and what else there is by its name in the request."""
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
    if call.batch is not None:
        parts.append(f"in batch {call.batch}")
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
        f"{one.name:<{width}}  {_local(one.experiment.created_at)}  {_how_far(one)}"
        for one in found
    )


def _how_far(one: ExperimentSummary) -> str:
    counts = one.counts
    if not one.steps:
        return f"total {counts.total}, done {counts.done}, failed {counts.failed}"
    names = ", ".join(step.name for step in one.steps)
    return f"total {one.items}, ended {counts.ended}, failed {counts.failed}; steps {names}"


def _local(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC).astimezone():%Y-%m-%d %H:%M}"


def _pretty(value: Any) -> str:
    if isinstance(value, str):
        return value
    is_vector = isinstance(value, list) and bool(value) and {*map(type, value)} <= {int, float}
    return json.dumps(value, ensure_ascii=False, indent=None if is_vector else 2)


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.split("\n"))
