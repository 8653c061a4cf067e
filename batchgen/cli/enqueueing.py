"""What enqueue, run and demo say of a data pool, and how it becomes rows."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click

from batchgen.cli.options import (
    experiment_option,
    gathered,
    limit_option,
    recipe_option,
    samples_option,
    skip_option,
)
from batchgen.cli.session import Session, counted, print_json
from batchgen.config import Config
from batchgen.errors import UsageError
from batchgen.items import Recipe
from batchgen.jobs.dry_run import DryRun, dry_run
from batchgen.jobs.enqueue import Enqueued, enqueue
from batchgen.pool import open_pool
from batchgen.store import OtherRecipe, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFlags:
    """Which pool is to be enqueued, and how; `experiment` is None for the config's."""

    source: str
    experiment: str | None = None
    samples: int = 1
    priority: int = 0
    limit: int | None = None
    other_recipe: str | None = None
    skip_path: Path | None = None


pool_options = gathered(
    "pool",
    PoolFlags,
    click.argument("source"),
    experiment_option,
    samples_option,
    limit_option,
    recipe_option,
    skip_option,
)


@contextmanager
def reading_pool(flags: PoolFlags) -> Iterator[Iterator[Any]]:
    """The items to enqueue. Opened before the database, so that a wrong name makes none."""
    with closing(open_pool(flags.source)) as entries:
        yield islice(entries, flags.limit)


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
    session: Session, store: Store, config: Config, recipe: Recipe, pool: Iterator[Any],
    flags: PoolFlags, *, as_json: bool = False,
) -> None:  # fmt: skip
    """The first step: the items of the pool become rows."""
    progress = Enqueued()
    name = config.output_data.experiment_name
    mode = OtherRecipe(flags.other_recipe or "stop")
    try:
        with skipping(flags.skip_path) as skip:
            done = await enqueue(
                store, pool, recipe, name,
                other_recipe=mode, samples=flags.samples, priority=flags.priority,
                skip_invalid=skip, progress=progress, directory=config.directory,
            )  # fmt: skip
    except (UsageError, asyncio.CancelledError):
        if progress.new:
            what = "row" if flags.samples > 1 else "item"
            session.say(f"{name}: enqueued and kept {counted(progress.new, what)} before that.")
        raise
    _warn_of_pool(session, flags, done)
    if as_json:
        print_json({"experiment": name, **done.to_json()})
    else:
        session.say(_enqueued_line(name, done))


def _warn_of_pool(session: Session, flags: PoolFlags, done: Enqueued) -> None:
    if done.read == done.skipped == 0 and flags.limit != 0:
        session.warn(f"{'stdin' if flags.source == '-' else flags.source}: the pool is empty")
    if done.unused:
        names = ", ".join(sorted(done.unused))
        session.warn(f"no template uses these variables: {names}")


def _enqueued_line(name: str, done: Enqueued) -> str:
    samples = f", {done.samples} samples each" if done.samples > 1 else ""
    line = f"{name}: {counted(done.read, 'item')} read{samples}, {done.new} new"
    if done.skipped:
        line += f", {done.skipped} invalid skipped"
    if done.dropped:
        line += f", {done.dropped} unfinished of the old recipe dropped"
    return line


async def dry_run_pool(session: Session, config: Config, flags: PoolFlags, *, as_json: bool) -> int:
    """The first step, without writing anything."""
    with reading_pool(flags) as pool, skipping(flags.skip_path) as skip:
        found = await dry_run(config, pool, samples=flags.samples, skip_invalid=skip)
    _warn_of_pool(session, flags, found.enqueued)
    if as_json:
        print_json(found.to_json())
        return 0
    known = ", but for those it has already" if found.has_database else ""
    each = f", {flags.samples} samples each," if flags.samples > 1 else ""
    click.echo(f"{counted(found.enqueued.read, 'item')}{each} would be enqueued into "
               f"{config.output_data.experiment_name}{known}; nothing was written.")  # fmt: skip
    if found.enqueued.read:
        click.echo(_estimate_line(found))
    for message in found.first_messages or []:
        click.echo(f"\n{message.get('role')}:\n{message.get('content')}")
    return 0


def _estimate_line(found: DryRun) -> str:
    line = f"Estimated: {found.prompt_tokens:,} tokens in"
    how = "as its items had so far" if found.is_measured else "at most, by max_tokens"
    if found.completion_tokens is not None:
        line += f", {round(found.completion_tokens):,} out ({how})"
    if found.cost_usd is not None:
        return f"{line}: ${found.cost_usd:,.4f}"
    why = "max_tokens is not set" if found.completion_tokens is None else (
        "the price is not known; see model.price"
    )  # fmt: skip
    return f"{line}; no cost, as {why}"
