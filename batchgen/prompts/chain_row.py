"""One row of a chain: what it sees of the steps before it, and what follows it."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from batchgen.items import ItemInput
from batchgen.pool import read_item
from batchgen.prompts.chain_names import input_of_step, item_names
from batchgen.prompts.renderer import Renderer
from batchgen.steps import Followed, Link, Lists, StepRule, chain_values, follow
from batchgen.store import Chain
from batchgen.text.json_text import load_json


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
        gathered: Sequence[Sequence[Link]] = (), lists: Lists | None = None,
    ) -> "ChainRow":  # fmt: skip
        """Raises InputError for an item that cannot be read. Of one that takes values from `lists`
        nothing may be changed."""
        first_id, first_json = (
            (links[0].item_id, links[0].input_json) if links else (item_id, input_json)
        )
        first = read_item(load_json(first_json), f"item {first_id}")
        values = chain_values(chain.plan, number, links, gathered, lists)
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
            item_names(self.first, self.first_id), self.values, parsed_json, response,
            input_json=self.input_json, gathered=self.gathered,
        )  # fmt: skip

    def parent(self) -> "tuple[ChainRow, Link]":
        """The row that it was made of, and how that was answered."""
        *above, link = self.links
        row = ChainRow.of(
            self.chain, link.number, link.item_id, link.input_json, above, link.gathered
        )
        return row, link

    def before(self) -> "list[tuple[ChainRow, Link]]":
        """The rows from which its conversation goes on, with how each was answered."""
        found, row = list[tuple[ChainRow, Link]](), self
        while row.rule.conversation:
            row, link = row.parent()
            found.insert(0, (row, link))
        return found

    def messages(
        self, renderer: Renderer, earlier: Mapping[int, Renderer]
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Those that are sent: the conversation that it goes on from, and its own. `earlier` are
        the renderers of the rows before, by their recipes."""
        sent = list[dict[str, Any]]()
        for row, link in self.before():
            sent += _own_messages(row, earlier[link.recipe_id])
            sent.append({"role": "assistant", "content": link.response})
        return [*sent, *_own_messages(self, renderer)]


def _own_messages(row: ChainRow, renderer: Renderer) -> list[dict[str, Any]]:
    given = renderer.messages_given(row.input)
    return list(given) if given else renderer.messages(row.input)
