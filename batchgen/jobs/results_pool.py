"""A pool made of what another experiment brought: an item for each of its done rows.

    {"id": "a", "parsed": {"label": "x"}, "response": "...", "input": {...}, "metadata": null}

The store is read while the new items are written to it. Pools are read by plain iteration, the
store by an event loop, so it has a loop of its own here, on a thread.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from json import loads
from pathlib import Path
from typing import Any, TypeVar

from batchgen.errors import UsageError
from batchgen.export import matches
from batchgen.items import State
from batchgen.jobs.lookup import experiment_named
from batchgen.pool import Entries, Entry, entry_of
from batchgen.store import Experiment, ResultRow, Store, open_store
from batchgen.text.json_text import dump_json
from batchgen.where import Where

T = TypeVar("T")


def read_results(database: Path, name: str, where: Where | None) -> Entries:
    """An item for each done row of the experiment called `name` for which `where` holds, in the
    order of its pool. Raises UsageError at once when there is no such experiment."""
    if "/" in name:
        experiment, step = name.split("/", 1)
        raise UsageError(f"results:{name}: experiment {experiment!r} has no step {step!r}.")
    entries = _entries(database, name, where)
    next(entries)  # it opens the database
    return entries


def _entries(database: Path, name: str, where: Where | None) -> Generator[Any, None, None]:
    with _reading(database, name) as (experiment, page_after):
        yield None
        after = 0
        while page := page_after(after):
            after = page[-1].id
            for row in page:
                if matches(row, where):
                    yield _entry(row, experiment)


@contextmanager
def _reading(
    database: Path, name: str
) -> Iterator[tuple[Experiment, Callable[[int], list[ResultRow]]]]:
    """The experiment, and a function that reads the next page of its done rows."""
    with ThreadPoolExecutor(1, "batchgen-results") as thread:
        loop, stack = asyncio.Runner(), AsyncExitStack()

        def call(job: Coroutine[Any, Any, T]) -> T:
            return thread.submit(loop.run, job).result()

        try:
            store: Store = call(stack.enter_async_context(open_store(database)))
            experiment = call(experiment_named(store, name, remedy=None))

            def page_after(row_id: int) -> list[ResultRow]:
                return call(store.result_page(experiment.id, State.DONE, row_id))

            yield experiment, page_after
        finally:
            call(stack.aclose())
            thread.submit(loop.close).result()


def _entry(row: ResultRow, experiment: Experiment) -> Entry:
    response = loads(row.response)
    item = {
        "id": _id(row),
        "parsed": loads(row.parsed) if row.parsed else response,
        "response": response,
        "input": loads(row.input),
        "metadata": loads(row.metadata or "null"),
    }
    return entry_of(item, f"results:{experiment.name} item {row.id}", dump_json(item), is_json=True)


def _id(row: ResultRow) -> str:
    """That of the export; what the item's other samples and variants (`--recipe add`) are called by
    has their number too, as each is an item of its own."""
    if not row.custom_id:
        return str(row.id)
    variant = f"@{row.variant}" if row.variant > 1 else ""
    sample = f"#{row.sample}" if row.sample and row.sample > 1 else ""
    return f"{row.custom_id}{variant}{sample}"
