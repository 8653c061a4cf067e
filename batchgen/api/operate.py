"""What a pipeline does with what is there already: look, ask again, parse again, write out, stop.

Each is about the pipeline's experiment, and Python's words are turned into those of the jobs.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from batchgen.api.answers import Exported, Failures, Reparsed, Retried, Status, Told
from batchgen.api.showing import Progress
from batchgen.api.step import StepObjects
from batchgen.api.words import COMMANDS
from batchgen.config import Config, model_setting
from batchgen.display.status import outdated_line
from batchgen.errors import ConfigError, UsageError
from batchgen.export import (
    MOST_SHARDS,
    ExportRequest,
    Extra,
    Overwriting,
    Reviewed,
    column_names,
    format_of,
)
from batchgen.items import Reason, State
from batchgen.jobs.export import Exportable, exportable
from batchgen.jobs.export import export as export_rows
from batchgen.jobs.failures import failures_of
from batchgen.jobs.lookup import chosen_experiments
from batchgen.jobs.present_parser import outdated, present_spec
from batchgen.jobs.reparse import ReparseRequest, reparse_experiment
from batchgen.jobs.reparsing import ReparseResult
from batchgen.jobs.retry import RetryRequest
from batchgen.jobs.retry import retry as retry_items
from batchgen.jobs.retry_stale import retry_stale as retry_stale_rows
from batchgen.jobs.status import status_of
from batchgen.jobs.steer import stop as stop_workers
from batchgen.parsers import Parser, load_parser
from batchgen.store import Experiment, Store, open_store
from batchgen.text.json_text import dump_json
from batchgen.where import Where


async def status(config: Config, step: str | None) -> Status:
    config = _with_the_rows_parser(config)
    name = config.output_data.experiment_name
    async with open_store(config.database) as store:
        whole = await status_of(store, config, name, step)
        return Status.of(whole.experiments[0], whole)


async def failures(config: Config, reason: str | None, step: str | None) -> Failures:
    async with open_store(config.database) as store:
        name = config.output_data.experiment_name
        experiments = await chosen_experiments(store, name, step)
        found = await failures_of(store, experiments, reason and _reason(reason))
        groups = [
            (one.step, group)
            for one, its in zip(experiments, found, strict=True)
            for group in its.groups
        ]
        return Failures.of(groups)


async def retry(
    config: Config,
    reason: str | Iterable[str] | None,
    ids: Iterable[str | int],
    message: str | None,
    done: bool,
    params: Mapping[str, Any],
    step: str | None,
    dry_run: bool,
) -> Retried:
    reasons = [reason] if isinstance(reason, str) else reason or ()
    request = RetryRequest(
        config.output_data.experiment_name, tuple(map(_reason, reasons)), message,
        tuple(map(str, ids)), done, dict(_setting(name, to) for name, to in params.items()), step,
    )  # fmt: skip
    async with open_store(config.database) as store:
        return Retried.of(await retry_items(store, request, dry_run=dry_run))


async def retry_stale(
    config: Config, step: str | None, dry_run: bool, *, chosen: bool
) -> Retried:  # fmt: skip
    """`chosen`: failed rows were chosen too, which cannot be."""
    if chosen:
        raise UsageError("stale=True goes with step=... and dry_run=True alone.")
    async with open_store(config.database) as store:
        name = config.output_data.experiment_name
        return Retried.of_stale(await retry_stale_rows(store, name, step, dry_run=dry_run))


class ReparseWords(Struct, frozen=True):
    """Which answers are parsed again."""

    failed_only: bool
    ids: tuple[str, ...]
    step: str | None
    dry_run: bool


async def reparse(
    config: Config, parser: Parser | None, objects: StepObjects, words: ReparseWords
) -> Reparsed:
    """By the `parser`; None: by the one that the experiment has, or that its steps are given."""
    name = config.output_data.experiment_name
    done_too = not words.failed_only and not words.ids
    request = ReparseRequest(name, done_too, words.ids, words.step)
    async with open_store(config.database) as store:
        chosen = await chosen_experiments(store, name, words.step)
        if parser is not None and len(chosen) > 1:
            raise UsageError("extract_function: say which step is parsed by it, with step=...")
        found = [
            await reparse_experiment(
                store, request, one, parser or await _reader(store, config, one, objects),
                config.work.parse_timeout_s, dry_run=words.dry_run, say=Progress(quiet=True).warn,
            )
            for one in chosen
            if not one.runs_code
        ]  # fmt: skip
        return Reparsed.of(ReparseResult.sum_of(found, dry_run=words.dry_run))


async def _reader(
    store: Store, config: Config, experiment: Experiment, objects: StepObjects
) -> Parser:
    if experiment.step is not None and (own := objects.parsers.get(experiment.step)):
        return own
    spec = await present_spec(store, _with_the_rows_parser(config), experiment)
    return load_parser(spec, config.directory)


class ExportWords(Struct, frozen=True):
    """What is to be in a file, and how."""

    format_name: str | None
    where: str | None
    failed: bool
    failed_too: bool
    columns: str | tuple[str, ...]
    guard: bool
    extras: tuple[str, ...]
    group: bool
    shards: int
    summary: Path | None
    force: bool
    step: str | None
    reviewed: str | None

    def request(self, path: Path | None, of: Exportable) -> ExportRequest:
        if self.failed and self.failed_too:
            raise UsageError("failed and failed_too exclude each other.")
        if not 1 <= self.shards <= MOST_SHARDS:
            raise UsageError(f"shards: must be from 1 to {MOST_SHARDS}.")
        of_sheet = bool(self.columns) or not self.guard
        columns = column_names(self.columns) if isinstance(self.columns, str) else self.columns
        return ExportRequest(
            format_of(path, self.format_name, of_sheet=of_sheet),
            State.FAILED if self.failed else State.DONE,
            None if self.where is None else Where(self.where, of.where_names),
            shards=self.shards,
            summary=self.summary,
            extras=tuple(map(_extra, dict.fromkeys(self.extras))),
            group=self.group,
            failed_too=self.failed_too,
            columns=columns,
            is_guarded=self.guard,
            step=of.step,
            groups=of.groups,
            reviewed=None if self.reviewed is None else _reviewed(self.reviewed),
            review_names=of.review_names,
        )


async def export(config: Config, path: Path | None, words: ExportWords) -> Exported:
    display = Progress(quiet=True)
    overwriting = Overwriting(config.own_files, words.force, display.say)
    async with open_store(config.database) as store:
        of = await exportable(store, config.output_data.experiment_name, words.step)
        request = words.request(path, of)
        steps = await chosen_experiments(store, of.experiment.name)
        for old in (await outdated(store, _with_the_rows_parser(config), steps)).values():
            display.warn(outdated_line(old, COMMANDS))
        output, experiment = config.output_data, of.experiment
        return Exported.of(await export_rows(store, output, experiment, path, request, overwriting))


async def stop(config: Config, now: bool) -> Told:
    """Workers of other processes, on the same database."""
    async with open_store(config.database) as store:
        if not any(worker.alive for worker in await store.workers()):
            return Told(0)
        return Told(len((await stop_workers(store, now=now)).workers))


def _with_the_rows_parser(config: Config) -> Config:
    """A run's `extract_function` is what its answers are read with, whatever the config names."""
    return replace(config, names_parser=False)


def _extra(word: str) -> Extra:
    try:
        return Extra(word)
    except ValueError:
        raise UsageError(f"extras: {word!r} is not one of {', '.join(Extra)}.") from None


def _reviewed(word: str) -> Reviewed:
    try:
        return Reviewed(word)
    except ValueError:
        raise UsageError(f"reviewed: {word!r} is not one of {', '.join(Reviewed)}.") from None


def _reason(word: str) -> Reason:
    try:
        return Reason(word)
    except ValueError:
        raise UsageError(f"reason: {word!r} is not one of {', '.join(Reason)}") from None


def _setting(name: str, value: Any) -> tuple[str, Any]:
    """A parameter of the request, checked as in the config; None leaves it out."""
    if name == "model" and isinstance(value, str):
        return name, value
    try:
        return model_setting(f"{name}={dump_json(value)}")
    except ConfigError as exc:
        raise ConfigError(f"params: {exc}") from None
