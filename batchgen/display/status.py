"""`status` as text, and what the displays of a run say of it in words."""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from msgspec.structs import replace

from batchgen.display.commands import Commands
from batchgen.display.steps import stale_lines, steps_table
from batchgen.jobs.experiments import ExperimentSummary
from batchgen.jobs.present_parser import Outdated
from batchgen.jobs.server_status import ServerStatus
from batchgen.jobs.status import ITEM_COLUMNS, Status, WorkerStatus
from batchgen.jobs.unknown_cost import UnknownCost
from batchgen.parsers import shown_spec
from batchgen.store import CallFailure, Counts, Experiment
from batchgen.worker.report import BudgetWait, Held, HeldBy, WorkerReport

_LIMITS = {
    "rpm": " (the limit of requests)",
    "tpm": " (the limit of tokens)",
}
_HELD = {  # without figures
    HeldBy.ORDER: "paused",
    HeldBy.HALT: "halted: waiting for the calls in flight",
    HeldBy.FIRST: "few calls go out until the first answer",
    HeldBy.MORE: "nothing is left: it waits for more items",
}
# What holds one worker holds all.
_SHARED = frozenset({HeldBy.LIMIT, HeldBy.BUDGET, HeldBy.SLOTS})
_MOST_STATUSES = 4
_USUAL_ENDPOINTS = ("", "chat")
_SOON_MS, _A_DAY_MS = 10 * 60_000, 24 * 3_600_000

_TOLD_TO_STOP = "told to stop: what is in flight is finished first"
_TOLD_TO_PAUSE = "told to pause, not followed yet"
_TOLD_TO_GO_ON = "told to go on, not followed yet"
GONE = "gone: the next worker takes over its work"


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
    lines += [one.words for one in status.never_there]
    lines += stale_lines(status, commands)
    lines += [outdated_line(one, commands) for one in status.outdated.values()]
    lines += server_lines(status)
    for worker in status.workers:
        lines += _worker_lines(worker, status.at_ms, commands)
    if status.moved_to:
        lines = [moved_line(status.moved_to), "", *lines]
    return "\n".join(lines)


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
        f"sent, answer unknown: {unknown.calls} (calls of workers that died or were stopped; the "
        f"server may have charged for them: {_may_have_cost(unknown)})"
    )


def _may_have_cost(unknown: UnknownCost) -> str:
    cost_usd, tokens, known = unknown.max_cost_usd, unknown.max_tokens, unknown.known_calls
    some = "" if known == unknown.calls else f" for the {known} of which it is known"
    if cost_usd is not None:
        return f"at most ${cost_usd:,.4f}{some}"
    if tokens is not None:
        return f"at most {tokens:,} tokens{some}, whose price is not known (model.price)"
    return "how much is not known, as max_tokens is not set"


def waits_for(one: WorkerStatus | ServerStatus, at_ms: int) -> str | None:
    """Why a worker sends, or a server is sent, less than it could be; None: it is not."""
    if isinstance(one, ServerStatus):
        return (one.held_by and _held_text(one.held_by, one.trouble, at_ms)) or None
    if one.stop:
        return "told to stop" if one.stop == "now" else _TOLD_TO_STOP
    if one.paused != one.report.paused:
        return _TOLD_TO_PAUSE if one.paused else _TOLD_TO_GO_ON
    if one.paused:
        return _HELD[HeldBy.ORDER]
    held = one.report.held_by
    return (held and _held_text(held, one.report.trouble, at_ms)) or None


def worker_held_back(worker: WorkerStatus, at_ms: int, commands: Commands) -> str | None:
    """The same, and what can be done about it."""
    if worker.paused and worker.report.paused and not worker.stop:
        return f"paused ({commands.resume} goes on)"
    return waits_for(worker, at_ms)


def failed_calls_text(failed_calls: Mapping[CallFailure, int] | Mapping[str, int]) -> str:
    """By how they failed; the most frequent first."""
    most = sorted(failed_calls.items(), key=lambda one: -one[1])
    return ", ".join(f"{status} x {n:,}" for status, n in most[:_MOST_STATUSES])


def retried_text(calls: int, failed_calls: Mapping[CallFailure, int]) -> str:
    """So many calls, and what they had brought."""
    failed = failed_calls_text(failed_calls)
    return f"retried {calls:,}{f' (failed calls: {failed})' if failed else ''}"


def _held_text(held: Held, trouble: str, at_ms: int) -> str:
    """Empty when it is over in a moment."""
    because = f": {trouble}" if trouble else ""
    wait_s = ((held.until_ms or 0) - at_ms) / 1000
    match held.by:
        case HeldBy.OUTAGE:
            again = f", asked again in {duration(math.ceil(wait_s))}" if wait_s > 0 else ""
            return f"the server answers nobody{again}{because}"
        case HeldBy.PAUSE:
            return f"paused for {duration(math.ceil(wait_s))}{because}" if wait_s >= 1 else ""
        case HeldBy.ANNOUNCED:
            return f"the server says that it has no room until {_clock(held.until_ms, at_ms)}"
        case HeldBy.BUDGET:
            return _budget_text(held.budget)
        case HeldBy.LIMIT:
            return _limit_text(held)
        case HeldBy.SLOTS:
            return _slots_text(held)
        case HeldBy.REFUSALS:
            what = f"{100 * (held.share or 0):.0f} % of the calls are refused"
            return f"{what} ({held.refused_with}); they are sent again"
        case HeldBy.ITEMS:
            return f"what is left waits for its next try, until {_clock(held.until_ms, at_ms)}"
        case _:
            return _HELD[held.by]


