"""What was done over time, of an experiment or one of its steps."""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from batchgen.clock import now_ms
from batchgen.jobs.experiments import ExperimentSummary, summary_of
from batchgen.store import Call, PageRow, ReadStore, Series
from batchgen.worker.report import WorkerReport


class History(Struct, frozen=True):
    """`budget_usd`: what the workers that live may spend; None: they have no budget, or there are
    none."""

    summary: ExperimentSummary
    series: Series
    budget_usd: float | None


class SlowCall(Struct, frozen=True):
    """A call that took long, and the row that it was made for."""

    call: Call
    row: PageRow


class SlowCalls(NamedTuple):
    """The slowest one first. Not `is_whole`: of minutes with very many there is only one each."""

    calls: list[SlowCall]
    is_whole: bool


async def slowest_of(
    store: ReadStore, experiment_ids: Sequence[int], first_minute: int | None, limit: int
) -> SlowCalls:
    """The calls that took longest since a minute (None: the first that is known)."""
    found = await store.minutes.slowest(experiment_ids, first_minute, limit)
    rows = {row.id: row for row in await store.pages.rows([one.item_id for one in found.calls])}
    calls = [SlowCall(one, rows[one.item_id]) for one in found.calls if one.item_id in rows]
    return SlowCalls(calls, found.is_whole)


async def history_of(
    store: ReadStore, name: str, first_minute: int | None = None, budget_s: float | None = None
) -> History:
    """Since a minute (since 1970, UTC), or as far back as anything is known, until now if there is
    a worker. With `budget_s` it may not be whole, and goes on when it is asked for again. Raises
    UsageError for a name that is not there."""
    summary = await summary_of(store, name)
    alive = [one for one in await store.workers() if one.alive]
    last_minute = now_ms() // 60_000 if alive and summary.counts.open else None
    series = await store.minutes.series(summary.ids, first_minute, last_minute, budget_s)
    reports = [WorkerReport.from_json(one.report) for one in alive]
    budgets = [one.max_cost_usd for one in reports if one.max_cost_usd is not None]
    return History(summary, series, max(budgets, default=None))
