"""Results as files: streamed in the order of the pool, a page of rows at a time.

This is the door. Behind it:

    request         what an export is asked for, and what came of it
    reviewed        rows with what people said of them, and their edits
    formats         the formats, one entry each
    plain           all results as JSON lines; no stored text is parsed
    groups          the samples of an item in one line
    convert         everything else: other formats, chosen rows, several files
    source          the rows of an export, page by page
    chains/         experiments with steps: a line a chain, in every format
    chat            the rows of the other formats: conversations
    table, parquet_table    tables, for a spreadsheet and for programs
    writer, columns, chosen_columns, value_type    what these share
    summary         a file beside the export that describes it
    live_file       JSON lines in finishing order, kept up to date
    follow          keeps a live file up to date while workers work
    lines, files    a result as a line; a file that appears whole or not at all
    targets         where an export may go, and what it never writes over
    tail            a file that is only appended to
"""

import asyncio
import os
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from msgspec import Struct
from msgspec.structs import replace

from batchgen.clock import now_ms
from batchgen.config import OutputConfig
from batchgen.errors import BatchgenError, Remedy, UsageError
from batchgen.export.chosen_columns import column_names
from batchgen.export.columns import GROUPS
from batchgen.export.convert import Converted, convert
from batchgen.export.files import Hashed, is_special, sha256_of, whole_file
from batchgen.export.follow import (
    follow_to_file,
    follow_to_stream,
    ids_of_steps,
    keep_live_file,
)
from batchgen.export.formats import FORMATS, FormatSpec, format_of
from batchgen.export.groups import write_groups
from batchgen.export.lines import matches, result_object
from batchgen.export.live_file import LiveFile, check_live_file
from batchgen.export.plain import write_plain
from batchgen.export.request import (
    MOST_SHARDS,
    Exported,
    ExportedFile,
    ExportRequest,
    LeftOut,
    Progress,
    untold,
)
from batchgen.export.reviewed import (
    REVIEW_NAMES,
    Reviewed,
    chains_with_reviews,
    with_reviews,
)
from batchgen.export.source import ResultRows
from batchgen.export.summary import summary_text
from batchgen.export.targets import (
    NO_OVERWRITING,
    Overwriting,
    check_target,
    claim_target,
    keep_if_changed,
    refuse_kept,
)
from batchgen.export.writer import Extra
from batchgen.items import State
from batchgen.store import Experiment, ExportRecord, Store

__all__ = [
    "FORMATS", "GROUPS", "MOST_SHARDS", "NO_OVERWRITING", "REVIEW_NAMES", "ExportRequest", "Extra",
    "FormatSpec", "LeftOut", "LiveFile", "Overwriting", "Progress", "Reviewed",
    "chains_with_reviews", "check_export", "check_live_file",
    "check_targets", "column_names", "export_file", "export_stream", "follow_to_file",
    "follow_to_stream", "format_of", "ids_of_steps", "keep_live_file", "live_path", "matches",
    "output_path", "refuse_kept", "result_object", "untold", "whole_file", "with_reviews",
]  # fmt: skip

ALL_DONE = ExportRequest()
# Stored in place of the newest result: `verify` can compare only the hash of such a file.
_NOT_COMPARABLE = -1


def output_path(
    output: OutputConfig, experiment: Experiment, request: ExportRequest = ALL_DONE
) -> Path:
    """Where an experiment's export goes: the time in its name is the experiment's creation, in
    local time, so that a resumed run has the same file. Chosen, failed and grouped rows, those of
    a step, chosen columns, and each format, have a name of their own."""
    name = _name(output, experiment)
    step = f".step-{request.step}" if request.step else ""
    failed = ".failed" if request.state is State.FAILED else ".all" if request.failed_too else ""
    selected = ".selected" if request.where else ""
    selected += f".{request.reviewed}" if request.reviewed else ""
    grouped = ".grouped" if request.group else ".columns" if request.columns else ""
    return output.output_dir / f"{name}{step}{failed}{selected}{grouped}{request.format.suffix}"


