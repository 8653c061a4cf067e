"""How work, run and demo answer the pending items, and what they show meanwhile."""

from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

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
from batchgen.cli.process import tune_for_work
from batchgen.cli.run_messages import say_result, stopping_line
from batchgen.cli.session import Session, counted
from batchgen.config import Config
from batchgen.display.live import RunDisplay
from batchgen.errors import UsageError
from batchgen.export import LiveFile, keep_live_file
from batchgen.jobs.export import live_file_of
from batchgen.jobs.processes import work_in_processes
from batchgen.jobs.status import watch_run
from batchgen.jobs.work import WorkFlags, WorkResult, work_with_log
from batchgen.shutdown import Stop, stop_on_signal
from batchgen.store import Store
from batchgen.worker.spec import WorkSpec
from batchgen.worker.stats import Stats

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
    """Work until nothing is left, the workers halt or are stopped, and say how it went. `output` is
    kept up to date meanwhile."""
    specs = _split(spec, processes)
    stop, stats, display = Stop(), Stats(), RunDisplay()
    live = await live_file_of(store, spec.experiments, output, say=display.say) if output else None

    look = await watch_run(store, spec.experiments, spec.until)
    showing = nullcontext() if session.quiet else display.showing(look)

    def announce() -> None:
        display.say(stopping_line(stop.now.is_set(), stats.in_flight, spec.grace_s))

    with stop_on_signal(stop, announce):
        async with _kept_up_to_date(live, stop, display), showing:
            if len(specs) == 1:
                tune_for_work()
                result = await work_with_log(
                    store, config, spec, stop=stop, stats=stats,
                    show=display.warn, show_attempt=display.say if session.verbose else None,
                )  # fmt: skip
            else:
                result = await work_in_processes(
                    store, config, specs,
                    stop=stop, stats=stats, say=display.say, verbose=session.verbose,
                )  # fmt: skip
    say_result(session, result)
    if live is not None and live.is_complete:
        session.say(f"{counted(live.rows, 'row')} -> {live.path}")
    return result


def _kept_up_to_date(
    live: LiveFile | None, stop: Stop, display: RunDisplay
) -> AbstractAsyncContextManager[None]:
    """While inside, the file follows the work; a second signal leaves the last of it to the next
    run."""
    return keep_live_file(live, stop.now, display.warn) if live else nullcontext()


def _split(spec: WorkSpec, processes: int) -> list[WorkSpec]:
    """What each of the processes is to do, or of fewer when there are not so many items."""
    processes = min(processes, spec.max_items or processes)
    if processes > spec.slots:
        raise UsageError(
            f"--processes {processes}: there are only {spec.slots} slots (-c) "
            "to share. Take fewer processes, or more slots."
        )
    return spec.split(processes)
