"""The most that calls with unknown outcome can have cost: each was sent, and its end was not seen.
What a budget has reserved for a call is what counts. Without a budget its request is rendered
again, by its item's recipe, and its worst case counts.
"""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from batchgen.errors import UsageError
from batchgen.llm.prices import Prices, WorstCase
from batchgen.pool import read_item
from batchgen.prompts import Renderer, with_feedback
from batchgen.store import Store, UnknownCall

_MAX_CALLS = 5000  # so that `status` stays quick


@dataclass(slots=True)
class UnknownCost:
    """The most that the `calls` can have used. `tokens` is a sum over `bounded` of them, `cost_usd`
    over `priced` of them; for the others it is not known, or they were too many to look at."""

    calls: int
    tokens: int = 0
    bounded: int = 0
    cost_usd: float = 0.0
    priced: int = 0

    def add(self, worst: WorstCase | None, booked_usd: float | None) -> None:
        """Count one more call: `worst` is what its request can use, if that is known, `booked_usd`
        what a budget has reserved for it."""
        if worst is not None:
            self.tokens += worst.tokens
            self.bounded += 1
        cost_usd = booked_usd or (worst.cost_usd if worst else None)
        if cost_usd is not None:
            self.cost_usd += cost_usd
            self.priced += 1


async def max_cost_of_unknown(
    store: Store, prices: Prices, calls: int, dead: Sequence[int], *, parse_feedback: bool
) -> UnknownCost:
    """The most that the `calls` with unknown outcome cost. `dead`: the ids of workers that died and
    whose calls have not been taken over yet."""
    cost, requests = UnknownCost(calls), _Requests(store, prices, parse_feedback)
    if not calls:
        return cost
    looked_at = 0
    async for call in _all_calls(store, dead):
        if looked_at == _MAX_CALLS:
            break
        looked_at += 1
        cost.add(await requests.worst_case(call), call.booked_usd)
    return cost


async def _all_calls(store: Store, dead: Sequence[int]) -> AsyncIterator[UnknownCall]:
    for worker_id in dead:
        for call in await store.calls_of_worker(worker_id, _MAX_CALLS):
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

    async def worst_case(self, call: UnknownCall) -> WorstCase | None:
        """None: the answer has no limit, or the item can no longer be rendered."""
        try:
            renderer = await self._renderer(call.recipe_id)
            body = renderer.request_body(read_item(json.loads(call.input), f"item {call.item_id}"))
            if self._parse_feedback and (bad := await self._store.last_bad_answer(call.item_id)):
                body["messages"] = with_feedback(body["messages"], *bad)
            return self._prices.worst_case(body, needs_cost=False)
        except UsageError:
            return None

    async def _renderer(self, recipe_id: int) -> Renderer:
        if recipe_id not in self._renderers:
            self._renderers[recipe_id] = Renderer(await self._store.recipe(recipe_id))
        return self._renderers[recipe_id]
