"""How it stands: items by state, pace, workers, and what calls with unknown outcome can have cost.

One value, `Status`: it is what `status` prints, and what the dashboard and the live display of a
run are drawn from.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from msgspec.structs import replace

from batchgen.clock import now_ms, timestamp
from batchgen.config import Config
from batchgen.items import State
from batchgen.jobs.batches import Unfinished, unfinished_batches
from batchgen.jobs.expected import expected_pending
from batchgen.jobs.experiments import (
    ExperimentSummary,
    StepSummary,
    list_experiments,
    summary_of,
)
from batchgen.jobs.present_parser import Outdated, outdated
from batchgen.jobs.server_status import ServerStatus, servers_of
from batchgen.jobs.unknown_cost import NO_UNKNOWN_CALLS, UnknownCost, max_cost_of_unknown
from batchgen.store import CallTotals, Counts, Experiment, ReadStore, WorkerKind, WorkerRow
from batchgen.worker.report import WorkerReport
from batchgen.worker.stragglers import percentile

if TYPE_CHECKING:
    from batchgen.jobs.never_there import NeverThere
    from batchgen.store import Selection

Columns = Mapping[str, Callable[[Counts], int | float]]

# The columns of `status`, an experiment a row: how each value is made of its counts.
ITEM_COLUMNS: Columns = {
    name: attrgetter(name)
    for name in ("total", State.PENDING, State.RUNNING, State.DONE, State.FAILED)
}
STEP_COLUMNS: Columns = {**ITEM_COLUMNS, "skipped": attrgetter("passed_over"),
                         "stale": attrgetter("stale")}  # fmt: skip
CALL_COLUMNS: Columns = {name: attrgetter(name) for name in CallTotals.__struct_fields__}


class WorkerStatus(Struct, frozen=True):
    """A worker that joined and did not leave. `paused` and `stop` (`drain` or `now`) are what
    others ordered. `in_flight` are its calls in flight, or those that were when it died; a sender
    of provider batches makes none. `report` is some seconds old at most."""

    id: int
    host: str
    pid: int
    slots: int
    started_at: int
    alive: bool
    paused: bool
    in_flight: int
    report: WorkerReport
    stop: str | None = None
    kind: WorkerKind = WorkerKind.CALLER

    @property
    def sends_batches(self) -> bool:
        return self.kind is WorkerKind.SENDER

    @classmethod
    def of(cls, row: WorkerRow) -> "WorkerStatus":
        return cls(
            id=row.id, host=row.host, pid=row.pid, slots=row.slots, started_at=row.started_at,
            alive=row.alive, paused=bool(row.paused), in_flight=row.calls,
            report=WorkerReport.from_json(row.report), stop=row.stop, kind=row.kind,
        )  # fmt: skip

    def to_json(self, at_ms: int, waits_for: str | None) -> dict[str, Any]:
        """`waits_for`: why it sends less than it could, in words."""
        found = {
            "id": self.id, "kind": self.kind.value, "host": self.host, "pid": self.pid,
            "slots": self.slots,
            "started_at": timestamp(self.started_at), "alive": self.alive, "paused": self.paused,
        }  # fmt: skip
        if not self.alive:
            return found
        late_after_ms = self.report.late_after_ms
        return {
            **found,
            "in_flight": self.in_flight,
            "waits_for": waits_for,
            "held_by": self.report.held_by and self.report.held_by.to_json(),
            "failed_calls": dict(self.report.failed_calls),
            "late_after_s": None if late_after_ms is None else late_after_ms / 1000,
            "stragglers": [
                {"item": late.item_id, "for_s": round((at_ms - late.began_at) / 1000, 1)}
                for late in self.report.stragglers
            ],
        }


class Status(Struct, frozen=True):
    """One look, at `at_ms` (epoch ms).

    experiments     each with its counts; `total` are those of all of them
    items_per_s     in the last minute; a look at one run leaves it out
    latency_p50_s, latency_p95_s   of the newest thousand answers; None: there are none
    learned_rpm     the calls a minute that --adaptive has found the server to take, the config's;
                    None: not yet
    workers         of the whole database
    unknown         calls whose outcome nobody knows, and the most that they can have cost. Those of
                    dead workers are among them, which `total` does not know while nobody has taken
                    over from them
    cost_note       what is to be said of costs that are an estimate
    outdated        by experiment: items with the value of another parser than its present one
    steps           of a run that is on several steps of a chain, or of several
    stale_to_ask    the experiments with stale rows that their steps still make, and how many of
                    these they make no more, of the first thousands
    never_there     steps without a row whose `when` looks for what is in none of the rows before
    batches         provider batches that are not closed; None: there are none
    moved_to        where the whole database was moved, and its work goes on
    """

    at_ms: int
    experiments: tuple[ExperimentSummary, ...]
    total: Counts
    items_per_s: float = 0.0
    latency_p50_s: float | None = None
    latency_p95_s: float | None = None
    learned_rpm: float | None = None
    workers: tuple[WorkerStatus, ...] = ()
    unknown: UnknownCost = NO_UNKNOWN_CALLS
    cost_note: str | None = None
    outdated: Mapping[int, Outdated] = field(default_factory=dict)
    steps: tuple[StepSummary, ...] = ()
    stale_to_ask: Mapping[int, int] = field(default_factory=dict)
    never_there: "tuple[NeverThere, ...]" = ()
    batches: Unfinished | None = None
    moved_to: str | None = None

    @property
    def in_flight(self) -> int:
        """Rows that are being asked, or parsed, now: not those that are in a batch, or are written
        to the file of one."""
        running = self.total.running - (self.batches.rows if self.batches else 0)
        alive = [worker for worker in self.workers if worker.alive]
        if any(worker.sends_batches for worker in alive):
            running = min(running, sum(worker.in_flight for worker in alive))
        return max(0, running)

    @property
    def reports(self) -> list[WorkerReport]:
        """Those of the workers that live."""
        return [worker.report for worker in self.workers if worker.alive]

    @property
    def servers(self) -> tuple[ServerStatus, ...]:
        """Those that the workers ask that live."""
        return servers_of(self.reports)

    @property
    def paused(self) -> bool:
        """Whether there are workers, and others ordered all of them to pause."""
        alive = [worker for worker in self.workers if worker.alive]
        return bool(alive) and all(worker.paused for worker in alive)

    @property
    def limited_to_rpm(self) -> float | None:
        """The limit that holds calls back now; all workers share it."""
        held = (report.held_by for report in self.reports)
        return next((one.per_minute for one in held if one and one.per_minute), None)

    def to_json(
        self, waits_for: Callable[[WorkerStatus | ServerStatus, int], str | None]
    ) -> dict[str, Any]:
        """The object of `status --json`. `waits_for` says why a worker sends, or a server is sent,
        less than it could be, in words; None: it is not."""
        return {
            "experiments": [
                {
                    "name": one.name,
                    "created_at": timestamp(one.experiment.created_at),
                    "endpoint": one.experiment.endpoint,
                    **_counts_json(one.counts),
                    "outdated": None if one.steps else self._outdated_json(one.experiment.id),
                    **self._steps_json(one),
                }
                for one in self.experiments
            ],
            "total": _counts_json(self.total) | _unknown_json(self.unknown),
            **({"cost_note": self.cost_note} if self.cost_note else {}),
            **({"moved_to": self.moved_to} if self.moved_to else {}),
            "batches": self.batches and self.batches.to_json(),
            "items_per_s": round(self.items_per_s, 3),
            "learned_requests_per_minute": self.learned_rpm and round(self.learned_rpm, 1),
            "latency_p50_s": self.latency_p50_s,
            "latency_p95_s": self.latency_p95_s,
            "workers": [
                one.to_json(self.at_ms, waits_for(one, self.at_ms)) for one in self.workers
            ],
            "servers": [one.to_json(waits_for(one, self.at_ms)) for one in self.servers],
        }

    def _steps_json(self, summary: ExperimentSummary) -> dict[str, Any]:
        if not summary.steps:
            return {}
        steps = [
            {
                "name": one.name,
                "endpoint": one.experiment.endpoint,
                **_values(STEP_COLUMNS, one.counts),
                **_counts_json(one.counts),
                "ended": one.counts.ended,
                "outdated": self._outdated_json(one.experiment.id),
                "never_there": [
                    path
                    for found in self.never_there
                    if found.experiment_id == one.experiment.id
                    for path in found.paths
                ],
            }
            for one in summary.steps
        ]
        counts = summary.counts
        return {"items": summary.items, "ended": counts.ended, "stale": counts.stale,
                "steps": steps}  # fmt: skip

    def _outdated_json(self, experiment_id: int) -> dict[str, Any] | None:
        found = self.outdated.get(experiment_id)
        return (
            None
            if found is None
            else {"items": found.n, "parser": found.spec, "problem": found.problem}
        )


async def status_of(
    store: ReadStore, config: Config, experiment: str | None = None, step: str | None = None
) -> Status:
    """All there is to know, of an experiment or of all, of all their steps or of one; the workers
    are those of the database. The config has the prices. Raises StoreError, and UsageError for an
    experiment or a step that is not there."""
    if experiment is None:
        experiments = await list_experiments(store, step)
    else:
        experiments = [await summary_of(store, experiment, step=step)]
    is_all = experiment is None and step is None
    ids = [id_ for one in experiments for id_ in one.ids]
    only = None if is_all else ids
    total = Counts.sum_of(one.counts for one in experiments)
    workers, paces = await store.workers(), [await store.pace(id_) for id_ in only or (None,)]
    dead = [one for one in workers if not one.alive and one.calls and is_all]
    unknown_calls = total.unknown_calls + sum(worker.calls for worker in dead)
    unknown, cost_note = NO_UNKNOWN_CALLS, None
    if unknown_calls or total.cost_usd:
        # Here: mostly there is no need of them.
        from batchgen.jobs.configured_servers import estimate_note, prices_of

        prices = prices_of(config)
        cost_note = estimate_note(config) if total.cost_usd else None
        unknown = await max_cost_of_unknown(
            store, prices, unknown_calls, [worker.id for worker in dead], only,
            parse_feedback=config.work.parse_feedback,
        )  # fmt: skip
    latencies_ms = await store.latencies_ms(only)
    return replace(
        _status(total, latencies_ms, workers),
        experiments=tuple(experiments),
        items_per_s=sum(pace.items / pace.span_s for pace in paces),
        learned_rpm=await _learned_rpm(store, config),
        unknown=unknown,
        cost_note=cost_note,
        outdated=await outdated(store, config, _experiments_of(experiments)),
        stale_to_ask=await store.stale_to_ask(only) if total.stale else {},
        never_there=await _never_there(store, experiments),
        batches=await unfinished_batches(store, only),
        moved_to=await store.moved_to(),
    )


async def _never_there(
    store: ReadStore, summaries: Sequence[ExperimentSummary]
) -> "tuple[NeverThere, ...]":  # fmt: skip
    steps = [step for one in summaries for step in one.steps]
    if not any(step.counts.passed_over and not step.counts.total for step in steps):
        return ()
    from batchgen.jobs.never_there import never_there  # here: it loads what reads chains

    return tuple(await never_there(store, [step.experiment.id for step in steps]))


def _experiments_of(summaries: Sequence[ExperimentSummary]) -> list[Experiment]:
    """With their steps."""
    return [
        found
        for one in summaries
        for found in ([step.experiment for step in one.steps] or [one.experiment])
    ]


async def _learned_rpm(store: ReadStore, config: Config) -> float | None:
    if not (rates := await store.learned_rates()):
        return None
    from batchgen.store import server_key  # here: only --adaptive has learned any

    return rates.get(server_key(config.model.base_url))


async def watch_run(
    store: ReadStore,
    experiments: Sequence[int] | None,
    until: int | None = None,
    selection: "Selection | None" = None,
) -> Callable[[], Awaitable[Status]]:
    """How to look at a run that begins now, as often as one likes: it costs little, so it leaves
    out what a run does not need (each experiment alone, what was before, unknown calls).

    It is about these experiments (None: all), or a selection of their items and what is used from
    now on, and, with `until`, no more pending items than are still wanted. Latencies are those of
    calls that end from now on. Of steps, rows that will be made count as pending, too.
    """
    known = await store.experiments()
    chosen = [one for one in known if experiments is None or one.id in experiments]
    steps = [one for one in chosen if one.step is not None]
    calls_before = await store.newest_attempt()
    used_before = await store.counts(experiments) if selection else CallTotals()

    async def look() -> Status:
        total = (await store.counts(experiments, selection)).since(used_before)
        found: tuple[StepSummary, ...] = ()
        if len(steps) > 1:
            counts = await store.counts_by_experiment()
            found = tuple(StepSummary(one, counts.get(one.id, Counts())) for one in steps)
        if found and selection is None:
            others = total.pending - sum(one.counts.pending for one in found)
            pending = others + expected_pending(found, until)
        else:
            pending = total.wanted(until)
        total = replace(total, pending=pending)
        latencies_ms = await store.latencies_ms(experiments, calls_before)
        status = _status(total, latencies_ms, await store.workers())
        batches = await unfinished_batches(store, experiments)
        return replace(status, steps=found, batches=batches)

    return look


def _status(total: Counts, latencies_ms: Sequence[int], workers: Sequence[WorkerRow]) -> Status:
    return Status(
        at_ms=now_ms(),
        experiments=(),
        total=total,
        latency_p50_s=percentile(latencies_ms, 0.50) / 1000 if latencies_ms else None,
        latency_p95_s=percentile(latencies_ms, 0.95) / 1000 if latencies_ms else None,
        workers=tuple(WorkerStatus.of(row) for row in workers),
    )


def _counts_json(counts: Counts) -> dict[str, Any]:
    return {
        **_values(ITEM_COLUMNS, counts),
        "reasons": dict(counts.reasons.most_common()),
        **_values(CALL_COLUMNS, counts),
        "retried": counts.retried,
        "failed_calls": {str(how): n for how, n in counts.failed_calls.most_common()},
    }


def _values(columns: Columns, counts: Counts) -> dict[str, int | float]:
    return {name: round(value(counts), 6) for name, value in columns.items()}


def _unknown_json(unknown: UnknownCost) -> dict[str, Any]:
    cost_usd = unknown.max_cost_usd
    return {
        "unknown_calls": unknown.calls,
        "unknown_max_tokens": unknown.max_tokens,
        "unknown_max_cost_usd": None if cost_usd is None else round(cost_usd, 6),
        "unknown_max_calls": unknown.known_calls,
    }
