"""What was, or would be, sent for a row: by its recipe, and by what it was made of."""

import json
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from batchgen.endpoints import ENDPOINTS, Endpoint
from batchgen.pool import read_item
from batchgen.prompts import Renderer
from batchgen.store import MadeOf, ReadStore

if TYPE_CHECKING:  # what has no steps need not load them
    from batchgen.prompts.chain_row import ChainRow


class Sent(Struct, frozen=True):
    """The `request` to `endpoint`; empty of a row that a function ends. `row` is the row as one of
    its chain, None where there are no steps, and `made_of` what it was made of."""

    request: dict[str, Any]
    endpoint: Endpoint
    function: str | None = None
    row: "ChainRow | None" = None
    made_of: MadeOf = MadeOf(())


async def read_sent(
    store: ReadStore, item_id: int, recipe_id: int, input_json: str, sample: int | None = None
) -> Sent:
    """Raises InputError or TemplateError where no request can be made of it any more."""
    recipe = await store.recipe(recipe_id)
    made_of = (await store.links_of([item_id])).get(item_id, MadeOf(()))
    row = await _row(store, item_id, input_json, made_of)
    if recipe.runs_code and row is not None:
        function = await store.parsers.present(row.chain.steps[row.number].experiment_id)
        return Sent({}, ENDPOINTS[recipe.endpoint], function.version.spec, row, made_of)
    renderer = Renderer(recipe, frozenset() if row is None else row.chain.plan.names)
    given = read_item(json.loads(input_json), f"item {item_id}") if row is None else row.input
    if row is not None and row.rule.conversation:
        given = replace(given, messages=await _conversation(store, row, renderer))
    endpoint = renderer.endpoint_of(given)
    return Sent(renderer.request_body(given, sample), endpoint, None, row, made_of)


async def _row(
    store: ReadStore, item_id: int, input_json: str, made_of: MadeOf
) -> "ChainRow | None":
    item = await store.item(item_id)
    found = (one for one in await store.experiments() if item and one.name == item.experiment)
    experiment = next(found, None)
    if experiment is None or experiment.step is None:
        return None
    from batchgen.prompts.chain_row import ChainRow  # here: few have steps

    chain = await store.chain_of(experiment.id)
    assert chain is not None
    return ChainRow.of(
        chain, experiment.number, item_id, input_json, made_of.links, made_of.gathered
    )


async def _conversation(
    store: ReadStore, row: "ChainRow", renderer: Renderer
) -> list[dict[str, Any]]:
    """Its messages, and where the step goes on from a conversation those before them."""
    earlier = {
        link.recipe_id: Renderer(await store.recipe(link.recipe_id), row.chain.plan.names)
        for _, link in row.before()
    }
    return row.messages(renderer, earlier)
