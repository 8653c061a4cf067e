"""The chains that a worker's items belong to: what a row of a later step sees, and what follows
one that is done. An item of an experiment without steps belongs to none."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from batchgen.clock import clock_ms
from batchgen.items import Item, ItemInput
from batchgen.pool import read_item
from batchgen.prompts.chain_names import input_of_step, item_names
from batchgen.steps import Followed, Link, StepRule, chain_values, follow
from batchgen.store import Chain, Store
from batchgen.text.json_text import load_json

# Somebody may enqueue again with other rules; what was followed by the old ones is parsed again.
_LOOK_EVERY_MS = 1000


class ChainRow(Struct, frozen=True):
    """One row of a chain: of step `number`, with the `input_json` of its own, made of `links` and,
    of a gathering step, of those that are `gathered`. `first` is the item of the chain's first row,
    which has the number `first_id`, and `values` are what the row sees of the steps before it."""

    chain: Chain
    number: int
    input_json: str
    links: Sequence[Link]
    gathered: Sequence[Sequence[Link]]
    first_id: int
    first: ItemInput
    values: Mapping[str, Any]

    @classmethod
    def of(
        cls, chain: Chain, number: int, item_id: int, input_json: str, links: Sequence[Link],
        gathered: Sequence[Sequence[Link]] = (),
    ) -> "ChainRow":  # fmt: skip
        """Raises InputError for an item that cannot be read."""
        first_id, first_json = (
            (links[0].item_id, links[0].input_json) if links else (item_id, input_json)
        )
        first = read_item(load_json(first_json), f"item {first_id}")
        values = chain_values(chain.plan, number, links, gathered)
        if links:
            values |= load_json(input_json)
        return cls(chain, number, input_json, links, gathered, first_id, first, values)

    @property
    def rule(self) -> StepRule:
        return self.chain.plan.steps[self.number]

    @property
    def input(self) -> ItemInput:
        """For its templates and its parser."""
        return input_of_step(self.first, self.values) if self.number else self.first

    def followed(self, parsed_json: str | None, response: str | None) -> Followed:
        """What is made of it with this result. Raises ParseError where `each` finds no list."""
        return follow(
            self.chain.plan, self.chain.plan_id, self.number, self.links,
            item_names(self.first, self.first_id), parsed_json, response,
            input_json=self.input_json, gathered=self.gathered,
        )  # fmt: skip

    def parent(self) -> "tuple[ChainRow, Link]":
        """The row that it was made of, and how that was answered."""
        *above, link = self.links
        row = ChainRow.of(
            self.chain, link.number, link.item_id, link.input_json, above, link.gathered
        )
        return row, link


class Chains:
    """Of the experiments that a worker works on, read from the store when one is first met."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[int, Chain | None] = {}
        self._look_at = 0

    async def row(self, item: Item) -> ChainRow | None:
        """None: its experiment has no steps. Raises InputError for an item that cannot be read."""
        chain = self._known.get(item.experiment_id)
        if chain is None and item.experiment_id in self._known:
            return None
        if chain is None or clock_ms() >= self._look_at:
            chain = await self._read(item.experiment_id)
        if chain is None:
            return None
        number = next(s.number for s in chain.steps if s.experiment_id == item.experiment_id)
        return ChainRow.of(chain, number, item.id, item.input_json, item.links, item.gathered)

    async def _read(self, experiment_id: int) -> Chain | None:
        """What is known of others is read again, too, when they are met."""
        if clock_ms() >= self._look_at:
            self._look_at = clock_ms() + _LOOK_EVERY_MS
            self._known = {id_: chain for id_, chain in self._known.items() if chain is None}
        found = self._known[experiment_id] = await self._store.chain_of(experiment_id)
        return found
