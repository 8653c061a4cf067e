"""What a data pool may be: items in memory, a stream of them, or a source by its name."""

from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from batchgen.config import Config
from batchgen.errors import InputError
from batchgen.jobs.sources import open_source
from batchgen.pool import Entries, read_objects, rows_of_frame

NAME = "data_pool"

Pool = Iterable[Any] | AsyncIterable[Any] | str | Path


class DataPool(Struct, frozen=True):
    """The items to enqueue. One that is `in_memory` can be read as often as one likes, and so is
    looked at as a whole before anything is enqueued."""

    source: Any
    in_memory: bool

    def entries(self, config: Config) -> Entries:
        """Raises UsageError at once for a source that cannot be read."""
        if isinstance(self.source, str):
            return open_source(self.source, config)
        return read_objects(self.source, NAME)


async def open_data_pool(pool: Any) -> DataPool:
    """Raises InputError for what is no pool."""
    if isinstance(pool, str | Path):
        return DataPool(str(pool), in_memory=False)
    if isinstance(pool, Mapping) and not _is_foreign(pool):
        raise InputError(f"{NAME}: is a single item, a dict; put it into a list: [item]")
    if (rows := rows_of_frame(pool, NAME)) is not None:
        return DataPool(rows, in_memory=True)
    if isinstance(pool, AsyncIterable):
        return DataPool([item async for item in pool], in_memory=True)
    if isinstance(pool, bytes) or not isinstance(pool, Iterable):
        raise InputError(
            f"{NAME}: must be items (a list, an iterator, a DataFrame) or the name of a source, "
            f"not {type(pool).__name__}"
        )
    return DataPool(pool, in_memory=not isinstance(pool, Iterator))


def _is_foreign(pool: Any) -> bool:
    """Whether it is another library's mapping, which knows best what is wrong with it."""
    return type(pool).__module__.partition(".")[0] == "datasets"
