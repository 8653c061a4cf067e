"""The chains that a worker's items belong to, where experiments have steps."""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from batchgen.clock import clock_ms
from batchgen.items import Item
from batchgen.store import Store

if TYPE_CHECKING:
    from batchgen.prompts.chain_row import ChainRow
    from batchgen.store import Chain

# Somebody may enqueue again with other rules; what was followed by the old ones is parsed again.
_LOOK_EVERY_MS = 1000


class Chains:
    """Read from the store when one is first met, and again now and then. Of the experiments that
    are `plain` it is known that they have no steps."""

    def __init__(self, store: Store, plain: Iterable[int] = ()) -> None:
        self._store = store
        self._known: dict[int, Chain | None] = dict.fromkeys(plain)
        self._look_at: dict[int, int] = {}
        self._reading = asyncio.Lock()

    def knows_none(self, experiment_id: int) -> bool:
        """Whether it is known that the experiment has no steps."""
        return self._known.get(experiment_id, self) is None

    async def row(self, item: Item) -> "ChainRow | None":
        """The item as a row of its chain; None: its experiment has no steps. Raises InputError when
        it cannot be read."""
        if item.experiment_id not in self._known:
            async with self._reading:
                if item.experiment_id not in self._known:
                    await self._read(item.experiment_id)
        if self._known[item.experiment_id] is None:
            return None
        if clock_ms() >= self._look_at[item.experiment_id]:
            await self._read(item.experiment_id)
        return _row(self._known[item.experiment_id], item)

    async def _read(self, experiment_id: int) -> None:
        self._look_at[experiment_id] = clock_ms() + _LOOK_EVERY_MS
        self._known[experiment_id] = await self._store.chain_of(experiment_id)


def _row(chain: "Chain | None", item: Item) -> "ChainRow":
    from batchgen.prompts.chain_row import ChainRow  # here: few experiments have steps

    assert chain is not None  # one that has steps keeps them
    number = next(s.number for s in chain.steps if s.experiment_id == item.experiment_id)
    return ChainRow.of(chain, number, item.id, item.input_json, item.links, item.gathered)
