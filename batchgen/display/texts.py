"""What status, failures, show and experiments print: text for people, objects for `--json`."""

import json
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from batchgen.clock import timestamp
from batchgen.jobs.unknown_cost import UnknownCost
from batchgen.llm.responses import parts_beside_text
from batchgen.store import Counts, Experiment, FailureGroup, Pace, WorkerRow
from batchgen.worker.report import WorkerReport
from batchgen.worker.stragglers import percentile

_PAUSED = "paused (batchgen resume goes on)"
_STATES = ("pending", "running", "done", "failed")


def status_object(
    experiments: Sequence[tuple[Experiment, Counts]],
    total: Counts,
    pace: Pace,
    workers: Sequence[WorkerRow],
    unknown: UnknownCost,
    learned_rate: float | None,
    now: int,
) -> dict[str, Any]:
    """`batchgen status --json`, at `now` (epoch ms). `unknown` counts the calls of dead workers
    too, of which `total` does not know while nobody has taken over from them."""
    found = _counts_object(total) | {
        "unknown_calls": unknown.calls,
        "unknown_max_tokens": _known(unknown.tokens, unknown.bounded, unknown.calls),
        "unknown_max_cost_usd": _known(round(unknown.cost_usd, 6), unknown.priced, unknown.calls),
        "unknown_max_calls": unknown.priced or unknown.bounded,
    }
    return {
        "experiments": [
            {"name": experiment.name, "created_at": timestamp(experiment.created_at)}
            | _counts_object(counts)
            for experiment, counts in experiments
        ],
        "total": found,
        "items_per_s": round(pace.items / pace.span_s, 3),
        "learned_requests_per_minute": None if learned_rate is None else round(learned_rate, 1),
        "latency_p50_s": percentile_s(pace.latencies_ms, 0.5),
        "latency_p95_s": percentile_s(pace.latencies_ms, 0.95),
        "workers": [
            {
                "id": worker.id, "host": worker.host, "pid": worker.pid, "slots": worker.slots,
                "started_at": timestamp(worker.started_at), "alive": worker.alive,
                "paused": bool(worker.paused),
            }
            | (_reported(worker, now) if worker.alive else {})
            for worker in workers
        ],
    }  # fmt: skip


def _reported(worker: WorkerRow, now: int) -> dict[str, Any]:
    """What the table says of a worker, and what it reported some seconds ago at most."""
    report = WorkerReport.from_json(worker.report)
    late_after_ms = report.late_after_ms
    return {
        "in_flight": worker.calls,
        "waits_for": _PAUSED if worker.paused else report.waits_for,
        "late_after_s": None if late_after_ms is None else late_after_ms / 1000,
        "stragglers": [
            {"item": late.item_id, "for_s": round((now - late.began_at) / 1000, 1)}
            for late in report.stragglers
        ],
    }


def _known(most: float, known: int, calls: int) -> float | None:
    """Nothing where it is not known of any of the calls."""
    return most if known or not calls else None


def status_text(status: dict[str, Any]) -> str:
    """`batchgen status`, from its object."""
    if not status["experiments"]:
        return "The database is empty: enqueue a data pool first (batchgen enqueue)."
    width = max(len("experiment"), *(len(e["name"]) for e in status["experiments"]))
    lines = [f"{'experiment':<{width}}  {'total':>8}" + "".join(f"{s:>10}" for s in _STATES)]
    lines += [
        f"{e['name']:<{width}}  {e['total']:>8}" + "".join(f"{e[s]:>10}" for s in _STATES)
        for e in status["experiments"]
    ]
    total = status["total"]
    if total["reasons"]:
        reasons = ", ".join(f"{reason} {n}" for reason, n in total["reasons"].items())
        lines.append(f"\nfailed because of: {reasons}   (batchgen failures)")
    cost = f", ${total['cost_usd']:,.4f}" if total["cost_usd"] else ""
    lines.append(
        f"\ncalls {total['calls']}, tokens {total['prompt_tokens']} in, "
        f"{total['completion_tokens']} out{cost}"
    )
    if status["items_per_s"]:
        lines.append(f"{status['items_per_s']:.1f} items/s in the last minute")
    if learned := status["learned_requests_per_minute"]:
        lines.append(learned_line(learned))
    if total["unknown_calls"]:
        lines.append(unknown_line(total))
    lines += [line for worker in status["workers"] for line in _worker_lines(worker)]
    return "\n".join(lines)


def learned_line(requests_per_minute: float) -> str:
    return f"the server takes about {requests_per_minute:,.0f} requests/min (found by --adaptive)"


def unknown_line(total: dict[str, Any]) -> str:
    """What was sent and perhaps charged for, from the object's totals."""
    return (
        f"sent, answer unknown: {total['unknown_calls']} (calls of workers that died or were "
        f"stopped; the server may have charged for them: {_may_have_cost(total)})"
    )


def _may_have_cost(total: dict[str, Any]) -> str:
    cost_usd, tokens = total["unknown_max_cost_usd"], total["unknown_max_tokens"]
    known, calls = total["unknown_max_calls"], total["unknown_calls"]
    some = "" if known == calls else f" for the {known} of which it is known"
    if cost_usd is not None:
        return f"at most ${cost_usd:,.4f}{some}"
    if tokens is not None:
        return f"at most {tokens:,} tokens{some}, whose price is not known (model.price)"
    return "how much is not known, as max_tokens is not set"


def failures_text(experiment: str, groups: Sequence[FailureGroup]) -> str:
    if not groups:
        return f"{experiment}: nothing failed."
    lines = [f"{experiment}:"]
    lines += [
        f"{group.n:>8}  {group.reason:<13} {group.error}   (batchgen show {group.example})"
        for group in groups
    ]
    return "\n".join(lines)


