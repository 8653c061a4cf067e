"""A hard budget's say before a call: the most that it can cost is reserved, or it is not sent."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from batchgen.errors import ConfigError, InputError, Remedy
from batchgen.items import Item
from batchgen.llm.prices import Prices, WorstCase
from batchgen.store import Budget, Grant, Reservation, Spent, Store
from batchgen.worker.requests import Prepared
from batchgen.worker.stats import Halt


class BudgetGuard:
    """The guard of one worker. `reserve` returns when the reservation is durable, or refused; it
    calls `halt` when the budget has nothing left for a call."""

    def __init__(
        self,
        budget: Budget,
        prices: Prices,
        store: Store,
        *,
        reserve: Callable[[Reservation], Awaitable[Grant]],
        halt: Callable[[Halt], None],
    ) -> None:
        self._budget = budget
        self._prices = prices
        self._store = store
        self._reserve = reserve
        self._halt = halt

    async def grants(self, item: Item, prepared: Prepared) -> bool:
        """Whether the call may be sent; if not, its item goes back, for another time.

        Raises ConfigError when the most that it can cost is not known, InputError when the reason
        lies in what this item alone asks for."""
        try:
            worst = self._worst_case(prepared)
        except ConfigError as exc:
            if not self._is_bounded_without_its_own(prepared):
                raise
            raise InputError(f"the item's own params cannot be kept to a budget. {exc}") from exc
        grant = await self._reserve(Reservation(item, worst.tokens, worst.cost_usd or 0.0))
        if grant is Grant.NEVER:
            spent = await self._store.spent(self._budget)
            self._halt(_used_up(self._budget, spent, worst))
        return grant is Grant.YES

    def _worst_case(self, prepared: Prepared) -> WorstCase:
        needs_cost = self._budget.max_cost_usd is not None
        return self._prices.worst_case(prepared.body, needs_cost=needs_cost)

    def _is_bounded_without_its_own(self, prepared: Prepared) -> bool:
        """Whether the item alone, and not its recipe, asks for what has no limit or no price."""
        body = prepared.renderer.request_body(replace(prepared.input, params={}))
        try:
            self._worst_case(replace(prepared, body=body))
        except ConfigError:
            return False
        return True


def _used_up(budget: Budget, spent: Spent, worst: WorstCase) -> Halt:
    cost_usd = worst.cost_usd or 0.0
    if budget.max_cost_usd is not None and spent.cost_usd + cost_usd > budget.max_cost_usd:
        return Halt(
            f"the budget is used up: ${spent.cost_usd:,.4f} of ${budget.max_cost_usd:,.4f} are "
            f"spent, and the next call may cost ${cost_usd:,.4f}.",
            Remedy.RAISE_COST_BUDGET,
        )
    return Halt(
        f"the budget is used up: {spent.tokens:,} of {budget.max_tokens:,} tokens are spent, and "
        f"the next call may need {worst.tokens:,}.",
        Remedy.RAISE_TOKEN_BUDGET,
    )
