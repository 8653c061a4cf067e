"""Finding in the database what the arguments name. Raises UsageError for what is not there."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from batchgen.config import Config
from batchgen.errors import UsageError
from batchgen.store import Experiment, Store, open_store


@asynccontextmanager
async def open_experiments(
    config: Config, experiment: str | None
) -> AsyncIterator[tuple[Store, list[Experiment]]]:
    """The store, and the experiments chosen: the named one, or all."""
    async with open_store(config.database) as store:
        if experiment is None:
            yield store, await store.experiments()
        else:
            yield store, [await experiment_named(store, experiment)]


async def experiment_named(store: Store, name: str) -> Experiment:
    found = await store.experiments()
    for experiment in found:
        if experiment.name == name:
            return experiment
    known = ", ".join(experiment.name for experiment in found) or "none yet"
    raise UsageError(
        f"{store.name}: no experiment {name!r}; there is: {known}. Choose with --experiment."
    )


async def items_called(store: Store, given: str, experiment_id: int | None) -> list[int]:
    found = await store.find_items(given, experiment_id)
    if not found:
        raise UsageError(f"no item has the id or number {given!r}.")
    return found