def _budget_text(wait: BudgetWait | None) -> str:
    if wait is None:
        return "held by the budget"
    if not wait.cost_usd:
        what = f"{wait.tokens:,} tokens"
    else:
        what = f"${wait.cost_usd:,.2f}" if wait.cost_usd >= 0.01 else f"${wait.cost_usd:,.4f}"
    if not wait.max_tokens:  # of an embedding
        return f"held by the budget: {what} are reserved for a call"
    return f"held by the budget: max_tokens {wait.max_tokens} reserves {what} a call; lower it"


def _limit_text(held: Held) -> str:
    rpm = held.per_minute or 0.0
    if held.limit == "sought":
        return f"finding out what the server takes: {rpm:,.0f} requests/min so far"
    if held.limit == "learned":
        return f"{_at_most(rpm)}: as many as the server takes, by its 429s"
    which = _LIMITS.get(held.limit or "", "")
    if 0 < rpm < 1:
        return f"limited to one call in {1 / rpm:,.1f} min{which}"
    return f"limited to about {rpm:,.0f} requests/min{which}"


def _at_most(rpm: float) -> str:
    return (
        f"holding to about {rpm:,.0f} requests/min"
        if rpm >= 1
        else f"holding to one call in {1 / rpm:,.1f} min"
    )


def _slots_text(held: Held) -> str:
    if held.slots == 0:
        return "other workers have all the calls that the server takes at once"
    calls = "1 call" if held.slots == 1 else f"{held.slots} calls"
    why = f" ({held.refused_with})" if held.refused_with else ""
    if held.share is not None:
        share = f"{100 * held.share:.0f} % of the newest calls are refused"
        return f"holding to {calls} at once: {share}{why}"
    return f"holding to {calls} at once: the server refuses more{why}"


def _clock(until_ms: int | None, at_ms: int) -> str:
    """When it is, on the clock of the wall."""
    at = datetime.fromtimestamp((until_ms or 0) / 1000, UTC).astimezone()
    if (until_ms or 0) - at_ms > _A_DAY_MS:
        return f"{at:%Y-%m-%d %H:%M}"
    return f"{at:%H:%M}" if (until_ms or 0) - at_ms > _SOON_MS else f"{at:%H:%M:%S}"


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
        since = _clock(server.left_out_at, at_ms)
        line += f"; left out since {since}: {server.left_out.rstrip('.')}"
    elif held := waits_for(server, at_ms):
        since = f" since {_clock(server.trouble_at, at_ms)}" if server.trouble_at else ""
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
    if not worker.alive:
        return [f"{head}{worker.slots} slots, {GONE}"]
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


def run_held_back(status: Status, items_per_s: float, commands: Commands) -> str:
    """What the user should know right now: why nothing moves. Empty when all goes well."""
    reports = status.reports
    if any(report.halted for report in reports):
        return _HELD[HeldBy.HALT]
    has_paused = bool(reports) and all(report.paused for report in reports)
    if status.paused != has_paused:
        return _TOLD_TO_PAUSE if status.paused else _TOLD_TO_GO_ON
    if status.paused:
        return f"paused from elsewhere: {commands.resume} goes on"
    trouble = next((report.trouble for report in reports if report.trouble), "")
    held = [report.held_by for report in reports if report.held_by is not None]
    if len(held) < len(reports):  # some worker sends all that it could
        held = [one for one in held if one.by in _SHARED]
    # Those that let another one ask first are held by what holds that one.
    for weaker in (HeldBy.REFUSALS, HeldBy.FIRST, HeldBy.MORE):
        held = [one for one in held if one.by is not weaker] or held
    if held:
        first = min(held, key=lambda one: one.until_ms or 0)
        if first.by is HeldBy.SLOTS:
            calls = _calls_at_once(reports)
            if None in calls:  # one has not told yet
                return ""
            first = replace(first, slots=sum(filter(None, calls)))
        if text := _held_text(first, trouble, status.at_ms):
            return text
    return f"nothing finished lately: {trouble}" if trouble and not items_per_s else ""


def _calls_at_once(reports: Sequence[WorkerReport]) -> list[int | None]:
    """Of the workers that ask a server which takes fewer than some worker has slots, whatever holds
    the others of them."""
    held = [one for one in reports if one.held_by and one.held_by.by is HeldBy.SLOTS]
    asked = {server.key for one in held for server in one.servers}
    return [
        one.calls_at_once
        for one in reports
        if not asked or any(server.key in asked for server in one.servers)
    ]


def left_s(status: Status, items_per_s: float) -> float | None:
    """How long the rest will take, at least; None: nobody can say. What a limit allows is known
    before it can be measured."""
    reports = status.reports
    is_down = bool(reports) and all(
        one.held_by is not None and one.held_by.by is HeldBy.OUTAGE for one in reports
    )
    if status.paused or is_down:
        return None
    limit = math.inf if status.limited_to_rpm is None else status.limited_to_rpm / 60
    rate = min(items_per_s or limit, limit)
    if not 0 < rate < math.inf:
        return None
    return max(status.total.open / rate, _held_for_s(status))


def _held_for_s(status: Status) -> float:
    """How long it is until any worker sends again; 0: some do."""
    held = [report.held_by for report in status.reports]
    until = [one.until_ms if one and one.until_ms else 0 for one in held]
    return max(0.0, (min(until, default=0) - status.at_ms) / 1000)


def duration(seconds: float) -> str:
    """Two units at most, and no more precise than one can plan with: 8 s, 3 min 20 s, 23 min,
    5 h 12 min, 3 d 4 h."""
    whole = round(seconds)
    minutes, hours = whole // 60, whole // 3600
    if whole < 60:
        return f"{whole} s"
    if minutes < 10:
        return f"{minutes} min {whole % 60} s"
    if hours < 1:
        return f"{minutes} min"
    if hours < 48:
        return f"{hours} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"
