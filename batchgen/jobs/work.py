"""The jobs, put together from their parts: what the command line and the Python API both run."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from batchgen.config import Config, ModelConfig
from batchgen.limits import Limits
from batchgen.llm.decide import RetryPolicy
from batchgen.llm.prices import Prices, max_tokens
from batchgen.parsers import Parser
from batchgen.shutdown import Stop
from batchgen.store import Budget, Counts, Store
from batchgen.worker import RunLog, Stats, WorkerOptions, run_worker
from batchgen.worker.committer import Scope

Watcher = Callable[[Store, Scope, Stats], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class WorkResult:
    """How a worker's run ended; `counts` are those of its scope, whoever did the work, and `until`
    is how many done items were wanted of it (None: all)."""

    stats: Stats
    counts: Counts
    signum: int | None
    until: int | None = None

    @classmethod
    def nothing_to_do(cls, counts: Counts) -> "WorkResult":
        return cls(Stats(), counts, None)

    @property
    def exit_code(self) -> int:
        """0 all done, or as many as wanted; 3 some items failed, or too few are done; 4 halted; 130
        or 143 stopped by a signal."""
        if self.signum is not None:
            return 128 + self.signum
        if self.stats.halted:
            return 4
        if self.until is not None:
            return 0 if self.counts.done >= self.until else 3
        return 3 if self.counts.failed else 0


@dataclass(slots=True)
class WorkRequest:
    """What to work on, beyond the config. `watch` runs beside the worker and shows how it goes."""

    scope: Scope
    slots: int
    grace_s: float | None = None
    hedge: bool = False
    parsers: Mapping[str, Parser] = field(default_factory=dict)
    watch: Watcher | None = None


async def work(
    store: Store, config: Config, request: WorkRequest, *, stop: Stop, log: RunLog
) -> WorkResult:
    """Run one worker until nothing is left or wanted, it halts, or `stop`.

    Raises ConfigError when the key is missing, StoreError when the database fails.
    """
    from batchgen.llm.client import open_client

    settings = config.work
    options = WorkerOptions(
        slots=request.slots,
        policy=RetryPolicy(settings.max_attempts, settings.parse_attempts),
        scope=request.scope,
        parse_timeout_s=settings.parse_timeout_s,
        parse_feedback=settings.parse_feedback,
        stall_s=settings.stall_s,
        grace_s=settings.grace_s if request.grace_s is None else request.grace_s,
        lease_s=settings.lease_s,
        hedge=request.hedge,
        parsers=request.parsers,
        prices=Prices(config.model),
        max_tokens=max_tokens(config.model.params),
        directory=config.directory,
    )
    stats = Stats()
    opening = open_client(config.model, timeout_s=settings.timeout_s)
    async with opening as client, watched(request, store, stats):
        await run_worker(store, client, options, stop=stop, stats=stats, log=log)
    counts = await store.counts(request.scope.experiments)
    signum = stop.signum if stop.drain.is_set() else None
    return WorkResult(stats, counts, signum, request.scope.until)


def limits_of(config: Config) -> Limits:
    """What the config, and the flags over it, allow all workers of the database to send."""
    return Limits(config.model.rate_limit, config.model.token_limit, config.work.adaptive)


def check_budget(model: ModelConfig, budget: Budget) -> None:
    """Raises ConfigError when the most that a call can cost is not known."""
    body = {"model": model.model, **model.params}
    Prices(model).most(body, needs_cost=budget.max_cost_usd is not None)


@asynccontextmanager
async def watched(request: WorkRequest, store: Store, stats: Stats) -> AsyncIterator[None]:
    """While inside, the request's `watch` runs beside; it has had its last look on leaving."""
    if request.watch is None:
        yield
        return
    watching = asyncio.create_task(
        _watch(request.watch, store, request.scope, stats), name="display"
    )
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait([watching])
        if not watching.cancelled():
            watching.result()


async def _watch(watch: Watcher, store: Store, scope: Scope, stats: Stats) -> None:
    await watch(store, scope, stats)
