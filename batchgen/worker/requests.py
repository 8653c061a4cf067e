"""What is asked for an item, and what reads its answer: by its recipe, which is loaded once. Or
which function of the user's ends it, without a call.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from batchgen.endpoints import Endpoint
from batchgen.errors import TemplateError
from batchgen.items import Item, ItemInput
from batchgen.parsers import Parser, load_parser
from batchgen.pool import read_item
from batchgen.prompts import Renderer, with_feedback
from batchgen.prompts.images import with_images
from batchgen.store import Store
from batchgen.text.json_text import load_json
from batchgen.worker.chains import Chains
from batchgen.worker.spec import WorkSpec

if TYPE_CHECKING:  # few experiments have steps
    from batchgen.parsers import StepFunction
    from batchgen.prompts.chain_row import ChainRow

# What is sent, and what of it is added by batchgen.
_AS_STREAM = (
    {"stream": True, "stream_options": {"include_usage": True}}, frozenset(("stream_options",)),
)  # fmt: skip
# A server that streams unless told not to would count no tokens, as nobody asks it to.
_WHOLE = ({"stream": False}, frozenset(("stream",)))


class PresentParser(NamedTuple):
    """The parser that reads an experiment's answers, and its number in the store."""

    id: int
    parser: Parser


class PresentFunction(NamedTuple):
    """The function that ends the rows of a step, and its number in the store."""

    id: int
    function: "StepFunction"


Present = PresentParser | PresentFunction


class PreparedCode(Struct, frozen=True):
    """A row that a function ends, as its chain's row."""

    present: PresentFunction
    row: "ChainRow"


class Prepared(Struct, frozen=True):
    """`body` is that of the request to `endpoint`, made by `renderer`, with local images by their
    path; empty when the item has its answer already. `added` are the parameters that batchgen adds
    by itself, without which a request will do, too. `shared_recipe`: its recipe is that of a pool,
    not of chosen items only. `row` is the item as one of its chain; None: it has no steps."""

    input: ItemInput
    parser: Parser
    renderer: Renderer
    body: dict[str, Any]
    added: frozenset[str]
    shared_recipe: bool
    endpoint: Endpoint
    parser_id: int | None = None
    row: "ChainRow | None" = None


class Request(Struct, frozen=True):
    """What goes to the server; `image_paths` are those of the local images in it, by what stands
    there for each."""

    body: dict[str, Any]
    image_paths: Mapping[str, str]
    endpoint: Endpoint


