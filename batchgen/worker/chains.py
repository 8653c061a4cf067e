"""The chains that a worker's items belong to, where experiments have steps."""

import asyncio
from typing import TYPE_CHECKING

from batchgen.items import Item
from batchgen.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchgen.prompts.chain_row import ChainRow
    from batchgen.steps import Lists
    from batchgen.store import Chain


class Chains:
    """Read from the store when the first item comes that was claimed by a plan which is not known:
    somebody may enqueue again with other rules at any time. What is followed by the ones before is
    claimed once more, by the new ones, to be parsed again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[int, tuple[Chain, int]] = {}  # by experiment, with the number of its step
        self._reading = asyncio.Lock()
        self._lists: Lists | None = None
        self._row_of: Callable[..., ChainRow] = _not_read

    def is_known(self, item: Item) -> bool:
        """Whether its chain is, as it was when the item was claimed; or it has none."""
        if item.plan_id is None:
            return True
        known = self._known.get(item.experiment_id)
        return known is not None and known[0].plan_id == item.plan_id

    async def read(self, item: Item) -> None:
        """The chain of the item, unless somebody has just done so."""
        async with self._reading:
            if self.is_known(item):
                return
            chain = await self._store.chain_of(item.experiment_id)
            if chain is None:  # deleted meanwhile
                self._known.pop(item.experiment_id, None)
                return
            if self._lists is None:
                self._load()
            self._known |= {step.experiment_id: (chain, step.number) for step in chain.steps}

    def _load(self) -> None:
        """What few experiments have a use for, once and not for each row."""
        from batchgen.prompts.chain_row import ChainRow
        from batchgen.steps import Lists

        self._lists, self._row_of = Lists(), ChainRow.of

    def row(self, item: Item, *, for_user_code: bool) -> "ChainRow | None":
        """The item as a row of its chain, which was read; None: its experiment has no steps. Raises
        InputError when it cannot be read. What is `for_user_code` may be changed by that."""
        known = self._known.get(item.experiment_id) if item.plan_id is not None else None
        if known is None:
            return None
        chain, number = known
        lists = None if for_user_code else self._lists
        return self._row_of(
            chain, number, item.id, item.input_json, item.links, item.gathered, lists
        )


def _not_read(*_: object) -> "ChainRow":
    raise AssertionError("no chain was read")
