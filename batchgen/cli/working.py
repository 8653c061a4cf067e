"""How work, run and demo answer the pending items, and what they show meanwhile."""

import gc
import os
import sys
from pathlib import Path

from batchgen import __version__
from batchgen.cli.display import Display, say_result, stopping_line
from batchgen.cli.follow import kept_up_to_date, live_file
from batchgen.cli.options import (
    adaptive_option,
    gathered,
    grace_option,
    hedge_option,
    max_cost_option,
    max_tokens_option,
    processes_option,
    rpm_option,
    slots_option,
    tpm_option,
    until_option,
)
from batchgen.cli.session import Session, counted
from batchgen.config import Config
from batchgen.errors import UsageError
from batchgen.jobs.processes import Part, obeying_the_parent, shares, work_in_processes
from batchgen.jobs.work import WorkFlags, WorkResult, work
from batchgen.llm.client import check_settings
from batchgen.log import RunLog
from batchgen.shutdown import Stop, stop_on_signal
from batchgen.store import Store
from batchgen.worker import WorkSpec

work_options = gathered(
    "flags",
    WorkFlags,
    slots_option,
    rpm_option,
    tpm_option,
    adaptive_option,
    processes_option,
    until_option,
    max_cost_option,
    max_tokens_option,
    hedge_option,
    grace_option,
)


async def work_on(
    session: Session, store: Store, config: Config, spec: WorkSpec, processes: int = 1, *,
    output: Path | None = None,
) -> WorkResult:  # fmt: skip
    """The second step: workers, until nothing is left, they halt or are stopped. `output` is kept
    up to date meanwhile."""
    check_settings(config.model)  # before there is a log
    display = Display(session)
    stop = Stop()
    live = await live_file(store, spec.experiments, output, display) if output else None

    def announce() -> None:
        display.say(stopping_line(stop.now.is_set(), display.in_flight(), spec.grace_s))

    with stop_on_signal(stop, announce):
        async with kept_up_to_date(live, stop, display):
            if processes == 1:
                result = await _work_logged(session, store, config, spec, stop, display)
            else:
                result = await _work_in_processes(session, store, spec, processes, stop, display)
    say_result(session, result)
    if live is not None and live.is_complete:
        session.say(f"{counted(live.rows, 'row')} -> {live.path}")
    return result


async def _work_logged(
    session: Session, store: Store, config: Config, spec: WorkSpec, stop: Stop,
    display: Display | Part,
) -> WorkResult:  # fmt: skip
    log = RunLog(config.log_dir, display.warn, display.say if session.verbose else None)
    gc.freeze()  # what is imported stays, so no collection need look at it: that took 0.1 s each
    sys.setswitchinterval(0.001)  # a parser in a thread gives the event loop its turn sooner
    log.event("run_started", version=__version__, slots=spec.slots, pid=os.getpid())
    try:
        result = await work(store, config, spec, stop=stop, log=log, watch=display.show)
        log.event("run_ended", exit_code=result.exit_code, calls=result.stats.calls)
    finally:
        log.close()
    return result


async def work_as_part(
    session: Session, store: Store, config: Config, spec: WorkSpec
) -> WorkResult:
    """The second step as one of several processes, whose parent talks with the user."""
    stop, part = Stop(), Part()
    async with obeying_the_parent(stop, part.orders):
        return await _work_logged(session, store, config, spec, stop, part)


async def _work_in_processes(
    session: Session, store: Store, spec: WorkSpec, processes: int, stop: Stop,
    display: Display,
) -> WorkResult:  # fmt: skip
    processes = min(processes, spec.max_items or processes)
    if processes > spec.slots:
        raise UsageError(
            f"--processes {processes}: there are only {spec.slots} slots (-c) "
            "to share. Take fewer processes, or more slots."
        )
    shared = [*session.as_options(), "work", "--part", "--grace", str(spec.grace_s)]
    shared += ["--rpm", str(spec.limits.requests_per_minute or 0)]
    shared += ["--tpm", str(spec.limits.tokens_per_minute or 0)]
    shared += ["--adaptive" if spec.limits.adaptive else "--no-adaptive"]
    for experiment_id in spec.experiments or ():
        shared += ["--experiment", await _name_of(store, experiment_id)]
    if spec.budget is not None and spec.budget.max_cost_usd is not None:
        shared += ["--max-cost", str(spec.budget.max_cost_usd)]
    if spec.budget is not None and spec.budget.max_tokens is not None:
        shared += ["--max-tokens-total", str(spec.budget.max_tokens)]
    if spec.wait_for_more:
        shared += ["--watch"]
    if spec.until is not None:
        shared += ["--until", str(spec.until)]
    if spec.hedge:
        shared += ["--hedge"]
    items = shares(spec.max_items, processes) if spec.max_items else [None] * processes
    commands = [
        # -P: a file of the user's beside the config is no module of ours.
        [sys.executable, "-P", "-m", "batchgen", *shared, "-c", str(slots)]
        + ([] if max_items is None else ["--max-items", str(max_items)])
        for slots, max_items in zip(shares(spec.slots, processes), items, strict=True)
    ]
    return await work_in_processes(
        store, commands, spec, stop=stop, say=display.say, watch=display.show
    )


async def _name_of(store: Store, experiment_id: int) -> str:
    return next(one.name for one in await store.experiments() if one.id == experiment_id)
