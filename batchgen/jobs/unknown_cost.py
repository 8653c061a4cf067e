"""The most that calls with unknown outcome can have cost: each was sent, and nobody saw the end of
it. What a budget has counted for one holds; else its request is made again, by its item's recipe.
"""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from batchgen.errors import UsageError
from batchgen.llm.prices import Most, Prices
from batchgen.pool import read_item
from batchgen.prompts import Renderer, with_feedback
from batchgen.store import Store, UnknownCall

_MOST_CALLS = 5000  # so that `status` stays quick


@dataclass(slots=True)
class UnknownCost:
    """The most that they can have used: `tokens` is a sum over `bounded` of the `calls`, `cost_usd`
    over `priced` of them. The others are too many to look at, or nobody knows."""

    calls: int
    tokens: int = 0
    bounded: int = 0
    cost_usd: float = 0.0
    priced: int = 0

    def add(self, most: Most | None, booked_usd: float | None) -> None:
        """One more call: what its request can use, if that is known, and what is counted for it."""
        if most is not None:
            self.tokens += most.tokens
            self.bounded += 1
        cost_usd = booked_usd or (most.cost_usd if most else None)
        if cost_usd is not None:
            self.cost_usd += cost_usd
            self.priced += 1


async def most_of_unknown(
    store: Store, prices: Prices, calls: int, dead: Sequence[int], *, parse_feedback: bool
) -> UnknownCost:
    """Of the `calls` that there are. `dead`: workers that died, and whose calls nobody has taken
    over yet."""
    cost, requests = UnknownCost(calls), _Requests(store, prices, parse_feedback)
    if not calls:
        return cost
    looked_at = 0
    async for call in _all_calls(store, dead):
        if looked_at == _MOST_CALLS:
            break
        looked_at += 1
        cost.add(await requests.most(call), call.booked_usd)
    return cost


async def _all_calls(store: Store, dead: Sequence[int]) -> AsyncIterator[UnknownCall]:
    for worker_id in dead:
        for call in await store.calls_of_worker(worker_id, _MOST_CALLS):
            yield call
    after = 0
    while page := await store.unknown_calls(after):
        for call in page:
            yield call
        after = page[-1].seq


class _Requests:
    def __init__(self, store: Store, prices: Prices, parse_feedback: bool) -> None:
        self._store = store
        self._prices = prices
        self._parse_feedback = parse_feedback
        self._renderers: dict[int, Renderer] = {}

    async def most(self, call: UnknownCall) -> Most | None:
        """None: there is no limit to the answer, or the item has no request any more."""
        try:
            renderer = await self._renderer(call.recipe_id)
            body = renderer.request_body(read_item(json.loads(call.input), f"item {call.item_id}"))
            if self._parse_feedback and (bad := await self._store.last_bad_answer(call.item_id)):
                body["messages"] = with_feedback(body["messages"], *bad)
            return self._prices.most(body, needs_cost=False)
        except UsageError:
            return None

    async def _renderer(self, recipe_id: int) -> Renderer:
        if recipe_id not in self._renderers:
            self._renderers[recipe_id] = Renderer(await self._store.recipe(recipe_id))
        return self._renderers[recipe_id]
