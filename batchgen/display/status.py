"""`status` as text, and what the displays of a run say of it in words."""

from collections.abc import Iterator, Mapping, Sequence

from batchgen.display.batch_words import unfinished_line
from batchgen.display.commands import Commands
from batchgen.display.held import waits_for, worker_held_back
from batchgen.display.steps import stale_lines, steps_table
from batchgen.display.times import wall_clock
from batchgen.jobs.experiments import ExperimentSummary
from batchgen.jobs.present_parser import Outdated
from batchgen.jobs.server_status import ServerStatus
from batchgen.jobs.status import ITEM_COLUMNS, Status, WorkerStatus
from batchgen.jobs.unknown_cost import UnknownCost
from batchgen.parsers import shown_spec
from batchgen.store import CallFailure, Counts, Experiment

_MOST_STATUSES = 4
_USUAL_ENDPOINTS = ("", "chat")
GONE = "gone: the next worker takes over its work"
SENDER_GONE = "gone: the next one goes on with its batches"
SENDS_BATCHES = "sends and collects provider batches"


def status_text(status: Status, commands: Commands) -> str:
    """`status`."""
    if not status.experiments:
        return f"The database is empty: enqueue a data pool first ({commands.enqueue})."
    plain = [one for one in status.experiments if not one.steps]
    lines = _experiments_table(plain) if plain else []
    for one in status.experiments:
        lines += [*([""] if lines else []), *steps_table(one)] if one.steps else []
    lines += [
        f"{one.name}: asked at the endpoint {one.endpoint}"
        for one in _experiments_of(status)
        if one.endpoint not in _USUAL_ENDPOINTS
    ]
    total = status.total
    if total.reasons:
        lines.append(f"\nfailed because of: {reasons_text(total)}   ({commands.failures})")
    cost = f", ${total.cost_usd:,.4f}" if total.cost_usd else ""
    lines.append(
        f"\ncalls {total.calls}, tokens {total.prompt_tokens} in, "
        f"{total.completion_tokens} out{cost}"
    )
    if total.failed_calls:
        failed = failed_calls_text(total.failed_calls)
        lines.append(f"calls that failed: {failed}   ({commands.failures} says more)")
    if status.cost_note:
        lines.append(status.cost_note)
    if status.items_per_s:
        by = " by calls" if any(one.runs_code for one in _experiments_of(status)) else ""
        lines.append(f"{status.items_per_s:.1f} {rate_unit(status)}{by} in the last minute")
    if status.learned_rpm:
        lines.append(learned_line(status.learned_rpm))
    if status.unknown.calls:
        lines.append(unknown_line(status.unknown))
    if status.batches:
        lines.append(f"{unfinished_line(status.batches, status.at_ms)}   ({commands.batches})")
    lines += [one.words for one in status.never_there]
    lines += stale_lines(status, commands)
    lines += [outdated_line(one, commands) for one in status.outdated.values()]
    lines += server_lines(status)
    for worker in status.workers:
        lines += _worker_lines(worker, status.at_ms, commands)
    if status.moved_to:
        lines = [moved_line(status.moved_to), "", *lines]
    return "\n".join(lines)


def gone_text(worker: WorkerStatus) -> str:
    """What becomes of what a dead worker had."""
    return SENDER_GONE if worker.sends_batches else GONE


def moved_line(moved_to: str) -> str:
    """What is shown is what the database was when it was moved."""
    return f"This database was moved to {moved_to}, and takes no more work: it is as it was then."


def rate_unit(status: Status) -> str:
    """What of it is done in a second: of an item with steps several rows are."""
    has_steps = status.steps or any(one.steps for one in status.experiments)
    return "rows/s" if has_steps else "items/s"


def _experiments_of(status: Status) -> Iterator[Experiment]:
    for one in status.experiments:
        yield from [step.experiment for step in one.steps] or [one.experiment]


def _experiments_table(experiments: Sequence[ExperimentSummary]) -> list[str]:
    """A line each, below the names of the columns."""
    values = ITEM_COLUMNS.values()
    rows = [["experiment", *ITEM_COLUMNS]]
    rows += [[one.name, *(str(value(one.counts)) for value in values)] for one in experiments]
    width, *widths = (max(8, *map(len, column)) for column in zip(*rows, strict=True))
    return [
        "  ".join([f"{name:<{width}}", *(f"{n:>{w}}" for n, w in zip(cells, widths, strict=True))])
        for name, *cells in rows
    ]


def reasons_text(counts: Counts) -> str:
    return ", ".join(f"{reason} {n:,}" for reason, n in counts.reasons.most_common())


