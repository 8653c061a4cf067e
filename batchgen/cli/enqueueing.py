"""What enqueue, run and demo say of a data pool, and how it becomes rows."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

import click
from msgspec import Struct

from batchgen.cli.completion import files
from batchgen.cli.following import say_followed
from batchgen.cli.hints import commands
from batchgen.cli.options import (
    base_url_option,
    experiment_option,
    gathered,
    limit_option,
    model_option,
    prompt_option,
    recipe_option,
    samples_option,
    skip_option,
    system_option,
)
from batchgen.cli.parsing import use_asked, warn_of_parser
from batchgen.cli.progress import Pace, showing_progress
from batchgen.cli.session import Session, counted, print_json
from batchgen.cli.terminal import print_text, say
from batchgen.config import Config
from batchgen.display.items import prompt_text
from batchgen.display.status import outdated_line
from batchgen.display.steps import steps_text
from batchgen.errors import UsageError
from batchgen.export import refuse_kept
from batchgen.jobs.asked import Asked, asked_of
from batchgen.jobs.dry_run import DryRun, dry_run
from batchgen.jobs.enqueue import enqueue
from batchgen.jobs.lookup import named
from batchgen.jobs.pool_reader import Enqueued, checked_at_start
from batchgen.jobs.present_parser import outdated
from batchgen.jobs.sources import note_own_files, only_offers, open_source, outdated_results
from batchgen.llm.prices import Prices
from batchgen.pool import BadLine
from batchgen.store import Experiment, OtherRecipe, Store, open_store_if_there


class PoolFlags(Struct, frozen=True, kw_only=True):
    """Which pool is to be enqueued, and how; `experiment` is None for the config's."""

    source: str
    experiment: str | None = None
    samples: int = 1
    priority: int = 0
    limit: int | None = None
    other_recipe: str | None = None
    skip_path: Path | None = None
    where: str | None = None
    prompt: str | None = None
    system: str | None = None
    model: str | None = None
    base_url: str | None = None

    @property
    def settings(self) -> dict[str, str | None]:
        """What stands in place of the config's settings, by their names."""
        return {
            "experiment_name": self.experiment, "user_prompt": self.prompt,
            "system_prompt": self.system, "model": self.model, "base_url": self.base_url,
        }  # fmt: skip


OPTIONS = {
    "experiment_name": "--experiment", "user_prompt": "--prompt", "system_prompt": "--system",
    "model": "--model", "base_url": "--base-url",
}  # fmt: skip
"""By what a setting of `PoolFlags` is given."""
_BAD_LINES_SHOWN = 10
where_option = click.option(
    "--where", metavar="EXPR",
    help="Of results:EXPERIMENT only the rows for which this holds, as export --where has it.",
)  # fmt: skip
pool_options = gathered(
    "pool",
    PoolFlags,
    click.argument("source", shell_complete=files),
    experiment_option,
    samples_option,
    limit_option,
    recipe_option,
    skip_option,
    where_option,
    prompt_option,
    system_option,
    model_option,
    base_url_option,
)


@contextmanager
def reading_pool(flags: PoolFlags, config: Config, asked: Asked) -> Iterator[Iterator[Any]]:
    """The items to enqueue. Opened, and its start checked, before the database, so that a wrong
    name or a wrong file makes none."""
    with skipping(flags, config):
        pass  # a place for bad lines that cannot be written makes none either
    with closing(open_source(flags.source, config, where=flags.where)) as entries:
        pool = entries if flags.limit is None else _limited(entries, flags.limit)
        skip = None if flags.skip_path is None else (lambda _: None)
        yield checked_at_start(pool, asked.recipe, config.directory, skip, asked.chain)


def _limited(entries: Iterator[Any], limit: int) -> Iterator[Any]:
    """The first `limit` entries; blank ones do not count."""
    left = limit
    while left != 0 and (entry := next(entries, None)) is not None:
        if not (isinstance(entry, BadLine) and entry.blank):
            left -= 1
        yield entry


class _BadLines:
    """Takes the bad lines: shows the first, and writes all to a file if there is one."""

    def __init__(self, file: IO[str] | None) -> None:
        self._file = file
        self.n = 0

    def __call__(self, bad: BadLine) -> None:
        self.n += 1
        if self.n <= _BAD_LINES_SHOWN:
            say(f"skipped  {bad.where}: {bad.problem}")
        if self._file is not None:
            self._file.write(bad.text.rstrip("\n") + "\n")

    def say_rest(self, path: Path) -> None:
        if self.n > _BAD_LINES_SHOWN:
            rest = self.n - _BAD_LINES_SHOWN
            say(f"skipped  {counted(rest, 'more line')}, all of them in {path}")


