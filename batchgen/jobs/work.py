"""Working on the pending items: what is to be done, from config and options, and one worker that
does it. What the command line and the Python API both run."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, replace

from batchgen import __version__
from batchgen.config import Config, ModelConfig
from batchgen.descriptors import allow_calls
from batchgen.endpoints import ENDPOINTS
from batchgen.errors import UsageError
from batchgen.jobs.configured_servers import (
    ConfiguredServer,
    configured_servers,
    sections_of,
    server_specs,
)
from batchgen.llm.client import open_client
from batchgen.llm.prices import Prices
from batchgen.llm.receive import AnswerMemory
from batchgen.llm.server_address import check_settings
from batchgen.shutdown import Stop, once_stopped_now
from batchgen.store import Counts, Store
from batchgen.worker.requests import Present
from batchgen.worker.run import run_worker
from batchgen.worker.servers import Connection
from batchgen.worker.spec import WorkSpec
from batchgen.worker.stats import RunContext, Stats


class WorkResult(Struct, frozen=True):
    """How a worker's run ended; `counts` are those of its experiments, whoever did the work, and
    `until` is how many done items were wanted of them (None: all). With `stays_stale` the steps
    make none of their stale rows any more; with `of_steps` there are steps, and the counts are of
    rows, of which an item has several. `in_batches` of them wait for a provider."""

    stats: Stats
    counts: Counts
    signum: int | None
    until: int | None = None
    stays_stale: bool = False
    of_steps: bool = False
    in_batches: int = 0

    @classmethod
    def nothing_to_do(cls, counts: Counts) -> "WorkResult":
        return cls(Stats(), counts, None)

    @property
    def is_complete(self) -> bool:
        """Nothing is left to be done here, or as many are done as were wanted."""
        return self.counts.open <= self.in_batches or self.counts.is_enough(self.until)

    @property
    def exit_code(self) -> int:
        """0 all done, or as many as wanted; 3 some items failed, or too few are done; 4 halted; 130
        or 143 stopped by a signal."""
        if self.signum is not None:
            return 128 + self.signum
        if self.stats.halted:
            return 4
        if self.until is not None:
            return 0 if self.counts.is_enough(self.until) else 3
        return 3 if self.counts.failed else 0


def spec_of(config: Config, **options: Any) -> WorkSpec:
    """What one worker is to do: the `options` are fields of the spec, those that are None are as
    the config says.

    Raises UsageError for options that exclude each other; ConfigError for settings with which
    nothing can be asked (no API key), and for a budget when the most that a call can cost is not
    known.
    """
    for one in configured_servers(config):
        check_settings(one.model)
    return _checked_spec(config, options)


def check_options(config: Config, options: Mapping[str, Any]) -> None:
    """Raises as `spec_of`, but for what only those need who ask: the key."""
    _checked_spec(config, options)


def _checked_spec(config: Config, options: Mapping[str, Any]) -> WorkSpec:
    sections = sections_of(config)
    spec = WorkSpec(
        **asdict(config.work),
        servers=server_specs(configured_servers(config)),
        max_answer_tokens=_most_tokens(sections),
        directory=config.directory,
    )
    spec = replace(spec, **{name: to for name, to in options.items() if to is not None})
    _check_budget(spec, sections)
    return spec


def _most_tokens(sections: Sequence[ModelConfig]) -> int | None:
    """Of an answer; None: one of them sets no limit."""
    limits = [ENDPOINTS[one.endpoint].most_tokens(one.params) for one in sections]
    return None if None in limits else max(filter(None, limits), default=0)


async def work(
    store: Store, config: Config, spec: WorkSpec, context: RunContext,
    present: Mapping[int, Present] | None = None, begun: Callable[[], object] = lambda: None,
) -> WorkResult:  # fmt: skip
    """Run one worker until nothing is left or wanted, it halts, or it is stopped. `present` are the
    parsers of experiments, and the functions of steps that run one, by their numbers; for others
    what the experiment has is loaded. `begun` is called once the first calls have gone out.

    Raises ConfigError when the key is missing, UsageError when the system does not allow so many
    calls at once, StoreError when the database fails.
    """
    return await work_at(store, configured_servers(config), spec, context, present, begun=begun)


async def work_at(
    store: Store, servers: Sequence[ConfiguredServer], spec: WorkSpec, context: RunContext,
    present: Mapping[int, Present] | None = None, *, begun: Callable[[], object] = lambda: None,
) -> WorkResult:  # fmt: skip
    """The same, at the servers of the spec, given in their order."""
    allow_calls(spec.concurrency)
    started = _Started(context, spec, begun)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(once_stopped_now(context.stop, store.hurry))
        stack.callback(started.tell)  # where no call is made
        connections, memory = [], AnswerMemory()
        for server in servers:
            opening = open_client(server.model, timeout_s=spec.timeout_s, memory=memory)
            client = await stack.enter_async_context(opening)
            connections.append(Connection(client, server.prices))
        await run_worker(
            store, connections, spec, context, present=present or {}, begun=started.tell
        )
    result = await result_of(store, spec, context.stop, context.stats)
    context.log.event("run_ended", exit_code=result.exit_code, calls=result.stats.calls)
    return result


class _Started:
    """Tells and logs once that a run has started: after its first calls, which need not wait."""

    def __init__(self, context: RunContext, spec: WorkSpec, begun: Callable[[], object]) -> None:
        self._context = context
        self._slots = spec.concurrency
        self._begun = begun
        self._is_told = False

    def tell(self) -> None:
        if not self._is_told:
            self._is_told = True
            self._context.log.event(
                "run_started", version=__version__, slots=self._slots, pid=os.getpid()
            )
            self._begun()


async def result_of(store: Store, spec: WorkSpec, stop: Stop, stats: Stats) -> WorkResult:
    """How it ended, as the database has it now."""
    counts = await store.counts(spec.experiments, spec.selection)
    signum = stop.signum if stop.drain.is_set() else None
    stays = bool(counts.stale) and not await store.stale_to_ask(spec.experiments)
    ids = spec.experiments
    of_steps = any(
        one.step is not None for one in await store.experiments() if ids is None or one.id in ids
    )
    in_batches = sum(
        one.unsettled
        for one in await store.batches.unfinished()
        if ids is None or one.experiment_id in ids
    )
    return WorkResult(stats, counts, signum, spec.until, stays, of_steps, in_batches)


def _check_budget(spec: WorkSpec, sections: Sequence[ModelConfig]) -> None:
    if spec.budget is None:
        return
    if spec.hedge:
        raise UsageError(
            "hedging pays for some answers twice, so it does not go with a budget; leave out one."
        )
    for one in sections:
        body = {"model": one.model, **one.params}
        needs_cost = spec.max_cost_usd is not None
        Prices(one).worst_case(body, ENDPOINTS[one.endpoint], needs_cost=needs_cost)
