"""Enqueueing rehearsed: a pool is told what enqueueing would refuse, and nothing of it is kept."""

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

from batchgen.errors import Remedy
from batchgen.items import NewItem, Recipe
from batchgen.jobs.enqueue import id_conflict
from batchgen.jobs.lookup import name_of_item
from batchgen.pool import BadLine
from batchgen.store import CountNew, Intake, NewRows, OtherRecipe, Store, open_store
from batchgen.text.json_text import same_content

Refuse = Callable[[BadLine, Remedy | None, str | None], None]


class Rehearsal:
    """The items of one pool, which would go into an experiment by `intake`. They go into a database
    of its own, so that memory does not grow with them, and are compared with those of the `known`
    experiment, if there is one: `count_new` tells how many rows are new to it."""

    def __init__(
        self, scratch: Store, into: Intake, intake: Intake, known: tuple[Store, int] | None,
        count_new: CountNew | None, refuse: Refuse,
    ) -> None:  # fmt: skip
        self.intake = intake
        self._scratch, self._into = scratch, into
        self._known, self._count_new = known, count_new
        self._refuse = refuse

    async def check(self, rows: list[NewItem]) -> NewRows:
        """What would be new. Refuses each of the items whose id belongs to one with other content
        already."""
        known = await self._refused_by_known(rows)
        rows = [row for row in rows if row not in known]
        new = NewRows(0, 0)
        while rows:
            added = await self._scratch.add_items(self._into, rows)
            good = rows[: len(added.ids)]
            if self._count_new is None:
                new += NewRows(added.new * self.intake.samples, added.new)
            else:
                new += await self._count_new(good)
            if added.conflict is None:
                break
            bad, rows = rows[len(good)], rows[len(good) + 1 :]
            self._refuse(id_conflict(bad, "an item before it"), None, None)
        return new

    async def _refused_by_known(self, rows: list[NewItem]) -> list[NewItem]:
        ids = [row.custom_id for row in rows if row.custom_id is not None]
        if self._known is None or not ids:
            return []
        store, experiment_id = self._known
        found = await store.items_with_ids(experiment_id, ids, self.intake.variant)
        refused = []
        for row in rows:
            number, input_json = found.get(row.custom_id or "", (0, ""))
            if number and not same_content(row.input_json, input_json):
                owner = await name_of_item(store, number)
                self._refuse(id_conflict(row, f"item {number}"), Remedy.SHOW_ITEM, owner)
                refused.append(row)
        return refused


@asynccontextmanager
async def rehearsing(
    recipe: Recipe, samples: int, known: tuple[Store, int] | None, planned: Intake | None,
    refuse: Refuse,
) -> AsyncIterator[Rehearsal]:  # fmt: skip
    """`planned` is how the pool would go into the known experiment. `refuse` is called for each
    item that would not be taken; it may raise."""
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="batchgen-dry-run-"))
        database = Path(directory) / "pool.db"
        scratch = await stack.enter_async_context(open_store(database, create=True))
        begin = scratch.enqueueing("pool", recipe, OtherRecipe.STOP)
        into = await stack.enter_async_context(begin)
        count_new = None
        if known is not None and planned is not None:
            count_new = await stack.enter_async_context(known[0].counting(planned))
        intake = planned or replace(into, samples=samples)
        yield Rehearsal(scratch, into, intake, known, count_new, refuse)
