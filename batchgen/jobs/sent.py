"""What was, or would be, sent for a row: by its recipe, and by what it was made of."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from batchgen.endpoints import ENDPOINTS, Endpoint
from batchgen.items import Recipe
from batchgen.pool import read_item
from batchgen.prompts import Renderer
from batchgen.store import Experiment, ReadStore

if TYPE_CHECKING:  # what has no steps need not load them
    from batchgen.prompts.chain_row import ChainRow
    from batchgen.store import Chain, MadeOf


class Sent(Struct, frozen=True):
    """The `request` to `endpoint`; or a `function` ends the row without one."""

    request: dict[str, Any]
    endpoint: Endpoint
    function: str | None = None


class SentReader:
    """Reads what was sent for one row after another. Experiments, chains and recipes are read once,
    and what a row was made of only where there are steps."""

    def __init__(self, store: ReadStore) -> None:
        self._store = store
        self._experiments = dict[str, Experiment]()
        self._chains: dict[str, Chain | None] = {}
        self._recipes = dict[int, Recipe]()
        self._renderers = dict[tuple[int, int | None], Renderer]()
        self._made_of: dict[int, MadeOf] = {}

    async def read_links(self, item_ids: Sequence[int]) -> None:
        """What these rows were made of: for many that are asked about next, in one go."""
        self._made_of = await self._store.links_of(item_ids)

    async def sent(
        self, experiment: str, item_id: int, recipe_id: int, input_json: str,
        sample: int | None = None,
    ) -> Sent:  # fmt: skip
        """Raises InputError or TemplateError where no request can be made of it any more."""
        chain = await self._chain(experiment)
        if chain is None:
            given = read_item(json.loads(input_json), f"item {item_id}")
            renderer = await self._renderer(recipe_id)
            return Sent(renderer.request_body(given, sample), renderer.endpoint_of(given))
        number = self._experiments[experiment].number
        row = await self._row(chain, number, item_id, input_json)
        recipe = await self._recipe(recipe_id)
        if recipe.runs_code:
            function = await self._store.parsers.present(chain.steps[number].experiment_id)
            return Sent({}, ENDPOINTS[recipe.endpoint], function.version.spec)
        renderer, given = await self._renderer(recipe_id, chain), row.input
        if row.rule.conversation:
            given = replace(given, messages=await self._conversation(row, renderer))
        return Sent(renderer.request_body(given, sample), renderer.endpoint_of(given))

    async def _chain(self, experiment: str) -> "Chain | None":
        if experiment not in self._experiments:
            self._experiments = {one.name: one for one in await self._store.experiments()}
        if experiment not in self._chains:
            found = await self._store.chain_if_step(self._experiments[experiment])
            self._chains[experiment] = found
        return self._chains[experiment]

    async def _row(self, chain: "Chain", number: int, item_id: int, input_json: str) -> "ChainRow":
        from batchgen.prompts.chain_row import ChainRow  # here: few have steps

        if item_id not in self._made_of:
            await self.read_links([item_id])
        made_of = self._made_of.get(item_id)
        links, gathered = (made_of.links, made_of.gathered) if made_of else ((), ())
        return ChainRow.of(chain, number, item_id, input_json, links, gathered)

    async def _conversation(self, row: "ChainRow", renderer: Renderer) -> list[dict[str, Any]]:
        """Its messages, and where the step goes on from a conversation those before them."""
        earlier = {
            link.recipe_id: await self._renderer(link.recipe_id, row.chain)
            for _, link in row.before()
        }
        return row.messages(renderer, earlier)

    async def _renderer(self, recipe_id: int, chain: "Chain | None" = None) -> Renderer:
        key = (recipe_id, chain.plan_id if chain else None)
        if key not in self._renderers:
            recipe = await self._recipe(recipe_id)
            names = chain.plan.names if chain else frozenset[str]()
            self._renderers[key] = Renderer(recipe, names)
        return self._renderers[key]

    async def _recipe(self, recipe_id: int) -> Recipe:
        if recipe_id not in self._recipes:
            self._recipes[recipe_id] = await self._store.recipe(recipe_id)
        return self._recipes[recipe_id]