def latency_text(status: Status, width: int = 0) -> str | None:
    """None: there is no answer yet. The numbers are `width` wide at least."""
    p50_s, p95_s = status.latency_p50_s, status.latency_p95_s
    if p50_s is None or p95_s is None:
        return None
    return f"p50 {p50_s:>{width}.2f} s, p95 {p95_s:>{width}.2f} s"


def outdated_line(outdated: Outdated, commands: Commands) -> str:
    """That values are not those of the present parser, and what mends it."""
    items = "1 item has" if outdated.n == 1 else f"{outdated.n:,} items have"
    spec, what = shown_spec(outdated.spec), "function" if outdated.runs_code else "parser"
    line = f"{outdated.experiment}: {items} the value of another {what} than {spec}"
    if outdated.problem:
        return f"{line}, which cannot be loaded: {outdated.problem}"
    if outdated.runs_code:
        return f"{line}; run again, without a call, by {commands.work}"
    return f"{line}; parsed again, without a call, by {commands.work} or {commands.reparse}"


def learned_line(rpm: float) -> str:
    return f"the server takes about {rpm:,.0f} requests/min (found by adaptive)"


def unknown_line(unknown: UnknownCost) -> str:
    """What was sent and perhaps charged for."""
    return (
        f"sent, answer unknown: {unknown.calls} "
        "(a worker died or was stopped, or a batch was lost; "
        f"the server may have charged for them: {_may_have_cost(unknown)})"
    )


def _may_have_cost(unknown: UnknownCost) -> str:
    cost_usd, tokens, known = unknown.max_cost_usd, unknown.max_tokens, unknown.known_calls
    some = "" if known == unknown.calls else f" for the {known} of which it is known"
    if cost_usd is not None:
        return f"at most ${cost_usd:,.4f}{some}"
    if tokens is not None:
        return f"at most {tokens:,} tokens{some}, whose price is not known (model.price)"
    return "how much is not known, as max_tokens is not set"


def failed_calls_text(failed_calls: Mapping[CallFailure, int] | Mapping[str, int]) -> str:
    """By how they failed; the most frequent first."""
    most = sorted(failed_calls.items(), key=lambda one: -one[1])
    return ", ".join(f"{status} x {n:,}" for status, n in most[:_MOST_STATUSES])


def retried_text(calls: int, failed_calls: Mapping[CallFailure, int]) -> str:
    """So many calls, and what they had brought."""
    failed = failed_calls_text(failed_calls)
    return f"retried {calls:,}{f' (failed calls: {failed})' if failed else ''}"


def server_lines(status: Status) -> list[str]:
    """A line each, where there are several."""
    servers = status.servers
    return [_server_line(one, status.at_ms) for one in servers] if len(servers) > 1 else []


def _server_line(server: ServerStatus, at_ms: int) -> str:
    line = (
        f"server {server.name}: {server.calls:,} calls, {server.in_flight} in flight, "
        f"{server.per_minute:,} answers in the last minute"
    )
    if server.left_out is not None:
        since = wall_clock(server.left_out_at, at_ms)
        line += f"; left out since {since}: {server.left_out.rstrip('.')}"
    elif held := waits_for(server, at_ms):
        since = f" since {wall_clock(server.trouble_at, at_ms)}" if server.trouble_at else ""
        line += f"; held back{since}: {held}"
    failed = failed_calls_text(server.failed_calls)
    return f"{line}; failed calls: {failed}" if failed else line


def servers_text(status: Status) -> str:
    """What each has in flight, where there are several; in one line."""
    servers = status.servers
    if len(servers) < 2:
        return ""
    return ", ".join(
        f"{one.name} {'left out' if one.left_out else f'{one.in_flight} in flight'}"
        for one in servers
    )


def _worker_lines(worker: WorkerStatus, at_ms: int, commands: Commands) -> list[str]:
    head = f"worker {worker.id}: pid {worker.pid} on {worker.host}, "
    if worker.sends_batches:
        is_held = worker_held_back(worker, at_ms, commands) or "alive"
        return [f"{head}{SENDS_BATCHES}, {is_held if worker.alive else gone_text(worker)}"]
    if not worker.alive:
        return [f"{head}{worker.slots} slots, {gone_text(worker)}"]
    why = f", {held}" if (held := worker_held_back(worker, at_ms, commands)) else ""
    if failed := failed_calls_text(worker.report.failed_calls):
        why += f"; failed calls: {failed}"
    lines = [f"{head}{worker.in_flight} of {worker.slots} slots in use, alive{why}"]
    if late_after_ms := worker.report.late_after_ms:
        lines += [
            f"  item {late.item_id}: under way for {(at_ms - late.began_at) / 1000:,.0f} s, where "
            f"{late_after_ms / 1000:,.1f} s is 3 times what 99 of 100 calls took"
            for late in worker.report.stragglers
        ]
    return lines