def item_object(item: dict[str, Any], messages: list[dict[str, Any]] | None) -> dict[str, Any]:
    """`batchgen show --json`: the item, what was sent, and every attempt with what came back."""
    ended = item["finished_at"] is not None
    answered = [call for call in item["calls"] if call["outcome"] == "answered"]
    parsed = item["parsed"]
    if item["state"] == "done":
        parsed = json.loads(parsed) if parsed is not None else answered[-1]["response"]
    return {
        "id": item["custom_id"] or item["id"],
        "number": item["id"],
        **({} if item["sample"] is None else {"sample": item["sample"]}),
        "experiment": item["experiment"],
        "state": item["state"] or "dropped",
        "reason": item["reason"],
        "error": item["error"],
        "input": json.loads(item["input"]),
        "messages": messages,
        "parsed": parsed,
        "finished_at": timestamp(item["finished_at"]) if ended else None,
        "attempts": [
            {**call, "finished_at": timestamp(call["finished_at"])} for call in item["calls"]
        ],
    }


def item_text(shown: dict[str, Any]) -> str:
    """`batchgen show`, from its object."""
    head = f"item {shown['number']}"
    if shown["id"] != shown["number"]:
        head += f" (id {shown['id']})"
    if "sample" in shown:
        head += f", sample {shown['sample']},"
    head += f" of {shown['experiment']}: {shown['state']}"
    if shown["reason"]:
        head += f", {shown['reason']}: {shown['error']}"
    lines = [head, "", "input:", _indent(_pretty(shown["input"]))]
    for message in shown["messages"] or []:
        content = message.get("content")
        text = content if isinstance(content, str) else _pretty(content)
        lines += ["", f"{message.get('role')}:", _indent(text)]
    for number, call in enumerate(shown["attempts"], start=1):
        lines += ["", _call_line(number, call)]
        lines += map(_indent, _said(call))
    if shown["state"] == "done":
        lines += ["", "parsed:", _indent(_pretty(shown["parsed"]))]
    return "\n".join(lines)


def _said(call: dict[str, Any]) -> list[str]:
    """What came back: a text, and what it had beside that; or the raw body."""
    if call["response"] is None:
        return [call["body"]] if call["body"] else []
    beside = parts_beside_text(call["body"])
    said = [call["response"]] if call["response"] else []
    if "reasoning" in beside:
        thought = ["reasoning:", _indent(_pretty(json.loads(beside["reasoning"])))]
        said = [*thought, "", *said] if said else thought
    if "tool_calls" in beside:
        said += ["tool calls:", _indent(_pretty(json.loads(beside["tool_calls"])))]
    return said


def experiments_text(rows: Sequence[tuple[Experiment, Counts]]) -> str:
    if not rows:
        return "No experiments yet: enqueue a data pool first (batchgen enqueue)."
    width = max(len(experiment.name) for experiment, _ in rows)
    return "\n".join(
        f"{experiment.name:<{width}}  {_local(experiment.created_at)}  total {counts.total}, "
        f"done {counts.done}, failed {counts.failed}"
        for experiment, counts in rows
    )


def _counts_object(counts: Counts) -> dict[str, Any]:
    return {
        "total": counts.total,
        **{state: getattr(counts, state) for state in _STATES},
        "reasons": dict(counts.reasons.most_common()),
        "calls": counts.calls,
        "unknown_calls": counts.unknown_calls,
        "latency_ms": counts.latency_ms,
        "prompt_tokens": counts.prompt_tokens,
        "completion_tokens": counts.completion_tokens,
        "cached_tokens": counts.cached_tokens,
        "reasoning_tokens": counts.reasoning_tokens,
        "cost_usd": round(counts.cost_usd, 6),
    }


def _worker_lines(worker: dict[str, Any]) -> list[str]:
    head = f"worker {worker['id']}: pid {worker['pid']} on {worker['host']}, "
    if not worker["alive"]:
        slots = f"{worker['slots']} slots"
        return [f"{head}{slots}, gone: the next worker takes over its items"]
    why = f", {worker['waits_for']}" if worker["waits_for"] else ""
    lines = [f"{head}{worker['in_flight']} of {worker['slots']} slots in use, alive{why}"]
    lines += [
        f"  item {late['item']}: under way for {late['for_s']:,.0f} s, where "
        f"{worker['late_after_s']:,.1f} s is 3 times what 99 of 100 calls took"
        for late in worker["stragglers"]
        if worker["late_after_s"] is not None
    ]
    return lines


def _call_line(number: int, call: dict[str, Any]) -> str:
    parts = [f"attempt {number}: {call['outcome']}"]
    if call["reason"]:
        parts.append(f"{call['reason']}: {call['error']}")
    elif call["error"]:
        parts.append(f"but not parsed: {call['error']}")
    if call["http_status"] is not None:
        parts.append(f"HTTP {call['http_status']}")
    if call["latency_ms"] is not None:
        parts.append(f"{call['latency_ms'] / 1000:.2f} s")
    if call["finish_reason"]:
        parts.append(f"finish_reason {call['finish_reason']}")
    if call["prompt_tokens"] is not None:
        parts.append(f"tokens {call['prompt_tokens']}+{call['completion_tokens']}")
    if call["cost_usd"] is not None:
        parts.append(f"${call['cost_usd']:.6f}")
    return ", ".join(parts) + f"  ({call['finished_at']})"


def percentile_s(latencies_ms: Collection[int], fraction: float) -> float | None:
    """The nearest-rank percentile, in seconds; None of nothing."""
    if not latencies_ms:
        return None
    return percentile(sorted(latencies_ms), fraction) / 1000


def _local(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC).astimezone():%Y-%m-%d %H:%M}"


def _pretty(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, indent=2)


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
