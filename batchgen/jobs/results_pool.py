"""A pool made of what another experiment brought: an item for each of its done rows or, where it
has steps, for each of its chains, or for each done row of a step.

    {"id": "a", "parsed": {"label": "x"}, "response": "...", "input": {...}, "metadata": null}

The store is read while the new items are written to it. Pools are read by plain iteration, the
store by an event loop, so it has a loop of its own here, on a thread.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from json import loads
from typing import Any, TypeVar

from batchgen.database_address import DatabaseAddress
from batchgen.export import ExportRequest, matches
from batchgen.items import State
from batchgen.jobs.export import exportable
from batchgen.pool import Entries, Entry, entry_of
from batchgen.store import Chain, Experiment, ResultRow, Store, open_store
from batchgen.text.json_text import dump_json
from batchgen.where import Where

T = TypeVar("T")


def read_results(database: DatabaseAddress, name: str, where: str | None) -> Entries:
    """An item for each done row of the experiment called `name` for which the condition `where`
    holds, in the order of its pool; `demo/judge` are the rows of the step `judge` of `demo`. Raises
    UsageError at once when there is no such experiment, and for a condition that cannot be read."""
    entries = _entries(database, name, where)
    next(entries)  # it opens the database
    return entries


def _entries(database: DatabaseAddress, name: str, where: str | None) -> Generator[Any, None, None]:
    with _reading(database, name, where) as next_page:
        yield None
        while page := next_page():
            yield from page


@contextmanager
def _reading(
    database: DatabaseAddress, name: str, where: str | None
) -> Iterator[Callable[[], list[Entry] | None]]:
    """A function that reads the next page; None: there is none."""
    with ThreadPoolExecutor(1, "batchgen-results") as thread:
        loop, stack = asyncio.Runner(), AsyncExitStack()

        def call(job: Coroutine[Any, Any, T]) -> T:
            return thread.submit(loop.run, job).result()

        try:
            store: Store = call(stack.enter_async_context(open_store(database)))
            pages = call(_pages(store, name, where))
            yield lambda: call(anext(pages, None))
        finally:
            call(stack.aclose())
            thread.submit(loop.close).result()


async def _pages(store: Store, name: str, where: str | None) -> AsyncIterator[list[Entry]]:
    experiment, _, step = name.partition("/")
    of = await exportable(store, experiment, step or None, remedy=None)
    holds = None if where is None else Where(where, of.where_names)
    if of.experiment.step is None:
        return _pages_of_rows(store, name, of.experiment, holds)
    chain = await store.chain_of(of.experiment.id)
    assert chain is not None
    return _pages_of_chains(store, name, chain, ExportRequest(where=holds, step=of.step))


async def _pages_of_rows(
    store: Store, name: str, experiment: Experiment, where: Where | None
) -> AsyncIterator[list[Entry]]:
    after = 0
    while page := await store.result_page(experiment.id, State.DONE, after):
        after = page[-1].id
        yield [_entry(row, _id(row), name) for row in page if matches(row, where)]


async def _pages_of_chains(
    store: Store, name: str, chain: Chain, request: ExportRequest
) -> AsyncIterator[list[Entry]]:
    from batchgen.export.chains import ChainLines  # here: few have steps

    lines = ChainLines(store, chain, request)
    async for page in lines.pages():
        yield [
            _entry(line.row, _id(line.first, line.elements), name)
            for line in page
            if lines.matches(line)
        ]


def _entry(row: ResultRow, own_id: str, name: str) -> Entry:
    response = loads(row.response)
    item = {
        "id": own_id,
        "parsed": loads(row.parsed) if row.parsed else response,
        "response": response,
        "input": loads(row.input),
        "metadata": loads(row.metadata or "null"),
    }
    return entry_of(item, f"results:{name} item {row.id}", dump_json(item), is_json=True)


def _id(row: ResultRow, elements: Sequence[int] = ()) -> str:
    """That of the export; what the item's other samples and variants (`--recipe add`) are called by
    has their number too, as each is an item of its own; and so what there is of each `elements` of
    a list has its place in that."""
    place = "".join(f"[{element}]" for element in elements)
    if not row.custom_id:
        return f"{row.id}{place}"
    variant = f"@{row.variant}" if row.variant > 1 else ""
    sample = f"#{row.sample}" if row.sample and row.sample > 1 else ""
    return f"{row.custom_id}{variant}{sample}{place}"
