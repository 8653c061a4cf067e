"""Working on the pending items: what is to be done, from config and flags, and one worker that does
it. What the command line and the Python API both run."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from batchgen import __version__
from batchgen.config import Config, ModelConfig
from batchgen.errors import UsageError
from batchgen.limits import Limits
from batchgen.llm.client import check_settings, open_client
from batchgen.llm.decide import RetryPolicy
from batchgen.llm.prices import Prices, max_tokens
from batchgen.log import LogFile
from batchgen.parsers import Parser
from batchgen.shutdown import Stop
from batchgen.store import Budget, Counts, Store
from batchgen.worker.run import run_worker
from batchgen.worker.spec import WorkSpec
from batchgen.worker.stats import RunLog, Stats


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkFlags:
    """What is asked of one run, over the config; None: as the config says, or no limit. `rpm` and
    `tpm` are requests and tokens a minute, 0: no limit. `max_cost_usd` and `max_tokens` are those
    of all runs of the experiments together."""

    slots: int | None = None
    rpm: int | None = None
    tpm: int | None = None
    adaptive: bool | None = None
    processes: int = 1
    max_items: int | None = None
    until: int | None = None
    wait_for_more: bool = False
    max_cost_usd: float | None = None
    max_tokens: int | None = None
    hedge: bool = False
    grace_s: float | None = None


@dataclass(frozen=True, slots=True)
class WorkResult:
    """How a worker's run ended; `counts` are those of its experiments, whoever did the work, and
    `until` is how many done items were wanted of them (None: all)."""

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
            return 0 if self.counts.is_enough(self.until) else 3
        return 3 if self.counts.failed else 0


def spec_of(config: Config, experiments: tuple[int, ...] | None, flags: WorkFlags) -> WorkSpec:
    """What one worker is to do; `experiments` are ids, None: all.

    Raises UsageError for flags that exclude each other; ConfigError for settings with which nothing
    can be asked (no API key), and for a budget when the most that a call can cost is not known.
    """
    check_settings(config.model)
    model, settings = config.model, config.work
    return WorkSpec(
        slots=settings.concurrency if flags.slots is None else flags.slots,
        experiments=experiments,
        limits=Limits(
            model.rate_limit if flags.rpm is None else flags.rpm or None,
            model.token_limit if flags.tpm is None else flags.tpm or None,
            settings.adaptive if flags.adaptive is None else flags.adaptive,
        ),
        budget=_budget_of(model, experiments, flags),
        max_items=flags.max_items,
        until=flags.until,
        wait_for_more=flags.wait_for_more,
        hedge=flags.hedge,
        retry_policy=RetryPolicy(
            settings.max_attempts, settings.parse_attempts, settings.retry_wait_s
        ),
        timeout_s=settings.timeout_s,
        parse_timeout_s=settings.parse_timeout_s,
        parse_feedback=settings.parse_feedback,
        stall_s=settings.stall_s,
        grace_s=settings.grace_s if flags.grace_s is None else flags.grace_s,
        lease_s=settings.lease_s,
        max_answer_tokens=max_tokens(model.params),
        directory=config.directory,
    )


async def work_with_log(
    store: Store, config: Config, spec: WorkSpec, *, stop: Stop, show: Callable[[str], None],
    show_attempt: Callable[[str], None] | None = None, stats: Stats | None = None,
    parsers: Mapping[str, Parser] | None = None,
) -> WorkResult:  # fmt: skip
    """`work`, with a log of it in a file of its own. `show` gets the warnings, `show_attempt` every
    failed attempt."""
    log = LogFile(config.log_dir, show, show_attempt)
    log.event("run_started", version=__version__, slots=spec.slots, pid=os.getpid())
    try:
        result = await work(store, config, spec, stop=stop, log=log, stats=stats, parsers=parsers)
        log.event("run_ended", exit_code=result.exit_code, calls=result.stats.calls)
    finally:
        log.close()
    return result


async def work(
    store: Store, config: Config, spec: WorkSpec, *, stop: Stop, log: RunLog,
    stats: Stats | None = None, parsers: Mapping[str, Parser] | None = None,
) -> WorkResult:  # fmt: skip
    """Run one worker until nothing is left or wanted, it halts, or `stop`. `stats` tells meanwhile
    how it goes; `parsers` are those that no name can load, by their spec.

    Raises ConfigError when the key is missing, StoreError when the database fails.
    """
    stats = Stats() if stats is None else stats
    async with open_client(config.model, timeout_s=spec.timeout_s) as client:
        await run_worker(
            store, client, spec,
            prices=Prices(config.model), parsers=parsers or {}, stop=stop, stats=stats, log=log,
        )  # fmt: skip
    return await result_of(store, spec, stop, stats)


async def result_of(store: Store, spec: WorkSpec, stop: Stop, stats: Stats) -> WorkResult:
    """How it ended, as the database has it now."""
    counts = await store.counts(spec.experiments)
    signum = stop.signum if stop.drain.is_set() else None
    return WorkResult(stats, counts, signum, spec.until)


def _budget_of(
    model: ModelConfig, experiments: tuple[int, ...] | None, flags: WorkFlags
) -> Budget | None:
    if flags.max_cost_usd is None and flags.max_tokens is None:
        return None
    if flags.hedge:
        raise UsageError(
            "hedging pays for some answers twice, so it does not go with a budget; leave out one."
        )
    body = {"model": model.model, **model.params}
    Prices(model).worst_case(body, needs_cost=flags.max_cost_usd is not None)
    return Budget(experiments, flags.max_cost_usd, flags.max_tokens)
