"""The experiments of a database: listed, renamed, deleted. Raises UsageError for a name that is not
there."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from batchgen.clock import timestamp
from batchgen.errors import Remedy, UsageError
from batchgen.jobs.lookup import chosen_experiments, experiment_named, named
from batchgen.store import Counts, Experiment, ReadStore

if TYPE_CHECKING:
    from batchgen.store import Store


class StepSummary(Struct, frozen=True):
    """A step, and how its rows stand. `skipped`: rows were done before it, and made none of it."""

    experiment: Experiment
    counts: Counts

    @property
    def name(self) -> str:
        return self.experiment.step or ""

    @property
    def skipped(self) -> int:
        return self.counts.passed_over


class ExperimentSummary(Struct, frozen=True):
    """An experiment, and how its items stand; with `steps`, those of them that are looked at, and
    the counts are the sum of theirs."""

    experiment: Experiment
    counts: Counts
    steps: tuple[StepSummary, ...] = ()
    is_whole: bool = True

    @property
    def name(self) -> str:
        if self.is_whole or len(self.steps) != 1 or self.experiment.first_id is not None:
            return self.experiment.name
        return f"{self.experiment.name}/{self.experiment.step}"

    @property
    def ids(self) -> list[int]:
        """Of all that it is about."""
        return [one.experiment.id for one in self.steps] or [self.experiment.id]

    @property
    def items(self) -> int:
        """With the samples of each; of a step its rows."""
        return self.steps[0].counts.total if self.steps else self.counts.total

    def to_json(self) -> dict[str, Any]:
        steps = [
            {"name": one.name, "total": one.counts.total, "done": one.counts.done,
             "failed": one.counts.failed}
            for one in self.steps
        ]  # fmt: skip
        return {
            "name": self.name,
            "created_at": timestamp(self.experiment.created_at),
            "total": self.counts.total,
            "done": self.counts.done,
            "failed": self.counts.failed,
            **({"items": self.items, "ended": self.counts.ended, "steps": steps} if steps else {}),
        }


class Standing(Struct, frozen=True):
    """How the rows of an experiment stand, those of all its steps, and how many workers live."""

    counts: Counts
    alive: int


async def standing_of(store: ReadStore, name: str) -> Standing:
    """Raises UsageError for a name that is not there."""
    alive = sum(one.alive for one in await store.workers())
    return Standing((await summary_of(store, name)).counts, alive)


async def list_experiments(store: ReadStore, step: str | None = None) -> list[ExperimentSummary]:
    """All of them, the oldest first; or this step of those that have it."""
    counts = await store.counts_by_experiment()
    found = await chosen_experiments(store, None, step)
    if step is not None:
        return [_summary([one], counts, is_whole=False) for one in found]
    return [_summary(named(found, one.name), counts) for one in found if one.first_id is None]


async def summary_of(
    store: ReadStore, name: str, remedy: Remedy | None = Remedy.NAME_EXPERIMENT,
    step: str | None = None,
) -> ExperimentSummary:  # fmt: skip
    """`remedy` as for `experiment_named`. `demo/judge`, or the `step` judge of demo, is that step
    alone."""
    if step is None:
        await experiment_named(store, name, remedy)
    found = await chosen_experiments(store, name, step)
    is_whole = step is None and found[0].name == name and found[0].first_id is None
    return _summary(found, await store.counts_by_experiment(), is_whole=is_whole)


def _summary(
    found: Sequence[Experiment], counts: Mapping[int, Counts], *, is_whole: bool = True
) -> ExperimentSummary:
    """Of an experiment, or of the steps of one."""
    each = [counts.get(one.id, Counts()) for one in found]
    steps = tuple(
        StepSummary(one, its) for one, its in zip(found, each, strict=True) if one.step is not None
    )
    total = Counts.sum_of(each) if steps else each[0]
    return ExperimentSummary(found[0], total, steps, is_whole)


async def whole_summary(store: ReadStore, name: str) -> ExperimentSummary:
    """Raises UsageError when it is a step alone."""
    return await summary_of(store, (await _whole_named(store, name)).name, remedy=None)


async def rename(store: "Store", name: str, new_name: str) -> None:
    """With all its steps. Raises UsageError when another experiment has the new name, or when it is
    a step alone."""
    await store.rename_experiment((await _whole_named(store, name)).id, new_name)


async def delete(store: "Store", summary: ExperimentSummary) -> None:
    """With all its items and answers, and all its steps. Raises UsageError while a worker is at
    work on it."""
    await store.delete_experiment(summary.experiment.id)


async def _whole_named(store: ReadStore, name: str) -> Experiment:
    found = await experiment_named(store, name, remedy=None)
    if found.first_id is not None or found.name != name:
        raise UsageError(f"{name} is a step; name the experiment of which it is one.")
    return found
