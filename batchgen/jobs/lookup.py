"""From a name, an id or a number to the experiment or the items. Raises UsageError for what is not
there."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from batchgen.config import Config
from batchgen.errors import Remedy, UsageError
from batchgen.store import Experiment, ReadStore

if TYPE_CHECKING:
    from batchgen.store import Store


@asynccontextmanager
async def open_experiments(
    config: Config, name: str | None
) -> AsyncIterator[tuple["Store", list[Experiment]]]:
    """The config's store, and the experiments chosen: the named one, or all."""
    from batchgen.store import (
        open_store,  # here: who only reads needs no more than it takes to read
    )

    async with open_store(config.database) as store:
        yield store, await chosen_experiments(store, name)


async def chosen_experiments(store: ReadStore, name: str | None) -> list[Experiment]:
    """The named one, or all."""
    return await store.experiments() if name is None else [await experiment_named(store, name)]


async def experiment_named(
    store: ReadStore, name: str, remedy: Remedy | None = Remedy.NAME_EXPERIMENT
) -> Experiment:
    """`remedy` is that of an error: None where the name was no option's."""
    found = await store.experiments()
    for experiment in found:
        if experiment.name == name:
            return experiment
    known = ", ".join(experiment.name for experiment in found) or "none yet"
    raise UsageError(f"{store.name}: no experiment {name!r}; there is: {known}.", remedy)


async def name_of_item(store: ReadStore, number: int) -> str:
    """What an item can be called by its number: `17` or, where that is the id of another one,
    `#17`."""
    name = str(number)
    return name if await store.find_items(name) == [number] else f"#{name}"


async def items_called(store: ReadStore, given: str, experiment: str | None) -> list[int]:
    """The numbers of the items with this id or number: several, if there are samples of it, or if
    several experiments have the id and none is named."""
    only = None if experiment is None else (await experiment_named(store, experiment)).id
    found = await store.find_items(given, only)
    if not found:
        raise UsageError(f"no item has the id or number {given!r}.")
    return found
