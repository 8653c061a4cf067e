"""What a pipeline does with what is there already: look, ask again, parse again, write out, stop.

Each is about the pipeline's experiment, and Python's words are turned into those of the jobs.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from batchgen.api.answers import Exported, Failures, Reparsed, Retried, Status, Told
from batchgen.api.showing import Progress
from batchgen.api.words import COMMANDS
from batchgen.config import Config, model_setting
from batchgen.display.status import outdated_line
from batchgen.errors import ConfigError, UsageError
from batchgen.export import ExportRequest, Overwriting, column_names, format_of
from batchgen.items import Reason, State
from batchgen.jobs.experiments import summary_of
from batchgen.jobs.export import export as export_rows
from batchgen.jobs.failures import failures_of
from batchgen.jobs.lookup import experiment_named
from batchgen.jobs.present_parser import outdated, present_spec
from batchgen.jobs.reparse import ReparseRequest, reparse_experiment
from batchgen.jobs.retry import RetryRequest
from batchgen.jobs.retry import retry as retry_items
from batchgen.jobs.status import status_of
from batchgen.jobs.steer import stop as stop_workers
from batchgen.parsers import Parser, load_parser
from batchgen.store import open_store
from batchgen.text.json_text import dump_json
from batchgen.where import Where


async def status(config: Config) -> Status:
    config = _with_the_rows_parser(config)
    async with open_store(config.database) as store:
        summary = await summary_of(store, config.output_data.experiment_name)
        whole = await status_of(store, config, summary.name)
        return Status.of(summary.name, summary.counts, whole)


async def failures(config: Config, reason: str | None) -> Failures:
    async with open_store(config.database) as store:
        experiment = await experiment_named(store, config.output_data.experiment_name)
        (found,) = await failures_of(store, [experiment], reason and _reason(reason))
        return Failures.of(found.groups)


async def retry(
    config: Config,
    reason: str | Iterable[str] | None,
    ids: Iterable[str | int],
    message: str | None,
    done: bool,
    params: Mapping[str, Any],
    dry_run: bool,
) -> Retried:
    reasons = [reason] if isinstance(reason, str) else reason or ()
    request = RetryRequest(
        config.output_data.experiment_name, tuple(map(_reason, reasons)), message,
        tuple(map(str, ids)), done, dict(_setting(name, to) for name, to in params.items()),
    )  # fmt: skip
    async with open_store(config.database) as store:
        return Retried.of(await retry_items(store, request, dry_run=dry_run))


async def reparse(
    config: Config,
    parser: Parser | None,
    failed_only: bool,
    ids: Iterable[str | int],
    dry_run: bool,
) -> Reparsed:
    """By the `parser`; None: by the one that the experiment has."""
    given = tuple(map(str, ids))
    done_too = not failed_only and not given
    request = ReparseRequest(config.output_data.experiment_name, done_too, given)
    async with open_store(config.database) as store:
        experiment = await experiment_named(store, config.output_data.experiment_name)
        timeout_s = config.work.parse_timeout_s
        if parser is None:
            own = _with_the_rows_parser(config)
            parser = load_parser(await present_spec(store, own, experiment), config.directory)
        return Reparsed.of(
            await reparse_experiment(
                store,
                request,
                experiment,
                parser,
                timeout_s,
                dry_run=dry_run,
                say=Progress(quiet=True).warn,
            )
        )


async def export(
    config: Config, path: str | Path | None, format_name: str | None, where: str | None,
    failed: bool, columns: str | Iterable[str], guard: bool, force: bool,
) -> Exported:  # fmt: skip
    target = None if path is None else Path(path)
    request = ExportRequest(
        format_of(target, format_name, of_sheet=bool(columns) or not guard),
        State.FAILED if failed else State.DONE,
        None if where is None else Where(where),
        columns=column_names(columns) if isinstance(columns, str) else tuple(columns),
        is_guarded=guard,
    )
    display = Progress(quiet=True)
    overwriting = Overwriting(config.own_files, force, display.say)
    async with open_store(config.database) as store:
        experiment = await experiment_named(store, config.output_data.experiment_name)
        for old in (await outdated(store, _with_the_rows_parser(config), [experiment])).values():
            display.warn(outdated_line(old, COMMANDS))
        return Exported.of(
            await export_rows(store, config.output_data, experiment, target, request, overwriting)
        )


async def stop(config: Config, now: bool) -> Told:
    """Workers of other processes, on the same database."""
    async with open_store(config.database) as store:
        if not any(worker.alive for worker in await store.workers()):
            return Told(0)
        return Told(len((await stop_workers(store, now=now)).workers))


def _with_the_rows_parser(config: Config) -> Config:
    """A run's `extract_function` is what its answers are read with, whatever the config names."""
    return replace(config, names_parser=False)


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
