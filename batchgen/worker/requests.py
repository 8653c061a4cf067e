"""What is asked for an item, and what reads its answer: by its recipe, which is loaded once."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batchgen.items import Item, ItemInput
from batchgen.parsers import Parser, load_parser
from batchgen.pool import read_item
from batchgen.prompts import Renderer, with_feedback
from batchgen.prompts.images import with_images
from batchgen.store import Store
from batchgen.worker.spec import WorkSpec


@dataclass(frozen=True, slots=True)
class Prepared:
    """`body` is the request's, made by `renderer`, with local images by their path; empty when the
    item has its answer already. `shared_recipe`: its recipe is that of a pool, not of chosen items
    only."""

    input: ItemInput
    parser: Parser
    renderer: Renderer
    body: dict[str, Any]
    shared_recipe: bool


@dataclass(frozen=True, slots=True)
class Request:
    """What goes to the server; `image_paths` are those of the local images in it, by what stands
    there for each."""

    body: dict[str, Any]
    image_paths: Mapping[str, str]


class Requests:
    """The requests of one worker. `parsers` are those that no name can load, by their spec."""

    def __init__(self, store: Store, spec: WorkSpec, parsers: Mapping[str, Parser]) -> None:
        self._store = store
        self._spec = spec
        self._parsers = parsers
        self._recipes: dict[int, tuple[Renderer, Parser]] = {}
        self._left_out: set[tuple[int, str]] = set()
        self._shared_recipes: dict[tuple[int, int], bool] = {}

    async def prepare(self, item: Item) -> Prepared:
        """Raises ConfigError when the item's recipe cannot be used, TemplateError or InputError
        when the item cannot be asked for by it."""
        renderer, parser = await self._recipe(item.recipe_id)
        item_input = read_item(json.loads(item.input_json), f"item {item.id}")
        body = renderer.request_body(item_input, item.sample) if item.answer_seq is None else {}
        if body and self._spec.parse_feedback and item.parse_failures:
            await self._add_feedback(item, body)
        if body and self._left_out:
            for name in renderer.added_params(item_input, item.sample):
                if (item.recipe_id, name) in self._left_out:
                    body.pop(name, None)
        return Prepared(item_input, parser, renderer, body, await self._is_shared(item))

    async def complete(self, prepared: Prepared) -> Request:
        """With its local images in it. Raises InputError when one cannot be sent."""
        body = prepared.body
        if prepared.input.messages is None:
            return Request(body, {})
        messages, paths = await with_images(body["messages"], self._spec.directory)
        return Request({**body, "messages": messages} if paths else body, paths)

    def leave_out(self, recipe_id: int, name: str) -> bool:
        """Send no more a parameter that batchgen itself adds; False: it was left out before."""
        known = (recipe_id, name) in self._left_out
        self._left_out.add((recipe_id, name))
        return not known

    async def _add_feedback(self, item: Item, body: dict[str, Any]) -> None:
        if bad := await self._store.last_bad_answer(item.id):
            body["messages"] = with_feedback(body["messages"], *bad)

    async def _is_shared(self, item: Item) -> bool:
        known = (item.experiment_id, item.recipe_id)
        if known not in self._shared_recipes:
            self._shared_recipes[known] = await self._store.is_enqueued_with(*known)
        return self._shared_recipes[known]

    async def _recipe(self, recipe_id: int) -> tuple[Renderer, Parser]:
        found = self._recipes.get(recipe_id)
        if found is None:
            recipe = await self._store.recipe(recipe_id)
            parser = self._parsers.get(recipe.parser) or load_parser(recipe.parser)
            found = self._recipes[recipe_id] = Renderer(recipe), parser
        return found