@contextmanager
def skipping(flags: PoolFlags, config: Config, *, write: bool = True) -> Iterator[_BadLines | None]:
    """Where bad lines go, or None when they stop the job. A file without any is not left behind;
    with `write` off there is none."""
    path = flags.skip_path
    if path is None:
        yield None
        return
    refuse_kept(path, (*config.own_files, Path(flags.source)))
    if not write:
        yield _BadLines(None)
        return
    is_new = not path.exists()
    try:
        opened = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        file = os.fdopen(opened, "a", encoding="utf-8", errors="backslashreplace")
    except OSError as exc:
        raise UsageError(f"{path}: cannot write it ({exc.strerror}).") from exc
    bad_lines = _BadLines(file)
    try:
        with file:
            yield bad_lines
    finally:
        bad_lines.say_rest(path)
        if is_new and not bad_lines.n:
            path.unlink(missing_ok=True)


async def enqueue_pool(
    session: Session, store: Store, config: Config, asked: Asked, pool: Iterator[Any],
    flags: PoolFlags, *, as_json: bool = False,
) -> None:  # fmt: skip
    """The first step: the items of the pool become rows."""
    progress, pace = Enqueued(), Pace()
    name = config.output_data.experiment_name
    for old in await outdated_results(store, config, flags.source):
        session.warn(outdated_line(old, commands()))
    mode = OtherRecipe(flags.other_recipe or "stop")
    before = 0
    if known := await _find_experiment(store, name):
        before = (await store.counts([known.id])).total
        planned = await store.planned_intake(known.id, asked.recipe, mode, flags.samples)
        is_chain_changed = asked.chain is not None and mode is not OtherRecipe.STOP
        if planned.choice or mode is OtherRecipe.REPLACE or is_chain_changed:
            # First, as what the parser can read now is done, and so is not asked again.
            await use_asked(session, store, config, asked)
    try:
        with (
            skipping(flags, config) as skip,
            showing_progress(session, lambda: _so_far_line(name, progress, pace)),
        ):
            done = await enqueue(
                store, pool, asked.recipe, name, parser=asked.version, chain=asked.chain,
                other_recipe=mode, prices=Prices(config.model),
                samples=flags.samples, priority=flags.priority,
                skip_invalid=skip, progress=progress, directory=config.directory,
                parse_timeout_s=config.work.parse_timeout_s, say=session.say,
            )  # fmt: skip
    except (UsageError, asyncio.CancelledError):
        if progress.new:
            what = "row" if flags.samples > 1 else "item"
            session.say(f"{name}: enqueued and kept {counted(progress.new, what)} before that.")
        raise
    await note_own_files(store, config, flags.source)
    _warn_of_pool(session, flags, done)
    if done.new:
        for reader in asked.readers:
            warn_of_parser(session, reader)
    say_followed(session, name, done.followed)
    if as_json:
        print_json({"experiment": name, **done.to_json()})
    else:
        session.say(_enqueued_line(name, done, 0 if mode is OtherRecipe.ADD else before))


def _so_far_line(name: str, progress: Enqueued, pace: Pace) -> str:
    """By what it does at the moment, of which there are so many a second."""
    rate = "" if progress.following else f", {pace.of(progress.read)}"
    return f"{name}: {progress.so_far}{rate}"


async def _find_experiment(store: Store, name: str) -> Experiment | None:
    return next((one for one in await store.experiments() if one.name == name), None)


def _warn_of_pool(session: Session, flags: PoolFlags, done: Enqueued) -> None:
    if done.read == done.skipped == 0 and flags.limit != 0:
        session.warn(f"{'stdin' if flags.source == '-' else flags.source}: the pool is empty")
    if done.unused and not only_offers(flags.source):
        session.warn(done.unused_words)
    if done.empty:
        session.warn(done.empty_words)


