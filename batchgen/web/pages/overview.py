"""How it goes: all experiments, and one."""

from collections.abc import Iterator
from typing import Any

from aiohttp import web
from msgspec.structs import replace

from batchgen.display.commands import Commands
from batchgen.display.held import left_s, waits_for
from batchgen.display.status import gone_text, moved_line, outdated_line, server_lines, unknown_line
from batchgen.display.steps import stale_lines
from batchgen.jobs.browse import Wanted, browse
from batchgen.jobs.expected import expected_pending
from batchgen.jobs.experiments import ExperimentSummary
from batchgen.jobs.series import slowest_of
from batchgen.jobs.status import Status, status_of
from batchgen.store import Counts
from batchgen.web.language import Text
from batchgen.web.pages.batches import unfinished_text
from batchgen.web.pages.items import QUICK_S, line_of, rows_of
from batchgen.web.pages.series import SPANS, first_minute, url_of_call
from batchgen.web.shown import path
from batchgen.web.view import View

_NEWEST_ROWS = _SLOWEST_CALLS = 10


async def experiments(view: View, request: web.Request) -> web.StreamResponse:
    """All of them; the only one, where there are no others."""
    t = view.frame.text(request)
    status = await view.pages.read(lambda store: status_of(store, view.config))
    if len(status.experiments) == 1:
        raise web.HTTPFound(path("e", status.experiments[0].name))
    return view.frame.page(
        request, "overview.html", title=t("experiments"), **of_batches(t, view, status),
        command=("status",), section="experiments", status_=status,
        notes=list(notes(status, view.commands)),
    )  # fmt: skip


async def experiment(view: View, request: web.Request) -> web.StreamResponse:
    """One of them, or a step of one (`demo/judge`)."""
    name = request.match_info["name"]
    status = await view.pages.read(lambda store: status_of(store, view.config, name))
    [summary] = status.experiments
    standing, wanted = expected(summary), Wanted(name)
    found = await view.pages.read(
        lambda store: browse(store, wanted, limit=_NEWEST_ROWS, budget_s=QUICK_S)
    )
    span = span if (span := request.query.get("span", "")) in SPANS else "all"
    slowest = await view.pages.read(
        lambda store: slowest_of(store, summary.ids, first_minute(span), _SLOWEST_CALLS)
    )
    return view.frame.page(
        request, "experiment.html", title=summary.name,
        **of_batches(view.frame.text(request), view, status),
        command=("status", "--experiment", name), experiment=name, section="overview",
        status_=status, summary=summary, counts=summary.counts, standing=standing,
        span=span,
        slowest=[(one.call, line_of(one.row, found, url_of_call(one.row.id, one.call.seq)))
                 for one in slowest.calls],
        is_each_minutes=not slowest.is_whole,
        left_s=left_s(replace(status, total=standing), status.items_per_s)
        if standing.open
        else None,
        expected_usd=expected_usd(summary), notes=list(notes(status, view.commands)),
        alive=any(one.alive for one in status.workers), newest=rows_of(found, wanted),
        held={
            one.id: waits_for(one, status.at_ms) if one.alive else gone_text(one)
            for one in status.workers
        },
    )  # fmt: skip


def of_batches(t: Text, view: View, status: Status) -> dict[str, Any]:
    """What a page has of provider batches that are not closed: a line about them, how many rows of
    each experiment are in them, and what goes on with them, if nobody does."""
    found = status.batches
    if found is None:
        return {"batches": None, "in_batches": {}, "to_collect": None}
    is_alone = not any(one.alive and one.sends_batches for one in status.workers)
    return {
        "batches": unfinished_text(t, found, status.at_ms), "in_batches": found.rows_of,
        "to_collect": view.commands.work_in_batches if is_alone else None,
    }  # fmt: skip


def expected(summary: ExperimentSummary) -> Counts:
    """With the rows that steps will still make, as pending ones."""
    if not summary.steps:
        return summary.counts
    return replace(summary.counts, pending=expected_pending(summary.steps))


def expected_usd(summary: ExperimentSummary) -> float | None:
    """What it will have cost in the end, if calls cost what they did; None: nothing is open, or
    nothing is known. Of steps nobody knows how many rows there will be."""
    counts = summary.counts
    if summary.steps or not counts.open or not counts.cost_of_a_call:
        return None
    return counts.cost_usd + counts.open * counts.cost_of_a_call


def notes(status: Status, commands: Commands) -> Iterator[str]:
    """What `status` says in words."""
    if status.moved_to:
        yield moved_line(status.moved_to)
    if status.cost_note:
        yield f"{status.cost_note}."
    if status.unknown.calls:
        yield unknown_line(status.unknown)
    yield from (one.words for one in status.never_there)
    yield from stale_lines(status, commands)
    yield from (outdated_line(one, commands) for one in status.outdated.values())
    yield from server_lines(status)
