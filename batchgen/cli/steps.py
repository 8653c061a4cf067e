"""The steps of the job, each with what it says: enqueue a pool, work on it, export it.

`enqueue`, `work`, `export`, `run` and `demo` are made of them.
"""

import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchgen import __version__
from batchgen.cli.display import Display, say_result, stopping_line
from batchgen.cli.follow import kept_up_to_date, live_file
from batchgen.cli.lookup import experiment_named
from batchgen.cli.session import Session, counted
from batchgen.errors import BatchgenError, UsageError

if TYPE_CHECKING:
    from batchgen.config import Config
    from batchgen.export import Wanted
    from batchgen.items import Recipe
    from batchgen.jobs.enqueue import Enqueued
    from batchgen.jobs.processes import Part
    from batchgen.jobs.work import WorkFlags, WorkResult
    from batchgen.llm.prices import Estimate
    from batchgen.shutdown import Stop
    from batchgen.store import Experiment, Store
    from batchgen.worker import WorkSpec


@dataclass(frozen=True, slots=True)
class PoolJob:
    """What pool is to be enqueued, and how."""

    source: str
    samples: int = 1
    priority: int = 0
    limit: int | None = None
    other_recipe: str | None = None
    skip_path: Path | None = None
    as_json: bool = False


@contextmanager
def reading_pool(job: PoolJob) -> Iterator[Iterator[Any]]:
    """The items to enqueue. Opened before the database, so that a wrong name makes none."""
    from batchgen.pool import open_pool

    with closing(open_pool(job.source)) as entries:
        yield islice(entries, job.limit)


@contextmanager
def skipping(path: Path | None) -> Iterator[Callable[[Any], None] | None]:
    """Where bad lines go, or None when they stop the job."""
    if path is None:
        yield None
        return
    try:
        file = path.open("a", encoding="utf-8", errors="backslashreplace")
    except OSError as exc:
        raise UsageError(f"{path}: cannot write it ({exc.strerror}).") from exc
    with file:

        def skip(bad: Any) -> None:
            click.echo(f"skipped  {bad.where}: {bad.problem}", err=True)
            file.write(bad.text.rstrip("\n") + "\n")

        yield skip


async def enqueue_pool(
    session: Session, store: "Store", config: "Config", recipe: "Recipe", pool: Iterator[Any],
    job: PoolJob,
) -> None:  # fmt: skip
    """The first step: the items of the pool become rows."""
    import asyncio

    from batchgen.jobs.enqueue import Enqueued, enqueue
    from batchgen.store import OtherRecipe

    done = Enqueued()
    name = config.output_data.experiment_name
    mode = OtherRecipe(job.other_recipe or "stop")
    try:
        with skipping(job.skip_path) as skip:
            await enqueue(
                store, pool, recipe, name,
                other_recipe=mode, samples=job.samples, priority=job.priority, skip_invalid=skip,
                done=done, directory=config.directory,
            )  # fmt: skip
    except (UsageError, asyncio.CancelledError):
        if done.new:
            what = "row" if job.samples > 1 else "item"
            session.say(f"{name}: enqueued and kept {counted(done.new, what)} before that.")
        raise
    _warn_of_pool(session, job, done)
    if job.as_json:
        click.echo(json.dumps({"experiment": name, "read": done.read, **_samples_object(job),
                               "new": done.new, "skipped": done.skipped,
                               "dropped": done.dropped}))  # fmt: skip
    else:
        session.say(_enqueued_line(name, done))


def _warn_of_pool(session: Session, job: PoolJob, done: "Enqueued") -> None:
    if done.read == done.skipped == 0 and job.limit != 0:
        session.warn(f"{'stdin' if job.source == '-' else job.source}: the pool is empty")
    if done.unused:
        names = ", ".join(sorted(done.unused))
        session.warn(f"no template uses these variables: {names}")


def _samples_object(job: PoolJob) -> dict[str, int]:
    return {"samples": job.samples} if job.samples > 1 else {}


def _enqueued_line(name: str, done: "Enqueued") -> str:
    samples = f", {done.samples} samples each" if done.samples > 1 else ""
    line = f"{name}: {counted(done.read, 'item')} read{samples}, {done.new} new"
    if done.skipped:
        line += f", {done.skipped} invalid skipped"
    if done.dropped:
        line += f", {done.dropped} unfinished of the old recipe dropped"
    return line


async def dry_run_pool(session: Session, config: "Config", job: PoolJob) -> int:
    """The first step, without writing anything."""
    from batchgen.jobs.enqueue import dry_run, recipe_of
    from batchgen.llm.prices import Prices

    recipe, prices = recipe_of(config), Prices(config.model)
    measured = await _tokens_of_an_answer(config)
    with reading_pool(job) as pool, skipping(job.skip_path) as skip:
        done, first, estimate = dry_run(
            pool, recipe, prices, skip, measured, config.directory, job.samples
        )
    _warn_of_pool(session, job, done)
    if job.as_json:
        click.echo(json.dumps({
            "read": done.read, **_samples_object(job), "first_messages": first,
            "prompt_tokens": estimate.prompt_tokens,
            "completion_tokens": estimate.completion_tokens,
            "cost_usd": estimate.cost_usd, "is_measured": estimate.is_measured,
        }, ensure_ascii=False))  # fmt: skip
        return 0
    known = ", but for those it has already" if config.database.is_file() else ""
    each = f", {job.samples} samples each," if job.samples > 1 else ""
    click.echo(f"{counted(done.read, 'item')}{each} would be enqueued into "
               f"{config.output_data.experiment_name}{known}; nothing was written.")  # fmt: skip
    if done.read:
        click.echo(_estimate_line(estimate))
    for message in first or []:
        click.echo(f"\n{message.get('role')}:\n{message.get('content')}")
    return 0