def _enqueued_line(name: str, done: Enqueued, before: int) -> str:
    """`before`: so many rows were there, which some of the pool might have been expected to be."""
    samples = f", {done.samples} samples each" if done.samples > 1 else ""
    line = f"{name}: {counted(done.read, 'item')} read{samples}, {done.new} new"
    if done.skipped:
        line += f", {done.skipped} invalid skipped"
    if done.blank:
        line += f", {counted(done.blank, 'blank line')} passed over"
    if done.asked_anew:
        line += f", {done.asked_anew} asked with the new recipe"
    if before and done.new and done.new == done.read * done.samples:
        line += f"; the experiment had {counted(before, 'row')} before, of other items"
    return line


async def dry_run_pool(session: Session, config: Config, flags: PoolFlags, *, as_json: bool) -> int:
    """The first step, without writing anything."""
    asked, progress, pace = asked_of(config), Enqueued(), Pace()
    await _warn_of_outdated(session, config)
    with (
        reading_pool(flags, config, asked) as pool,
        skipping(flags, config, write=False) as skip,
        showing_progress(session, lambda: f"{progress.read:,} items, {pace.of(progress.read)}"),
    ):
        mode = OtherRecipe(flags.other_recipe or "stop")
        found = await dry_run(
            config, asked, pool, other_recipe=mode, samples=flags.samples, skip_invalid=skip,
            progress=progress,
        )  # fmt: skip
    _warn_of_pool(session, flags, found.enqueued)
    if as_json:
        print_json(found.to_json())
        return 0
    print_text(_dry_run_line(found, config.output_data.experiment_name))
    if found.steps:
        print_text(steps_text(found.steps))
    if found.calls:
        print_text(_estimate_line(found))
    if found.first_prompt:
        print_text(prompt_text(found.first_prompt))
    return 0


async def _warn_of_outdated(session: Session, config: Config) -> None:
    """What is counted as done may fail by the present parser, and the other way round."""
    async with open_store_if_there(config.database) as store:
        if store is None:
            return
        found = named(await store.experiments(), config.output_data.experiment_name)
        for old in (await outdated(store, config, found)).values():
            session.warn(f"{outdated_line(old, commands())}. What follows is as it is before that.")


def _dry_run_line(found: DryRun, name: str) -> str:
    done = found.enqueued
    items = counted(done.read, "item")
    if found.asks_all:
        each = f", {done.samples} samples each," if done.samples > 1 else ""
        return f"{items}{each} would be enqueued into {name}; nothing was written."
    samples = f", {done.samples} samples each" if done.samples > 1 else ""
    line = f"{items} read{samples}, {done.new:,} new to {name}"
    if done.asked_anew:
        most = "at most " if found.asks_fewer else ""
        line += f", {most}{done.asked_anew:,} to be asked with the new recipe"
    if found.waiting:
        line += f", {found.waiting:,} waiting already"
    if found.made:
        from batchgen.jobs.step_changes import made_text  # here: few have steps

        names = [step.step for step in found.steps]
        line += f"; new rows of what is done already: {made_text(found.made, names)}"
    if found.outdates_gathered:
        from batchgen.jobs.step_changes import GATHERED_BEFORE  # here, too

        line += f"; {GATHERED_BEFORE}"
    return f"{line}; nothing was written."


def _estimate_line(found: DryRun) -> str:
    calls = ""
    if found.steps or not found.asks_all:
        bounds = {step.bound for step in found.steps} - {""}
        bound = f"{bounds.pop() if len(bounds) == 1 else 'about'} " if bounds else ""
        calls = f" for {bound}{counted(found.calls, 'call')}"
    line = f"Estimated{calls}: {found.prompt_tokens:,} tokens in"
    how = (
        "as its items had so far"
        if found.is_measured
        else "by max_tokens"
        if found.steps
        else "at most, by max_tokens"
    )
    if found.completion_tokens:  # an embedding has none
        line += f", {round(found.completion_tokens):,} out ({how})"
    if found.cost_usd is not None:
        note = f" ({found.cost_note})" if found.cost_note else ""
        return f"{line}: ${found.cost_usd:,.4f}{note}{_in_batches(found)}"
    why = "max_tokens is not set" if found.completion_tokens is None else (
        "the price is not known; see model.price"
    )  # fmt: skip
    return f"{line}; no cost, as {why}"


def _in_batches(found: DryRun) -> str:
    """What the same costs there, in a line of its own; nothing where that is next to nothing."""
    cost_usd = found.batch_cost_usd
    if not cost_usd or round(cost_usd, 4) == 0:
        return ""
    return f"\nIn batches (work --batch), if the server takes them: ${cost_usd:,.4f}"
