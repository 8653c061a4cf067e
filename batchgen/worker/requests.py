"""What is asked for an item, and what reads its answer: by its recipe, which is loaded once."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from msgspec import Struct

from batchgen.endpoints import Endpoint
from batchgen.items import Item, ItemInput
from batchgen.parsers import Parser, load_parser
from batchgen.pool import read_item
from batchgen.prompts import Renderer, with_feedback
from batchgen.prompts.images import with_images
from batchgen.store import Store
from batchgen.text.json_text import load_json
from batchgen.worker.spec import WorkSpec

_AS_STREAM = {"stream": True, "stream_options": {"include_usage": True}}
_WHOLE = {"stream": False}


class PresentParser(NamedTuple):
    """The parser that reads an experiment's answers, and its number in the store."""

    id: int
    parser: Parser


class Prepared(Struct, frozen=True):
    """`body` is that of the request to `endpoint`, made by `renderer`, with local images by their
    path; empty when the item has its answer already. `added` are the parameters that batchgen adds
    by itself, without which a request will do, too. `shared_recipe`: its recipe is that of a pool,
    not of chosen items only."""

    input: ItemInput
    parser: Parser
    renderer: Renderer
    body: dict[str, Any]
    added: frozenset[str]
    shared_recipe: bool
    endpoint: Endpoint
    parser_id: int | None = None


class Request(Struct, frozen=True):
    """What goes to the server; `image_paths` are those of the local images in it, by what stands
    there for each."""

    body: dict[str, Any]
    image_paths: Mapping[str, str]
    endpoint: Endpoint


class Requests:
    """The requests of one worker. `parsers` are those of experiments, by their numbers; for others
    what the experiment has is loaded."""

    def __init__(self, store: Store, spec: WorkSpec, parsers: Mapping[int, PresentParser]) -> None:
        self._store = store
        self._spec = spec
        self._parsers = dict(parsers)
        self._renderers: dict[int, Renderer] = {}
        self._left_out: set[tuple[str, int, str]] = set()
        # A server that streams unless told not to would count no tokens, as nobody asks it to.
        self._streaming = dict(_AS_STREAM if spec.stream else _WHOLE)
        self._added_to_all = frozenset(self._streaming) - ({"stream"} if spec.stream else set())
        self._shared_recipes: dict[tuple[int, int], bool] = {}

    async def prepare(self, item: Item) -> Prepared:
        """Raises ConfigError when the item's recipe or parser cannot be used, TemplateError or
        InputError when the item cannot be asked for by it."""
        renderer = await self._renderer(item.recipe_id)
        parser_id, parser = await self._parser(item.experiment_id)
        item_input = read_item(load_json(item.input_json), f"item {item.id}")
        body = renderer.request_body(item_input, item.sample) if item.answer_seq is None else {}
        endpoint = renderer.endpoint_of(item_input)
        if body and self._spec.parse_feedback and item.parse_failures:
            body = await self._with_feedback(item, endpoint, body)
        if body:
            asked = self._streaming.items()
            body |= {name: value for name, value in asked if name in endpoint.streaming}
        added = self._added_to_all | renderer.added_params(item_input, item.sample)
        for name in added if self._left_out else ():
            if (item.server, item.recipe_id, name) in self._left_out:
                body.pop(name, None)
        shared = await self._is_shared(item)
        return Prepared(item_input, parser, renderer, body, added, shared, endpoint, parser_id)

    async def complete(self, prepared: Prepared) -> Request:
        """With its local images in it. Raises InputError when one cannot be sent."""
        endpoint, body = prepared.endpoint, prepared.body
        if prepared.input.messages is None and prepared.input.prompt is None:
            return Request(body, {}, endpoint)
        messages, paths = await with_images(endpoint.messages_of(body), self._spec.directory)
        if paths and endpoint.conversation:
            body = {**body, endpoint.conversation: messages}
        return Request(body, paths, endpoint)

    def leave_out(self, server: str, recipe_id: int, name: str) -> bool:
        """Send a server no more a parameter that batchgen itself adds; False: it was left out
        before."""
        known = (server, recipe_id, name) in self._left_out
        self._left_out.add((server, recipe_id, name))
        return not known

    async def _with_feedback(
        self, item: Item, endpoint: Endpoint, body: dict[str, Any]
    ) -> dict[str, Any]:
        bad = await self._store.last_bad_answer(item.id)
        return with_feedback(endpoint, body, *bad) if bad else body

    async def _is_shared(self, item: Item) -> bool:
        known = (item.experiment_id, item.recipe_id)
        if known not in self._shared_recipes:
            present = await self._store.present_recipes(item.experiment_id)
            self._shared_recipes[known] = item.recipe_id in present
        return self._shared_recipes[known]

    async def _renderer(self, recipe_id: int) -> Renderer:
        found = self._renderers.get(recipe_id)
        if found is None:
            recipe = await self._store.recipe(recipe_id)
            found = self._renderers[recipe_id] = Renderer(recipe)
        return found

    async def _parser(self, experiment_id: int) -> PresentParser:
        found = self._parsers.get(experiment_id)
        if found is None:
            stored = await self._store.parsers.present(experiment_id)
            parser = load_parser(stored.version.spec, self._spec.directory)
            number = stored.id
            if parser.version != stored.version:  # its code has changed since
                number = await self._store.parsers.number(parser.version)
            found = self._parsers[experiment_id] = PresentParser(number, parser)
        return found