async def _tokens_of_an_answer(config: "Config") -> float | None:
    """By the calls that this experiment has had, if any."""
    from batchgen.store import open_store

    if not config.database.is_file():
        return None
    async with open_store(config.database) as store:
        name = config.output_data.experiment_name
        chosen = [one.id for one in await store.experiments() if one.name == name]
        counts = await store.counts(chosen)
    tokens = counts.completion_tokens
    return tokens / counts.done if counts.done and tokens else None


def _estimate_line(estimate: "Estimate") -> str:
    line = f"Estimated: {estimate.prompt_tokens:,} tokens in"
    how = "as its items had so far" if estimate.is_measured else "at most, by max_tokens"
    if estimate.completion_tokens is not None:
        line += f", {round(estimate.completion_tokens):,} out ({how})"
    if estimate.cost_usd is not None:
        return f"{line}: ${estimate.cost_usd:,.4f}"
    why = "max_tokens is not set" if estimate.completion_tokens is None else (
        "the price is not known; see model.price"
    )  # fmt: skip
    return f"{line}; no cost, as {why}"


async def work_on(
    session: Session, store: "Store", config: "Config", spec: "WorkSpec", processes: int = 1, *,
    output: Path | None = None,
) -> "WorkResult":  # fmt: skip
    """The second step: workers, until nothing is left, they halt or are stopped. `output` is kept
    up to date meanwhile."""
    from batchgen.llm.client import check_settings
    from batchgen.shutdown import Stop, stop_on_signal

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
    session: Session, store: "Store", config: "Config", spec: "WorkSpec", stop: "Stop",
    display: "Display | Part",
) -> "WorkResult":  # fmt: skip
    from batchgen.jobs.work import work
    from batchgen.log import RunLog

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
    session: Session, store: "Store", config: "Config", spec: "WorkSpec"
) -> "WorkResult":
    """The second step as one of several processes, whose parent talks with the user."""
    from batchgen.jobs.processes import Part, obeying_the_parent
    from batchgen.shutdown import Stop

    stop, part = Stop(), Part()
    async with obeying_the_parent(stop, part.orders):
        return await _work_logged(session, store, config, spec, stop, part)


async def _work_in_processes(
    session: Session, store: "Store", spec: "WorkSpec", processes: int, stop: "Stop",
    display: Display,
) -> "WorkResult":  # fmt: skip
    from batchgen.jobs.processes import shares, work_in_processes

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


async def _name_of(store: "Store", experiment_id: int) -> str:
    return next(one.name for one in await store.experiments() if one.id == experiment_id)


async def do_whole_job(
    session: Session, config: "Config", job: PoolJob, flags: "WorkFlags",
    output: Path | None = None,
) -> int:  # fmt: skip
    """All three steps, on one open database."""
    from batchgen.jobs.enqueue import recipe_of
    from batchgen.store import open_store

    recipe = recipe_of(config)
    with reading_pool(job) as pool:
        async with open_store(config.database, create=True) as store:
            await enqueue_pool(session, store, config, recipe, pool, job)
            return await _work_and_export(session, store, config, flags, output)


async def _work_and_export(
    session: Session, store: "Store", config: "Config", flags: "WorkFlags", output: Path | None
) -> int:
    from batchgen.jobs.work import spec_of

    experiment = await experiment_named(store, config.output_data.experiment_name)
    spec = spec_of(config, (experiment.id,), flags)
    result = await work_on(session, store, config, spec, flags.processes)
    if result.exit_code in (0, 3):
        await export_to(session, store, config, experiment, output)
    return result.exit_code


async def export_to(
    session: Session, store: "Store", config: "Config", experiment: "Experiment",
    path: Path | None, wanted: "Wanted | None" = None, *, as_json: bool = False,
) -> None:  # fmt: skip
    """The last step: the finished rows (or what is wanted of them) as a file. Without `wanted`, its
    name says the format."""
    from batchgen.export import Wanted, export_file, format_by_name, output_path

    wanted = wanted or Wanted(format_by_name(path))
    if path is None:
        path = output_path(config.output_data, experiment, wanted)
    if path == Path("-"):
        await _export_to_stdout(store, experiment, wanted)
        return
    exported = await export_file(store, experiment, path, wanted)
    if as_json:
        shards = {"files": [str(file.path) for file in exported.files]}
        said = {"path": str(path), "rows": exported.rows, **(shards if wanted.shards > 1 else {})}
        click.echo(json.dumps(said, ensure_ascii=False))
    else:
        files = f" in {wanted.shards} files" if wanted.shards > 1 else ""
        session.say(f"{counted(exported.rows, 'row')}{files} -> {path}")


async def _export_to_stdout(store: "Store", experiment: "Experiment", wanted: "Wanted") -> None:
    from batchgen.export import export_stream

    try:
        await export_stream(store, experiment, sys.stdout.buffer, wanted)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise BatchgenError(f"stdout: cannot write the export ({exc.strerror}).") from exc
