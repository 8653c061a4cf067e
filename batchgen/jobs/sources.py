"""Where the items of a pool come from, by the name that the user gives: a file, a stream, a
function, or the results of another experiment."""

import asyncio
from pathlib import Path

from batchgen.config import Config
from batchgen.errors import Remedy, UsageError
from batchgen.jobs.lookup import RESULTS, is_results, named
from batchgen.jobs.present_parser import Outdated, outdated
from batchgen.jobs.results_pool import read_results
from batchgen.pool import Entries, open_pool
from batchgen.store import FileUse, Store
from batchgen.text.json_text import is_storable


async def outdated_results(store: Store, config: Config, source: str) -> list[Outdated]:
    """Whether the results that `source` names, if it names some, have values of another parser than
    the present one."""
    if not is_results(source):
        return []
    found = named(await store.experiments(), source.removeprefix(RESULTS))
    return list((await outdated(store, config, found)).values())


def only_offers(source: str) -> bool:
    """Whether the variables of its items are on offer, so that a template need not use them all:
    nobody has written them down for it."""
    return is_results(source) or Path(source).is_dir()


def open_source(source: str, config: Config, where: str | None = None) -> Entries:
    """The items of `source`, one at a time; of results only those for which the condition `where`
    holds. Close the generator if it is not read to its end.

    Raises UsageError at once when `source` cannot be read.
    """
    if is_results(source):
        name = source.removeprefix(RESULTS)
        own = config.output_data.experiment_name
        if name == own or name.startswith(f"{own}/"):
            raise UsageError(
                f"{source}: the results of an experiment cannot be items of the same experiment; "
                "choose another experiment for the new ones."
            )
        return read_results(config.database, name, where)
    if where is not None:
        raise UsageError(
            f"{source}: only the items of results:EXPERIMENT can be chosen by a condition.",
            Remedy.CHOOSE_IN_EXPORT,
        )
    return open_pool(source)


async def note_own_files(store: Store, config: Config, source: str | None) -> None:
    """Remember the files that a pool came from (`source`: also a directory, or a function's file)
    and was made ready with: nothing that was only read is ever written over."""
    source = "" if source is None or is_results(source) else source
    names = (source, source.rpartition(":")[0])
    paths = (*config.own_files, *(Path(name) for name in names if name))
    read = [path.resolve() for path in paths if await asyncio.to_thread(path.exists)]
    await store.files.note_files([path for path in read if is_storable(str(path))], FileUse.READ)