def live_path(output: OutputConfig, experiment: Experiment) -> Path:
    """Where an experiment's live file goes: beside its export, which has another order."""
    return output.output_dir / f"{_name(output, experiment)}.live.jsonl"


def _name(output: OutputConfig, experiment: Experiment) -> str:
    if not output.need_time_stamp:
        return experiment.name
    created = datetime.fromtimestamp(experiment.created_at / 1000, UTC).astimezone()
    return f"{experiment.name}_{created:%Y%m%d-%H%M%S}"


async def export_file(
    store: Store, experiment: Experiment, path: Path, request: ExportRequest = ALL_DONE,
    overwriting: Overwriting = NO_OVERWRITING,
    progress: Progress = untold,
) -> Exported:  # fmt: skip
    """Write the export to `path`, or to its shards, replacing the file that was there in one step.

    A link stays a link, and a pipe or a device is written to as it is. Raises UsageError for a
    directory or a file that must not be written over (`overwriting`), and BatchgenError when the
    file cannot be written; then `path` is as it was.
    """
    request.format.check_installed()  # before there is a file
    result_seq = await store.results_mark() if request.is_all else _NOT_COMPARABLE
    targets = await check_targets(store, path, request, overwriting)
    for target in (*targets, *filter(None, [request.summary])):
        await claim_target(target, store, overwriting)
    special = any(map(is_special, targets))
    try:
        for target in targets:
            await keep_if_changed(target, store, overwriting)
        with ExitStack() as stack:
            if special:
                opened = [await asyncio.to_thread(target.open, "wb") for target in targets]
                files: list[IO[bytes]] = [stack.enter_context(file) for file in opened]
            else:
                files = [stack.enter_context(whole_file(target)) for target in targets]
            written = await _write(store, experiment, files, request, progress)
            # Before it is replaced, as its writer would take it for damaged and rewrite it.
            for target in targets:
                await store.files.forget_live_file(target)
    except OSError as exc:
        raise BatchgenError(f"{path}: cannot write the export ({exc.strerror or exc}).") from exc
    exported = _exported(targets, written)
    for file in () if special else exported.files:
        await store.files.record_export(
            experiment.id, file.path, file.rows, file.sha256, result_seq
        )
    if request.summary and (converted := written.converted):
        counts = await store.counts(await ids_of_steps(store, experiment))
        text = summary_text(experiment, request, exported, converted, counts, now_ms())
        _write_summary(request.summary, text)
    return exported


async def check_targets(
    store: Store, path: Path, request: ExportRequest, overwriting: Overwriting
) -> list[Path]:
    """The files that an export to `path` consists of. Raises UsageError when one of them, or the
    summary, must not be written."""
    shards = _shards(path, request.shards)
    targets = [await check_target(shard, store, overwriting) for shard in shards]
    if request.summary and await check_target(request.summary, store, overwriting) in targets:
        raise UsageError(f"{request.summary}: is the export itself; name another for the summary.")
    return targets


async def export_stream(
    store: Store, experiment: Experiment, file: IO[bytes], request: ExportRequest = ALL_DONE,
    progress: Progress = untold,
) -> tuple[int, tuple[str, ...], LeftOut | None]:  # fmt: skip
    """Write the export to an open file, and return the number of rows, the columns asked for that
    none of them has, and of chains what was left out."""
    request.format.check_installed()
    if request.shards > 1 or request.summary:
        raise UsageError("shards and a summary need a file.", Remedy.NAME_FILE)
    written = await _write(store, experiment, [file], request, progress)
    return written.rows[0][0], written.absent_columns, written.left_out


