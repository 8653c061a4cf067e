"""Enqueueing rehearsed: a pool is told what enqueueing would refuse, and nothing of it is kept."""

import json
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from batchgen.errors import Remedy
from batchgen.items import NewItem, Recipe
from batchgen.jobs.enqueue import id_conflict
from batchgen.json_text import canonical_json
from batchgen.pool import BadLine
from batchgen.store import Intake, OtherRecipe, Store, open_store

Refuse = Callable[[BadLine, Remedy | None, int | None], None]


class Rehearsal:
    """The items of one pool. They go into a database of its own, so that memory does not grow with
    them, and are compared with those of the `known` experiment, if there is one."""

    def __init__(
        self, scratch: Store, intake: Intake, known: tuple[Store, int] | None, refuse: Refuse
    ) -> None:
        self.intake = intake
        self._scratch, self._known, self._refuse = scratch, known, refuse

    async def check(self, rows: list[NewItem]) -> None:
        """Refuses each of the rows whose id belongs to an item with other content already."""
        known = await self._refused_by_known(rows)
        rows = [row for row in rows if row not in known]
        while rows:
            added = await self._scratch.add_items(self.intake, rows)
            if added.conflict is None:
                return
            bad, rows = rows[len(added.ids)], rows[len(added.ids) + 1 :]
            self._refuse(id_conflict(bad, "an item before it"), None, None)

    async def _refused_by_known(self, rows: list[NewItem]) -> list[NewItem]:
        ids = [row.custom_id for row in rows if row.custom_id is not None]
        if self._known is None or not ids:
            return []
        store, experiment_id = self._known
        found = await store.items_with_ids(experiment_id, ids)
        refused = []
        for row in rows:
            number, input_json = found.get(row.custom_id or "", (0, ""))
            if number and not _same(row.input_json, input_json):
                self._refuse(id_conflict(row, f"item {number}"), Remedy.SHOW_ITEM, number)
                refused.append(row)
        return refused


@asynccontextmanager
async def rehearsing(
    recipe: Recipe, known: tuple[Store, int] | None, refuse: Refuse
) -> AsyncIterator[Rehearsal]:
    """`refuse` is called for each item that would not be taken; it may raise."""
    with tempfile.TemporaryDirectory(prefix="batchgen-dry-run-") as directory:
        async with (
            open_store(Path(directory) / "pool.db", create=True) as scratch,
            scratch.enqueueing("pool", recipe, OtherRecipe.STOP) as intake,
        ):
            yield Rehearsal(scratch, intake, known, refuse)


def _same(given: str, stored: str) -> bool:
    return given == stored or canonical_json(json.loads(given)) == canonical_json(
        json.loads(stored)
    )
