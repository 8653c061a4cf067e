"""How work, run and demo answer the pending items, and what they show meanwhile."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, closing, nullcontext
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from msgspec import Struct

from batchgen.cli.hints import commands
from batchgen.cli.options import LIMIT, gathered
from batchgen.cli.parsing import stay_up_to_date
from batchgen.cli.process import tune_for_work
from batchgen.cli.run_messages import leaving_line, say_result, stopping_line
from batchgen.cli.session import Session, counted
from batchgen.config import Config
from batchgen.display.run import RunDisplay
from batchgen.errors import UsageError
from batchgen.jobs.log import LogFile
from batchgen.jobs.status import watch_run
from batchgen.jobs.work import WorkResult, work
from batchgen.shutdown import Stop, stop_on_signal
from batchgen.store import FailureLimit, Store
from batchgen.worker.requests import Present
from batchgen.worker.spec import WorkSpec
from batchgen.worker.stats import RunContext, Stats

if TYPE_CHECKING:
    from batchgen.export import LiveFile
    from batchgen.jobs.ray_cluster import RayCluster


def _finite(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    if value is not None and not isfinite(value):
        raise click.BadParameter("must be a finite number.")
    return value


def _failure_limit(_: click.Context, __: click.Parameter, value: str | None) -> FailureLimit | None:
    try:
        return None if value is None else FailureLimit.parse(value)
    except UsageError as exc:
        raise click.BadParameter(f"{exc}.") from exc


# Each sets the field of the WorkSpec that has its name, and so does an option that one command
# declares for itself. One that is not given (None) leaves it as the config says.
work_options = gathered(
    "options",
    WorkSpec,
    click.option(
        "-c", "--concurrency", type=click.IntRange(1, 10_000),
        help="Calls in flight at once, of all processes together; default: work.concurrency of the "
             "config.",
    ),
    click.option(
        "--rpm", type=LIMIT,
        help="Requests a minute to a server, of all workers together; 0: no limit. Default: "
             "model.rate_limit.",
    ),
    click.option(
        "--tpm", type=LIMIT,
        help="Tokens a minute at a server, in and out, of all workers together; 0: no limit. "
             "Default: model.token_limit.",
    ),
    click.option(
        "--adaptive/--no-adaptive", default=None,
        help="Find out how many requests the server takes, and send no more. With --rpm and --tpm: "
             "never more than these. Default: work.adaptive.",
    ),
    click.option(
        "--until", type=click.IntRange(1), metavar="N",
        help="Stop when N items are done, those of earlier runs and other workers included; never "
             "more than N, and whatever fails on the way. Of items with steps: when so many chains "
             "have ended; those of a list (each) are ended together, and may bring more.",
    ),
    click.option(
        "--max-cost", "max_cost_usd", type=click.FloatRange(0, min_open=True), metavar="USD",
        callback=_finite,
        help="Halt before the experiment's calls, those of earlier runs included, can cost more.",
    ),
    click.option(
        "--max-tokens-total", type=click.IntRange(1), metavar="N",
        help="The same in tokens, in and out.",
    ),
    click.option(
        "--max-failures", metavar="N|N%", callback=_failure_limit,
        help="Halt when N items have failed, or N % of all there are, those of earlier runs "
             "included.",
    ),
    click.option(
        "--hedge", is_flag=True,
        help="Send a call that takes over three times as long as nearly all others once more, when "
             "a slot is free, and take the first answer. Both may be charged.",
    ),
    click.option(
        "--grace", "grace_s", type=click.FloatRange(0), metavar="SECONDS", callback=_finite,
        help="How long a stop waits for calls in flight; default: work.grace_s of the config.",
    ),
    make=dict,
)  # fmt: skip
processes_option = click.option(
    "--processes", type=click.IntRange(1, 256), default=1, metavar="P",
    help="Worker processes that share the slots, for more than one core can send.",
)  # fmt: skip


class BatchFlags(Struct, frozen=True):
    """With `batch`, what is pending goes in provider batches, until nothing is left; with `no_wait`
    for one round."""

    batch: bool = False
    no_wait: bool = False

    def check(self, *, processes: int = 1, on_cluster: bool = False) -> None:
        """Raises UsageError for what does not go together."""
        if self.no_wait and not self.batch:
            raise UsageError("--no-wait: goes with --batch.")
        if self.batch and (processes > 1 or on_cluster):
            given = "--on" if on_cluster else "--processes"
            raise UsageError(f"{given}: does not go with --batch: one process sends and collects.")


ONLINE = BatchFlags()
batch_options = gathered(
    "in_batches",
    BatchFlags,
    click.option(
        "--batch", is_flag=True,
        help="In provider batches, at their price: collect what is over, send what is pending, and "
             "wait. Run it again after whatever happened; the batches go on at the provider.",
    ),
    click.option(
        "--no-wait", is_flag=True,
        help="With --batch: one round of that, and no waiting; for cron.",
    ),
)  # fmt: skip


class OnRay(NamedTuple):
    """So many workers on a cluster; None: one on each node."""

    cluster: "RayCluster"
    workers: int | None

    @property
    def number(self) -> int:
        return self.workers or max(1, len(self.cluster.nodes()))


async def work_on(
    session: Session, store: Store, config: Config, spec: WorkSpec, processes: int = 1, *,
    on_ray: OnRay | None = None, output: Path | None = None, present: Mapping[int, Present],
    force: bool = False, in_batches: BatchFlags = ONLINE,
) -> WorkResult:  # fmt: skip
    """Work until nothing is left, the workers halt or are stopped, and say how it went. `output` is
    kept up to date meanwhile; with `force` also where another file is. `present` are the parsers
    and functions of the experiments, by their numbers."""
    several = f"{on_ray.number} workers" if on_ray else f"{processes} processes"
    parts = on_ray.number if on_ray else processes
    specs = _split(spec, parts, "--workers" if on_ray else "--processes")
    smallest = spec.smallest_server
    if smallest and len(specs) < parts and len(specs) == smallest.slots:
        session.say(
            f"working with {len(specs)} of the {several}: each takes a slot of every "
            f"server, and {smallest.place} has no more (concurrency: {smallest.slots})."
        )
    stop, stats, display = Stop(), Stats(), RunDisplay(commands())
    live = None
    if output:
        from batchgen.export import Overwriting  # here: who wants no file loads no export
        from batchgen.jobs.export import live_file_of

        overwriting = Overwriting(config.own_files, force)
        live = await live_file_of(store, spec.experiments, output, overwriting, say=display.say)

    look = await watch_run(store, spec.experiments, spec.until)
    showing = nullcontext() if session.quiet else display.showing(look)

    def announce() -> None:
        if in_batches.batch:
            display.say(leaving_line(stats.in_flight))
        else:
            display.say(stopping_line(stop.now.is_set(), stats.in_flight, spec.grace_s))

    with stop_on_signal(stop, announce):
        async with _kept_up_to_date(live, stop, display), showing:
            if on_ray or len(specs) > 1:
                result = await _work_in_crew(
                    store, config, specs, on_ray,
                    stop=stop, stats=stats, say=display.say, verbose=session.verbose,
                )  # fmt: skip
            else:
                show_attempt = display.say if session.verbose else None
                with closing(LogFile(config.log_dir, display.warn, show_attempt)) as log:
                    context = RunContext(stop, log, stats)
                    if in_batches.batch:
                        from batchgen.jobs.batch_work import work_in_batches  # here: few do

                        result = await work_in_batches(
                            store, config, spec, context,
                            present=present, waits=not in_batches.no_wait,
                            say=_unsaid if session.quiet else display.say,
                        )  # fmt: skip
                    else:
                        result = await work(
                            store, config, spec, context, present, begun=tune_for_work
                        )
    await stay_up_to_date(session, store, config, present)
    say_result(session, result)
    if config.steps:
        from batchgen.jobs.never_there import never_there  # here: most configs have no steps

        for one in await never_there(store, spec.experiments or ()):
            session.warn(one.words)
    if result.counts.cost_usd:
        from batchgen.jobs.configured_servers import estimate_note  # here: it has cost something

        if note := estimate_note(config):
            session.say(note)
    if live is not None and live.is_complete:
        session.say(f"{counted(live.rows, 'row')} -> {live.path}")
    return result


async def _work_in_crew(
    store: Store, config: Config, specs: Sequence[WorkSpec], on_ray: OnRay | None, **context: Any
) -> WorkResult:
    """In processes of this machine, or on the cluster."""
    from batchgen.cli.worker_process import COMMAND

    if on_ray is None:
        from batchgen.jobs.processes import work_in_processes

        return await work_in_processes(store, config, specs, COMMAND, **context)
    from batchgen.jobs.ray_cluster import work_on_ray

    return await work_on_ray(on_ray.cluster, store, config, specs, COMMAND[-1], **context)


def _unsaid(_: str) -> None:
    """How batches go, when nobody wants to hear it."""


def _kept_up_to_date(
    live: "LiveFile | None", stop: Stop, display: RunDisplay
) -> AbstractAsyncContextManager[None]:
    """While inside, the file follows the work; a second signal leaves the last of it to the next
    run."""
    if live is None:
        return nullcontext()
    from batchgen.export import keep_live_file

    return keep_live_file(live, stop.now, display.warn)


def _split(spec: WorkSpec, parts: int, option: str) -> list[WorkSpec]:
    """What each of the workers is to do, or of fewer when there are not so many items. `option`
    says how many there are to be."""
    parts = min(parts, spec.max_items or parts)
    if parts > spec.concurrency:
        raise UsageError(
            f"{option} {parts}: there are only {spec.concurrency} slots (-c) to share. Take fewer "
            f"{option.strip('-')}, or more slots."
        )
    return spec.split(parts)