async def check_export(
    store: Store, record: ExportRecord, progress: Progress = untold
) -> str | None:
    """What is wrong with a file that was exported earlier, or None. That a file is gone, or older
    than the newest results, is not wrong. Of a file with chosen, failed or grouped rows, or in
    another format, only the hash is checked."""
    path = Path(record.path)
    found = await asyncio.to_thread(sha256_of, path)
    if found is None:
        return None
    if found != record.sha256:
        return f"{path}: is not what export wrote (changed since?); export it again"
    if await store.results_mark() != record.result_seq:
        return None
    chain = await store.chain_of(record.experiment_id)
    step = chain.steps[0].name if chain else None
    experiment = Experiment(record.experiment_id, record.experiment, 0, step=step)
    with await asyncio.to_thread(open, os.devnull, "wb") as nowhere:
        written = await _write(store, experiment, [nowhere], ALL_DONE, progress)
    if written.rows != [(record.rows, record.sha256)]:
        return f"{path}: the table has other results than export wrote"
    return None


class _Written(Struct):
    """The number of rows and the SHA-256 of each file."""

    rows: list[tuple[int, str]]
    converted: Converted | None = None
    left_out: LeftOut | None = None

    @property
    def absent_columns(self) -> tuple[str, ...]:
        return self.converted.absent_columns if self.converted else ()


async def _write(
    store: Store, experiment: Experiment, files: list[IO[bytes]], request: ExportRequest,
    progress: Progress,
) -> _Written:  # fmt: skip
    if experiment.step is not None:
        return await _write_chains(store, experiment, files, request, progress)
    request = await _without_reviews(store, experiment, request)
    if request.is_plain:
        plain = await write_plain(store, experiment, files[0], request.only_state, progress)
        return _Written([plain])
    hashed = [Hashed(file) for file in files]
    if request.group:
        rows = await write_groups(store, experiment, hashed[0], request, progress)
        return _Written([(rows, hashed[0].sha256)])
    converted = await convert(ResultRows(store, experiment, request, progress), hashed, request)
    return _Written(_with_hashes(converted.rows, hashed), converted)


async def _without_reviews(
    store: Store, experiment: Experiment, request: ExportRequest
) -> ExportRequest:
    """Where nothing was said of any row, none is rejected, and all lines are the usual ones."""
    if request.reviewed is not Reviewed.NOT_REJECTED or await store.reviews.any([experiment.id]):
        return request
    plain = replace(request, reviewed=None)
    return plain if plain.is_plain else request


async def _write_chains(
    store: Store, experiment: Experiment, files: list[IO[bytes]], request: ExportRequest,
    progress: Progress,
) -> _Written:  # fmt: skip
    from batchgen.export.chains import ChainLines  # here: few experiments have steps

    chain = await store.chain_of(experiment.id)
    if chain is None:
        raise BatchgenError(f"experiment {experiment.name!r} was deleted meanwhile.")
    lines, hashed = ChainLines(store, chain, request, progress), [Hashed(file) for file in files]
    converted = await convert(lines, hashed, request)
    rows = [lines.items] if request.group else converted.rows
    return _Written(_with_hashes(rows, hashed), converted, lines.left_out)


def _with_hashes(rows: list[int], files: list[Hashed]) -> list[tuple[int, str]]:
    return list(zip(rows, [file.sha256 for file in files], strict=True))


def _exported(targets: list[Path], written: _Written) -> Exported:
    pairs = zip(targets, written.rows, strict=True)
    files = tuple(ExportedFile(target, rows, sha256) for target, (rows, sha256) in pairs)
    return Exported(files, written.absent_columns, written.left_out)


def _shards(path: Path, n: int) -> list[Path]:
    """`path` itself, or NAME-00001-of-0000N.EXT for each of the files it is split into."""
    if n == 1:
        return [path]
    if is_special(path):
        raise UsageError(f"{path}: is not a regular file, so there is nothing to split.")
    return [path.with_name(f"{path.stem}-{k:05}-of-{n:05}{path.suffix}") for k in range(1, n + 1)]


def _write_summary(path: Path, text: str) -> None:
    try:
        with path.open("wb") if is_special(path) else whole_file(path.resolve()) as file:
            file.write(text.encode())
    except OSError as exc:
        raise BatchgenError(f"{path}: cannot write the summary ({exc.strerror or exc}).") from exc
