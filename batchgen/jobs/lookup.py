"""From a name, an id or a number to the experiment or the items. Raises UsageError for what is not
there."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from batchgen.config import Config
from batchgen.errors import Remedy, UsageError
from batchgen.store import Experiment, ReadStore

if TYPE_CHECKING:
    from batchgen.store import Store


RESULTS = "results:"


def is_results(source: str) -> bool:
    """Whether the source of a pool names the results of an experiment."""
    return source.startswith(RESULTS)


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


async def chosen_experiments(
    store: ReadStore, name: str | None, step: str | None = None
) -> list[Experiment]:
    """The named one with all its steps, in their order, or one of them (`demo/judge` is the step
    `judge` of `demo`); without a name, all experiments, or that step of all."""
    found = await store.experiments()
    if name is None:
        chosen = found if step is None else [one for one in found if one.step == step]
        if step is not None and not chosen:
            raise _no_step(step, [one.step for one in found if one.step is not None])
        return chosen
    whole = f"{name}/{step}" if step is not None else name
    if chosen := named(found, whole):
        return chosen
    if step is not None and (steps := named(found, name)):
        raise _no_step(step, [one.step for one in steps if one.step is not None], name)
    raise no_experiment(store, name, found)


def named(found: Sequence[Experiment], name: str) -> list[Experiment]:
    """Those of the experiments that a name means: one with all its steps in their order, or one
    step."""
    for one in found:
        if one.name == name and one.first_id is not None:
            return [one]
        if one.name == name:
            return [one, *sorted(_later(found, one), key=lambda later: later.number)]
    return [one for one in found if one.first_id is None and f"{one.name}/{one.step}" == name]


def _later(found: Sequence[Experiment], first: Experiment) -> list[Experiment]:
    return [one for one in found if one.first_id == first.id]


def _no_step(step: str, steps: Sequence[str], experiment: str | None = None) -> UsageError:
    known = ", ".join(dict.fromkeys(steps))
    where = "no experiment" if experiment is None else f"experiment {experiment!r}"
    has = f"; there is: {known}" if known else ""
    return UsageError(f"{where} has {'a' if experiment is None else 'no'} step {step!r}{has}.")


async def experiment_named(
    store: ReadStore, name: str, remedy: Remedy | None = Remedy.NAME_EXPERIMENT
) -> Experiment:
    """The first step, where it has steps, or the one that is named. `remedy` is that of an error:
    None where the name was no option's."""
    found = await store.experiments()
    if chosen := named(found, name):
        return chosen[0]
    raise no_experiment(store, name, found, remedy)


def no_experiment(
    store: ReadStore, name: str, found: Sequence[Experiment],
    remedy: Remedy | None = Remedy.NAME_EXPERIMENT,
) -> UsageError:  # fmt: skip
    known = ", ".join(one.name for one in found if one.first_id is None) or "none yet"
    return UsageError(f"{store.name}: no experiment {name!r}; there is: {known}.", remedy)


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
        is_number = given.removeprefix("#").isdecimal()
        what = "" if is_number else " An item's id is what its pool has as `id`."
        raise UsageError(f"no item has the id or number {given!r}.{what}")
    return found


async def rows_called(
    store: ReadStore, given: str, experiment: str | None, step: str | None = None
) -> list[int]:
    """The same of rows: where items have steps, an id is that of all rows of their chains, or of
    those of one `step`. A number is that of one row."""
    numbers = await items_called(store, given, experiment)
    known = {one.id: one for one in await store.experiments()}
    if step is None and (given.removeprefix("#") == str(numbers[0]) or not _any_step(known)):
        return numbers
    found = [
        row.id
        for number in numbers
        for row in await store.chain_rows_below([number])
        if step is None or known[row.experiment_id].step == step
    ]
    if not found:
        raise UsageError(f"item {given} has no row of a step {step!r}.")
    return found


def _any_step(known: Mapping[int, Experiment]) -> bool:
    return any(one.step is not None for one in known.values())
