"""The finished rows as a file: written once, or kept up to date while items finish."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, astuple

from batchgen.config import OutputConfig
from batchgen.errors import BatchgenError, Remedy, UsageError
from batchgen.export import (
    NO_OVERWRITING,
    ExportRequest,
    LiveFile,
    Overwriting,
    Progress,
    check_targets,
    export_file,
    follow_to_file,
    format_of,
    live_path,
    output_path,
    untold,
)
from batchgen.items import State
from batchgen.store import Experiment, Store


class LeftOut(Struct, frozen=True):
    """The items of the experiment that are not in an export of done ones: `open` are pending or
    running, `not_chosen` are done, but no condition chose them."""

    failed: int = 0
    open: int = 0
    not_chosen: int = 0


NOTHING_LEFT_OUT = LeftOut()


class ExportResult(Struct, frozen=True):
    """`rows` went to `path`, or to the `shards` that it was split into; none of them has the
    `absent_columns`, which were asked for."""

    path: Path
    rows: int
    shards: tuple[Path, ...] = ()
    left_out: LeftOut = NOTHING_LEFT_OUT
    absent_columns: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        shards = {"files": [str(shard) for shard in self.shards]} if self.shards else {}
        left_out = {"left_out": asdict(self.left_out)} if any(astuple(self.left_out)) else {}
        absent = {"absent_columns": list(self.absent_columns)} if self.absent_columns else {}
        return {"path": str(self.path), "rows": self.rows, **shards, **left_out, **absent}


async def left_out_of(
    store: Store, experiment: Experiment, request: ExportRequest, rows: int
) -> LeftOut:
    """Of an export with so many `rows`. One of failed items leaves nothing out."""
    if request.state is not State.DONE:
        return LeftOut()
    counts = await store.counts([experiment.id])
    chosen = request.where is None or request.group
    failed = 0 if request.failed_too else counts.failed
    not_chosen = 0 if chosen else max(0, request.rows_of(counts) - rows)
    return LeftOut(failed, counts.open, not_chosen)


async def export(
    store: Store,
    output: OutputConfig,
    experiment: Experiment,
    path: Path | None = None,
    request: ExportRequest | None = None,
    overwriting: Overwriting = NO_OVERWRITING,
    progress: Progress = untold,
) -> ExportResult:
    """Write what is requested of an experiment (None: all done rows, in the format that the name of
    `path` says) to `path` (None: where the config's `output` says). It appears whole or not at all.

    Raises UsageError for a path or a request that cannot be, BatchgenError when the file cannot be
    written.
    """
    request = request or ExportRequest(format_of(path))
    path = path or output_path(output, experiment, request)
    exported = await export_file(store, experiment, path, request, overwriting, progress)
    shards = tuple(file.path for file in exported.files) if request.shards > 1 else ()
    left_out = await left_out_of(store, experiment, request, exported.rows)
    return ExportResult(path, exported.rows, shards, left_out, exported.absent_columns)


async def check_output(
    store: Store,
    output: OutputConfig,
    experiment: Experiment,
    path: Path | None = None,
    overwriting: Overwriting = NO_OVERWRITING,
) -> None:
    """Raises UsageError where `export` would, as there is a file that must not be written over:
    before anything is paid for."""
    if path is not None and str(path) == "-":
        return
    request = ExportRequest(format_of(path))
    path = path or output_path(output, experiment, request)
    await check_targets(store, path, request, overwriting)


async def follow(
    store: Store,
    output: OutputConfig,
    experiment: Experiment,
    path: Path | None = None,
    overwriting: Overwriting = NO_OVERWRITING,
    *,
    say: Callable[[str], None],
) -> ExportResult:
    """Keep a live file up to date until the experiment has nothing pending or running; `say` tells
    when it is rewritten. Raises UsageError and BatchgenError as `export`."""
    path = path or live_path(output, experiment)
    live = LiveFile(store, experiment, path, say, overwriting)
    await follow_to_file(live, store, experiment)
    left_out = await left_out_of(store, experiment, ExportRequest(), live.rows)
    return ExportResult(live.path, live.rows, left_out=left_out)


async def live_file_of(
    store: Store,
    experiments: tuple[int, ...] | None,
    path: Path,
    overwriting: Overwriting = NO_OVERWRITING,
    *,
    say: Callable[[str], None],
) -> LiveFile:
    """The live file at `path` for the one of these experiments (None: of all) that there is.

    Raises UsageError when there are several or none, or for a file that cannot be a live one;
    BatchgenError when it cannot be written.
    """
    chosen = [
        one for one in await store.experiments() if experiments is None or one.id in experiments
    ]
    if not chosen:
        raise UsageError(f"{store.name}: nothing is enqueued yet.", Remedy.ENQUEUE_FIRST)
    if len(chosen) != 1:
        names = ", ".join(one.name for one in chosen)
        raise UsageError(
            f"{path}: holds one experiment, and there is: {names}.", Remedy.NAME_EXPERIMENT
        )
    live = LiveFile(store, chosen[0], path, say, overwriting)
    try:
        await live.acquire()
    except OSError as exc:
        raise BatchgenError(f"{path}: cannot be written ({exc.strerror or exc}).") from exc
    return live
