"""The finished rows as a file: written once, or kept up to date while items finish."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, astuple

from batchgen.config import OutputConfig
from batchgen.errors import BatchgenError, Remedy, UsageError
from batchgen.export import (
    GROUPS,
    NO_OVERWRITING,
    REVIEW_NAMES,
    ExportRequest,
    LeftOut,
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
from batchgen.jobs.lookup import experiment_named
from batchgen.store import Chain, Counts, Experiment, ReadStore, Store
from batchgen.where import NAMES

NOTHING_LEFT_OUT = LeftOut()
_OF_CHAINS = ("stale", "without_answer")


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
        left_out = {"left_out": _told(self.left_out)} if any(astuple(self.left_out)) else {}
        absent = {"absent_columns": list(self.absent_columns)} if self.absent_columns else {}
        return {"path": str(self.path), "rows": self.rows, **shards, **left_out, **absent}


def _told(left_out: LeftOut) -> dict[str, int]:
    return {name: n for name, n in asdict(left_out).items() if n or name not in _OF_CHAINS}


class Exportable(Struct, frozen=True):
    """What an export is of: an experiment or, where it has steps, its chains or one `step`.
    `where_names` are those that a condition on a row may have, and `review_names` those of them
    that mean what people said; `groups` are the values whose fields are columns."""

    experiment: Experiment
    step: str | None = None
    where_names: tuple[str, ...] = (*NAMES, *REVIEW_NAMES)
    groups: tuple[str, ...] = tuple(GROUPS)
    review_names: tuple[str, ...] = REVIEW_NAMES


async def exportable(
    store: ReadStore, name: str, step: str | None = None,
    remedy: Remedy | None = Remedy.NAME_EXPERIMENT,
) -> Exportable:  # fmt: skip
    """What is called `name`: `demo/judge` is the step `judge` of `demo`. Raises UsageError when it
    is not there; `remedy` as for `experiment_named`."""
    experiment, named_step = await _first_step(store, name, remedy)
    step = step or named_step
    chain = await store.chain_if_step(experiment)
    if chain is None:
        if step is not None:
            raise UsageError(f"experiment {name!r} has no step {step!r}.")
        return Exportable(experiment)
    known = [one.name for one in chain.steps]
    if step is not None and step not in known:
        problem = f"experiment {experiment.name!r} has no step {step!r}"
        raise UsageError(f"{problem}; there is: {', '.join(known)}.")
    from batchgen.export.chains import column_groups, names_in_lines, review_names

    groups = (*column_groups(chain.plan, step), "failed")
    names, meant = names_in_lines(chain.plan, step), review_names(chain.plan)
    return Exportable(experiment, step, names, groups, meant)


async def _first_step(
    store: ReadStore, name: str, remedy: Remedy | None
) -> tuple[Experiment, str | None]:
    """The experiment, by its first step where it has some; and the step that the name means."""
    one = await experiment_named(store, name, remedy)
    if one.first_id is not None:
        first = next(first for first in await store.experiments() if first.id == one.first_id)
        return first, one.step
    return one, None if one.name == name else one.step


async def left_out_of(
    store: Store, experiment: Experiment, request: ExportRequest, rows: int
) -> LeftOut:
    """Of an export with so many `rows`. One of failed items leaves nothing out."""
    if request.state is not State.DONE:
        return LeftOut()
    if (chain := await store.chain_if_step(experiment)) is not None:
        whole = await store.counts([step.experiment_id for step in chain.steps])
        return LeftOut((await _ends_of(store, chain)).failed, whole.open, stale=whole.stale)
    counts = await store.counts([experiment.id])
    has_all = not request.chooses or request.group
    failed = 0 if request.failed_too else counts.failed
    not_chosen = 0 if has_all else max(0, request.rows_of(counts) - rows)
    return LeftOut(failed, counts.open, not_chosen)


async def rows_there(store: Store, experiment: Experiment, request: ExportRequest) -> int:
    """How many rows an export can have, before any is chosen."""
    chain = await store.chain_if_step(experiment)
    if chain is None:
        return request.rows_of(await store.counts([experiment.id]))
    if request.step is not None:
        (step,) = (one.experiment_id for one in chain.steps if one.name == request.step)
        return request.rows_of(await store.counts([step]))
    ends = await _ends_of(store, chain)
    failed = ends.failed if request.has_failed else 0
    return failed if request.state is State.FAILED else ends.ended + failed


async def _ends_of(store: Store, chain: Chain) -> Counts:
    """Of the steps with which chains can end: what was gathered goes on."""
    last = [step.experiment_id for step in chain.steps if step.gathered_by is None]
    by_experiment = await store.counts_by_experiment()
    return Counts.sum_of(by_experiment[id_] for id_ in last if id_ in by_experiment)


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
    left_out = exported.left_out
    if left_out is None:
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
    """The live file at `path` for the one of these experiments (None: of all) that there is; of
    steps, it has their whole chains.

    Raises UsageError when there are several or none, or for a file that cannot be a live one;
    BatchgenError when it cannot be written.
    """
    found = await store.experiments()
    ids = {one.first_id or one.id for one in found if experiments is None or one.id in experiments}
    chosen = [one for one in found if one.id in ids]
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
