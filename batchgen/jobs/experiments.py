"""The experiments of a database: listed, renamed, deleted. Raises UsageError for a name that is not
there."""

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from batchgen.clock import timestamp
from batchgen.errors import Remedy
from batchgen.jobs.lookup import experiment_named
from batchgen.store import Counts, Experiment, ReadStore

if TYPE_CHECKING:
    from batchgen.store import Store


class ExperimentSummary(Struct, frozen=True):
    """An experiment, and how its items stand."""

    experiment: Experiment
    counts: Counts

    @property
    def name(self) -> str:
        return self.experiment.name

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "created_at": timestamp(self.experiment.created_at),
            "total": self.counts.total,
            "done": self.counts.done,
            "failed": self.counts.failed,
        }


async def list_experiments(store: ReadStore) -> list[ExperimentSummary]:
    """All of them, the oldest first."""
    experiments, counts = await store.experiments(), await store.counts_by_experiment()
    return [ExperimentSummary(one, counts.get(one.id, Counts())) for one in experiments]


async def summary_of(
    store: ReadStore, name: str, remedy: Remedy | None = Remedy.NAME_EXPERIMENT
) -> ExperimentSummary:
    """`remedy` as for `experiment_named`."""
    experiment = await experiment_named(store, name, remedy)
    return ExperimentSummary(experiment, await store.counts([experiment.id]))


async def rename(store: "Store", name: str, new_name: str) -> None:
    """Raises UsageError when another experiment has the new name."""
    await store.rename_experiment((await experiment_named(store, name, remedy=None)).id, new_name)


async def delete(store: "Store", summary: ExperimentSummary) -> None:
    """With all its items and answers. Raises UsageError while a worker is at work on it."""
    await store.delete_experiment(summary.experiment.id)