class Requests:
    """The requests of one worker. `present` are the parsers of experiments, and the functions of
    those that run one, by their numbers; for others what the experiment has is loaded."""

    def __init__(
        self, store: Store, spec: WorkSpec, present: Mapping[int, Present]
    ) -> None:  # fmt: skip
        self._store = store
        self._spec = spec
        self._parsers = {id_: one for id_, one in present.items() if isinstance(one, PresentParser)}
        self._functions = {
            id_: one for id_, one in present.items() if isinstance(one, PresentFunction)
        }
        self._chains = Chains(store)
        self._renderers: dict[tuple[int, int | None], Renderer] = {}
        self._left_out: set[tuple[str, int, str]] = set()
        self._streaming = {server.key for server in spec.servers if server.stream}
        self._shared_recipes: dict[tuple[int, int], bool] = {}

    async def prepare(self, item: Item, *, is_asked: bool = False) -> Prepared:
        """With `is_asked`, as of an item that has its answer: without a body. Raises ConfigError
        when the item's recipe or parser cannot be used, TemplateError or InputError when the item
        cannot be asked for by it."""
        is_asked = is_asked or item.answer_seq is not None
        known = self._parsers.get(item.experiment_id)
        parser_id, parser = known or await self._load_parser(item.experiment_id)
        if not self._chains.is_known(item):
            await self._chains.read(item)
        row = self._chains.row(item, for_user_code=parser.kind == "function")
        key = (item.recipe_id, row.chain.plan_id if row else None)
        renderer = self._renderers.get(key) or await self._renderer(item.recipe_id, row)
        if row is None:
            item_input = read_item(load_json(item.input_json), f"item {item.id}")
            body = {} if is_asked else renderer.request_body(item_input, item.sample)
        else:
            item_input, body = await self._of_step(row, renderer, item, is_asked=is_asked)
        endpoint = renderer.endpoint_of(item_input)
        if body and self._spec.parse_feedback and item.parse_failures:
            body = await self._with_feedback(item, endpoint, body)
        asked, added_to_all = _AS_STREAM if item.server in self._streaming else _WHOLE
        if body:
            body |= {name: value for name, value in asked.items() if name in endpoint.streaming}
        added = added_to_all | renderer.added_params(item_input, item.sample)
        for name in added if self._left_out else ():
            if (item.server, item.recipe_id, name) in self._left_out:
                body.pop(name, None)
        shared = self._shared_recipes.get((item.experiment_id, item.recipe_id))
        if shared is None:
            shared = await self._is_shared(item)
        return Prepared(item_input, parser, renderer, body, added, shared, endpoint, parser_id, row)

    async def prepare_code(self, item: Item) -> PreparedCode:
        """Of a row that a function ends. Raises ConfigError when that cannot be loaded, InputError
        when the chain's item cannot be read."""
        if not self._chains.is_known(item):
            await self._chains.read(item)
        row = self._chains.row(item, for_user_code=True)
        assert row is not None  # only rows of steps run code
        return PreparedCode(await self._function(item.experiment_id), row)

    async def vector_of(self, prepared: Prepared, answer_seq: int) -> str | None:
        """The answer's embedding, where a row of a chain waits with it; nothing else needs it."""
        if prepared.row is None or prepared.endpoint.has_text:
            return None
        return await self._store.answer_vector(answer_seq)

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

    async def _of_step(
        self, row: "ChainRow", renderer: Renderer, item: Item, *, is_asked: bool
    ) -> tuple[ItemInput, dict[str, Any]]:
        """The input of a row of a chain, and the body of its request."""
        try:
            item_input = row.input
            if is_asked:
                return item_input, {}
            if row.rule.conversation:
                messages = await self._messages(row, renderer)
                item_input = replace(item_input, messages=messages)
            return item_input, renderer.request_body(item_input, item.sample)
        except TemplateError as exc:
            raise TemplateError(f"step {row.rule.name}: {exc}", exc.remedy) from exc

    async def _messages(self, row: "ChainRow", renderer: Renderer) -> list[dict[str, Any]]:
        """Those of a row as they are sent."""
        earlier = {
            link.recipe_id: await self._renderer(link.recipe_id, before)
            for before, link in row.before()
        }
        return row.messages(renderer, earlier)

    async def _with_feedback(
        self, item: Item, endpoint: Endpoint, body: dict[str, Any]
    ) -> dict[str, Any]:
        bad = await self._store.last_bad_answer(item.id)
        return with_feedback(endpoint, body, *bad) if bad else body

    async def _is_shared(self, item: Item) -> bool:
        present = await self._store.present_recipes(item.experiment_id)
        shared = self._shared_recipes[item.experiment_id, item.recipe_id] = (
            item.recipe_id in present
        )
        return shared

    async def _renderer(self, recipe_id: int, row: "ChainRow | None") -> Renderer:
        key = (recipe_id, row.chain.plan_id if row else None)
        found = self._renderers.get(key)
        if found is None:
            recipe = await self._store.recipe(recipe_id)
            names = row.chain.plan.names if row else frozenset()
            found = self._renderers[key] = Renderer(recipe, names)
        return found

    async def _function(self, experiment_id: int) -> PresentFunction:
        found = self._functions.get(experiment_id)
        if found is None:
            from batchgen.parsers import load_step_function  # here: few steps run code

            stored = await self._store.parsers.present(experiment_id)
            function = load_step_function(stored.version.spec, self._spec.directory)
            number = await self._store.parsers.number(function.version)
            found = self._functions[experiment_id] = PresentFunction(number, function)
        return found

    async def _load_parser(self, experiment_id: int) -> PresentParser:
        stored = await self._store.parsers.present(experiment_id)
        parser = load_parser(stored.version.spec, self._spec.directory)
        number = stored.id
        if parser.version != stored.version:  # its code has changed since
            number = await self._store.parsers.number(parser.version)
        found = self._parsers[experiment_id] = PresentParser(number, parser)
        return found
