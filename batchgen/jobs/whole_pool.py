"""A pool in memory: looked at as a whole before anything of it is enqueued."""

import asyncio
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from batchgen.errors import InputError, Remedy
from batchgen.items import PoolItem, Recipe
from batchgen.jobs.lookup import name_of_item
from batchgen.jobs.pool_reader import Enqueued, PoolReader
from batchgen.pool import BadLine
from batchgen.store import Store
from batchgen.text.json_text import content_of

if TYPE_CHECKING:  # what has no steps need not load them
    from batchgen.jobs.chain import ConfiguredChain

_PAGE_IDS = 5000
_ITEMS_AT_A_TIME = 1000


class GivenId(NamedTuple):
    """Where an id of the user's own stands in the pool, and what is its item."""

    where: str
    content: bytes


async def check_items(
    pool: Iterable[PoolItem | BadLine], recipe: Recipe, directory: Path,
    chain: "ConfiguredChain | None" = None,
) -> dict[str, GivenId]:  # fmt: skip
    """The ids that the user gave. Raises InputError or TemplateError for the first item that could
    not be enqueued, and for an id that two items have. With a `chain` the recipe is that of its
    first step."""
    ids: dict[str, GivenId] = {}
    reader = PoolReader(pool, recipe, None, Enqueued(), directory, chain)
    for number, item in enumerate(reader):
        if number % _ITEMS_AT_A_TIME == 0:
            await asyncio.sleep(0)  # for a signal to be heard
        if (own := item.input.id) is None:
            continue
        given = GivenId(item.where, content_of(item.input.given))
        first = ids.setdefault(own, given)
        if first.content != given.content:
            raise InputError(
                f"{given.where}: id {own!r} is that of {first.where} already, which has other "
                "content; give this one another id."
            )
    return ids


async def refuse_known_ids(store: Store, experiment: str, ids: Mapping[str, GivenId]) -> None:
    """Raises InputError for an id that an item of the experiment with other content has."""
    found = next((one for one in await store.experiments() if one.name == experiment), None)
    if found is None:
        return
    names = list(ids)
    for start in range(0, len(names), _PAGE_IDS):
        known = await store.items_with_ids(found.id, names[start : start + _PAGE_IDS])
        for own, (item_id, input_json) in known.items():
            if ids[own].content != content_of(json.loads(input_json)):
                raise InputError(
                    f"{ids[own].where}: id {own!r} belongs to item {item_id} already, which has "
                    "other content; give this one another id.",
                    Remedy.SHOW_ITEM,
                    item=await name_of_item(store, item_id),
                )
