"""What export, run and demo say of the file that they write."""

import sys
from collections.abc import Sequence
from pathlib import Path

from batchgen.cli.hints import batchgen, commands, of_experiment, of_step
from batchgen.cli.progress import Latest, showing_progress
from batchgen.cli.session import Session, counted, print_json
from batchgen.cli.terminal import data_file, is_terminal, writing_to_stdout
from batchgen.config import Config
from batchgen.display.status import outdated_line
from batchgen.errors import Remedy, UsageError
from batchgen.export import (
    ExportRequest,
    LeftOut,
    Overwriting,
    export_stream,
    follow_to_stream,
    format_of,
)
from batchgen.jobs.export import ExportResult, export, follow, left_out_of, rows_there
from batchgen.jobs.lookup import chosen_experiments
from batchgen.jobs.present_parser import outdated
from batchgen.store import Experiment, Store

_STDOUT = Path("-")


async def export_to(
    session: Session, store: Store, config: Config, experiment: Experiment,
    path: Path | None, request: ExportRequest | None = None, *, force: bool = False,
    as_json: bool = False,
) -> None:  # fmt: skip
    """Write the finished rows, or what is requested of them, and say how many went where; first,
    whether some have the value of another parser than the present one."""
    await _warn_of_outdated(session, store, config, experiment)
    if path == _STDOUT:
        with writing_to_stdout():
            request = request or ExportRequest(format_of(path))
            if not request.format.is_text and is_terminal(sys.stdout):
                problem = f"format {request.format.name}: no terminal can show it."
                raise UsageError(problem, Remedy.NAME_FILE)
            file = data_file(is_json=request.format.is_json)
            rows, absent, left_out = await export_stream(store, experiment, file, request)
        _warn_of_absent(session, absent)
        _warn_of_where(session, request)
        left_out = left_out or await left_out_of(store, experiment, request, rows)
        stays = await _stays_stale(store, experiment, left_out)
        if text := _left_out_text(left_out, request, stays=stays):
            session.say(f"{counted(rows, 'row')}; {text}")
        return
    overwriting = Overwriting(config.own_files, force, session.say)
    total = await rows_there(store, experiment, request or ExportRequest())
    read = Latest(0)
    with showing_progress(session, lambda: f"exporting: {read.value:,} of {total:,} rows"):
        exported = await export(
            store, config.output_data, experiment, path, request, overwriting, read.put
        )
    _warn_of_where(session, request)
    stays = await _stays_stale(store, experiment, exported.left_out)
    _say_result(session, exported, request, stays=stays, as_json=as_json)


async def follow_to(
    session: Session, store: Store, config: Config, experiment: Experiment,
    path: Path | None, *, force: bool = False, as_json: bool,
) -> None:  # fmt: skip
    """The same while items finish, until nothing is left to be done."""
    await _warn_of_outdated(session, store, config, experiment)
    if path == _STDOUT:
        with writing_to_stdout():
            await follow_to_stream(store, experiment, data_file(is_json=True), session.warn)
        return
    overwriting = Overwriting(config.own_files, force, session.say)
    followed = await follow(
        store, config.output_data, experiment, path, overwriting, say=session.say
    )
    stays = await _stays_stale(store, experiment, followed.left_out)
    _say_result(session, followed, None, stays=stays, as_json=as_json)


async def _stays_stale(store: Store, experiment: Experiment, left_out: LeftOut) -> bool:
    """Whether no stale row is made by the steps any more."""
    if not left_out.stale:
        return False
    steps = await chosen_experiments(store, experiment.name)
    return not await store.stale_to_ask([one.id for one in steps])


async def _warn_of_outdated(
    session: Session, store: Store, config: Config, experiment: Experiment
) -> None:
    steps = await chosen_experiments(store, experiment.name)
    for old in (await outdated(store, config, steps)).values():
        session.warn(outdated_line(old, commands()))


def _warn_of_absent(session: Session, columns: Sequence[str]) -> None:
    if columns:
        session.warn(f"columns: no row has {', '.join(columns)}; what stands there is empty")


def _warn_of_where(session: Session, request: ExportRequest | None) -> None:
    if request and request.where and (absent := request.where.absent):
        session.warn(f"where: no row has {', '.join(absent)}, so that it is null in all of them")


def _say_result(
    session: Session, result: ExportResult, request: ExportRequest | None, *, stays: bool,
    as_json: bool,
) -> None:  # fmt: skip
    _warn_of_absent(session, result.absent_columns)
    if as_json:
        print_json(result.to_json())
    else:
        files = f" in {len(result.shards)} files" if result.shards else ""
        line = f"{counted(result.rows, 'row')}{files} -> {result.path}"
        left_out = _left_out_text(result.left_out, request, stays=stays)
        session.say(f"{line}; {left_out}" if left_out else line)


def _left_out_text(left_out: LeftOut, request: ExportRequest | None, *, stays: bool) -> str:
    """What is not in the file, and how to get it; empty: all is. `stays`: what is stale is made by
    the steps no more."""
    parts = []
    if left_out.failed:
        how = f"{batchgen()} export --failed{of_experiment()}{of_step()}"
        parts.append(f"{left_out.failed} failed ({how})")
    parts += [f"{left_out.open} not answered yet"] if left_out.open else []
    if left_out.stale:
        retry = f"{batchgen()} retry --stale{of_experiment()}"
        how = "made by the steps no more" if stays else retry
        parts.append(f"{left_out.stale} stale ({how})")
    without = left_out.without_answer
    parts += [f"{without} without a model's answer"] if without else []
    if left_out.not_chosen:
        parts.append(f"{left_out.not_chosen} done, but not as {_chosen_by(request)}")
    return f"left out: {', '.join(parts)}" if parts else ""


def _chosen_by(request: ExportRequest | None) -> str:
    if request is None or request.reviewed is None:
        return "--where says"
    return "--reviewed says" if request.where is None else "--where and --reviewed say"
