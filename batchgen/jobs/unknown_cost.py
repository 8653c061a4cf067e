"""The most that calls with unknown outcome can have cost: each was sent, and its end was not seen.
What a budget has reserved for a call is what counts. Without a budget its request is rendered
again, by its item's recipe, and its worst case counts.
"""

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from batchgen.errors import UsageError
from batchgen.store import ReadStore, UnknownCall

if TYPE_CHECKING:
    from batchgen.jobs.sent import SentReader
    from batchgen.llm.prices import Prices, WorstCase

_MAX_CALLS = 5000  # so that `status` stays quick


class UnknownCost(Struct, frozen=True):
    """The most that `calls` can have used, as far as it is known, which is for `known_calls` of
    them; of the others it is not known, or they are too many to look at. None: it is known for no
    call."""

    calls: int
    known_calls: int = 0
    max_tokens: int | None = 0
    max_cost_usd: float | None = 0.0


NO_UNKNOWN_CALLS = UnknownCost(0)


async def max_cost_of_unknown(
    store: ReadStore, prices: "Prices", calls: int, dead: Sequence[int],
    experiments: Sequence[int] | None = None, *, parse_feedback: bool,
) -> UnknownCost:  # fmt: skip
    """The most that the `calls` with unknown outcome, of some experiments or all, can have cost.
    `dead`: the ids of workers that died and whose calls have not been taken over yet."""
    if not calls:
        return NO_UNKNOWN_CALLS
    requests, tokens, costs_usd = _Requests(store, prices, parse_feedback), [], []
    looked_at = 0
    async for call in _all_calls(store, dead, experiments):
        if looked_at == _MAX_CALLS:
            break
        looked_at += 1
        worst = await requests.worst_case(call)
        if worst is not None:
            tokens.append(worst.tokens)
        cost_usd = call.booked_usd or (worst.cost_usd if worst else None)
        if cost_usd is not None:
            costs_usd.append(cost_usd)
    return UnknownCost(
        calls,
        known_calls=len(costs_usd) or len(tokens),
        max_tokens=sum(tokens) if tokens else None,
        max_cost_usd=sum(costs_usd) if costs_usd else None,
    )


async def _all_calls(
    store: ReadStore, dead: Sequence[int], experiments: Sequence[int] | None
) -> AsyncIterator[UnknownCall]:
    for worker_id in dead:
        for call in await store.calls_of_worker(worker_id, _MAX_CALLS):
            yield call
    for experiment_id in (None,) if experiments is None else experiments:
        after = 0
        while page := await store.unknown_calls(after, experiment_id):
            for call in page:
                yield call
            after = page[-1].seq


class _Requests:
    def __init__(self, store: ReadStore, prices: "Prices", parse_feedback: bool) -> None:
        self._store = store
        self._prices = prices
        self._parse_feedback = parse_feedback
        self._reader: SentReader | None = None

    async def worst_case(self, call: UnknownCall) -> "WorstCase | None":
        """None: the answer has no limit, or the item can no longer be rendered."""
        from batchgen.jobs.sent import SentReader  # here: nearly always there is no such call
        from batchgen.prompts import with_feedback

        reader = self._reader = self._reader or SentReader(self._store)
        try:
            sent = await reader.sent(call.experiment, call.item_id, call.recipe_id, call.input)
            endpoint, body = sent.endpoint, sent.request
            if self._parse_feedback and (bad := await self._store.last_bad_answer(call.item_id)):
                body = with_feedback(endpoint, body, *bad)
            return self._prices.worst_case(body, endpoint, needs_cost=False)
        except UsageError:
            return None
