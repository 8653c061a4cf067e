"""The chains that a worker's items belong to, where experiments have steps."""

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from batchgen.clock import clock_ms
from batchgen.items import Item
from batchgen.store import Store

if TYPE_CHECKING:
    from batchgen.prompts.chain_row import ChainRow
    from batchgen.steps import Lists
    from batchgen.store import Chain

# Somebody may enqueue again with other rules; what was followed by the old ones is parsed again.
_LOOK_EVERY_MS = 1000


class Chains:
    """Read from the store when one is first met, and again now and then. Of the experiments that
    are `plain` it is known that they have no steps."""

    def __init__(self, store: Store, plain: Iterable[int] = ()) -> None:
        self._store = store
        self._known: dict[int, tuple[Chain, int] | None] = dict.fromkeys(plain)
        self._look_at: dict[int, int] = {}
        self._reading = asyncio.Lock()
        self._lists: Lists | None = None
        self._row_of: Callable[..., ChainRow] = _not_read

    def is_to_be_read(self, experiment_id: int) -> bool:
        """Whether its chain is not known, or was read a while ago."""
        if self._known.get(experiment_id, self) is None:
            return False
        return clock_ms() >= self._look_at.get(experiment_id, 0)

    async def read(self, experiment_id: int) -> None:
        """The chain of an experiment, unless somebody has just done so."""
        async with self._reading:
            if self.is_to_be_read(experiment_id):
                look_at = clock_ms() + _LOOK_EVERY_MS
                chain = await self._store.chain_of(experiment_id)
                if chain is not None and self._lists is None:
                    self._load()
                self._known[experiment_id] = _place_in(chain, experiment_id)
                self._look_at[experiment_id] = look_at

    def _load(self) -> None:
        """What few experiments have a use for, once and not for each row."""
        from batchgen.prompts.chain_row import ChainRow
        from batchgen.steps import Lists

        self._lists, self._row_of = Lists(), ChainRow.of

    def row(self, item: Item, *, for_user_code: bool) -> "ChainRow | None":
        """The item as a row of its chain, which was read; None: its experiment has no steps. Raises
        InputError when it cannot be read. What is `for_user_code` may be changed by that."""
        known = self._known[item.experiment_id]
        if known is None:
            return None
        chain, number = known
        lists = None if for_user_code else self._lists
        return self._row_of(
            chain, number, item.id, item.input_json, item.links, item.gathered, lists
        )


def _not_read(*_: object) -> "ChainRow":
    raise AssertionError("no chain was read")


def _place_in(chain: "Chain | None", experiment_id: int) -> "tuple[Chain, int] | None":
    if chain is None:
        return None
    number = next(step.number for step in chain.steps if step.experiment_id == experiment_id)
    return chain, number
