"""What holds workers and servers back, in words, and how long a run will take."""

import math
from collections.abc import Sequence

from msgspec.structs import replace

from batchgen.display.commands import Commands
from batchgen.display.times import duration, wall_clock
from batchgen.jobs.server_status import ServerStatus
from batchgen.jobs.status import Status, WorkerStatus
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
_TOLD_TO_STOP = "told to stop: what is in flight is finished first"
_TOLD_TO_PAUSE = "told to pause, not followed yet"
_TOLD_TO_GO_ON = "told to go on, not followed yet"


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
    reports = [one.report for one in status.workers if one.alive and not one.sends_batches]
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
    """How long the rest will take, at least; None: nobody can say, as of what is in provider
    batches. What a limit allows is known before it can be measured."""
    reports = status.reports
    is_down = bool(reports) and all(
        one.held_by is not None and one.held_by.by is HeldBy.OUTAGE for one in reports
    )
    if status.paused or is_down or status.batches:
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
            return f"the server says that it has no room until {wall_clock(held.until_ms, at_ms)}"
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
            return f"what is left waits for its next try, until {wall_clock(held.until_ms, at_ms)}"
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
