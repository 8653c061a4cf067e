"""A hard budget's say before a call: the most that it can cost is reserved, or it is not sent."""

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from batchgen.errors import ConfigError, InputError, Remedy
from batchgen.items import Item, Usage
from batchgen.llm.prices import Prices, WorstCase
from batchgen.store import Budget, Grant, Reservation, Store
from batchgen.worker.halts import no_room_in_budget
from batchgen.worker.report import BudgetWait
from batchgen.worker.requests import Prepared
from batchgen.worker.stats import Halt, HaltKind


class WorstCases:
    """The most that calls can use, by the prices at their servers."""

    def __init__(self, budget: Budget, prices_at: Callable[[str], Prices]) -> None:
        self._needs_cost = budget.max_cost_usd is not None
        self._prices_at = prices_at

    def of(self, item: Item, prepared: Prepared) -> WorstCase:
        """Raises ConfigError when the most that the call can cost is not known, InputError when the
        reason lies in what this item alone asks for."""
        try:
            return self._of(item, prepared)
        except ConfigError as exc:
            if not self._is_bounded_without_its_own(item, prepared):
                raise
            raise InputError(f"the item's own params cannot be kept to a budget. {exc}") from exc

    def _of(self, item: Item, prepared: Prepared) -> WorstCase:
        prices = self._prices_at(item.server)
        return prices.worst_case(prepared.body, prepared.endpoint, needs_cost=self._needs_cost)

    def _is_bounded_without_its_own(self, item: Item, prepared: Prepared) -> bool:
        """Whether the item alone, and not its recipe, asks for what has no limit or no price."""
        body = prepared.renderer.request_body(replace(prepared.input, params={}))
        try:
            self._of(item, replace(prepared, body=body))
        except ConfigError:
            return False
        return True


class BudgetGuard:
    """The guard of one worker. `prices_at` are those of a server. `reserve` returns when the
    reservation is durable, or refused; it calls `halt` when the budget has nothing left for a call,
    `waits` when others have reserved what is left, and `warn` when a server does not keep to
    max_tokens."""

    def __init__(
        self,
        budget: Budget,
        prices_at: Callable[[str], Prices],
        store: Store,
        *,
        reserve: Callable[[Reservation], Awaitable[Grant]],
        halt: Callable[[Halt], None],
        warn: Callable[[str], None],
        waits: Callable[[BudgetWait], None],
    ) -> None:
        self._budget = budget
        self._worst_cases = WorstCases(budget, prices_at)
        self._prices_at = prices_at
        self._store = store
        self._reserve = reserve
        self._halt = halt
        self._warn = warn
        self._waits = waits
        self._has_warned = False

    async def grants(self, item: Item, prepared: Prepared) -> bool:
        """Whether the call may be sent; if not, its item goes back, for another time.

        Raises ConfigError when the most that it can cost is not known, InputError when the reason
        lies in what this item alone asks for."""
        worst = self._worst_cases.of(item, prepared)
        reservation = Reservation(item, worst.tokens, worst.cost_usd or 0.0)
        grant = await self._reserve(reservation)
        if grant is not Grant.YES:
            overuse = await self._store.overuse(item.experiment_id)
            most = reservation.most(overuse)
            limit = prepared.endpoint.most_tokens(prepared.body) or 0
            answer_usd = (worst.answer_usd or 0.0) * overuse
            wait = BudgetWait(most.tokens, most.cost_usd, limit, answer_usd)
            await self._say_why(grant, wait)
        return grant is Grant.YES

    def observe(self, prepared: Prepared, usage: Usage) -> None:
        """Say so, once, when an answer had more tokens than it may have."""
        limit = prepared.endpoint.most_tokens(prepared.body)
        used = usage.completion_tokens
        if self._has_warned or limit is None or used is None or used <= limit:
            return
        self._has_warned = True
        self._warn(
            f"the server does not keep to max_tokens: an answer has {used:,} tokens, where "
            f"{limit:,} were the most. The budget holds only as far as it does; from now on as "
            "much more is reserved for each call."
        )

    async def _say_why(self, grant: Grant, wait: BudgetWait) -> None:
        if grant is Grant.WAIT:
            self._waits(wait)
            return
        spent = await self._store.spent(self._budget)
        in_dollars = self._budget.max_cost_usd is not None and (
            spent.cost_usd + wait.cost_usd > self._budget.max_cost_usd
        )
        remedy = Remedy.RAISE_COST_BUDGET if in_dollars else Remedy.RAISE_TOKEN_BUDGET
        words = no_room_in_budget(self._budget, spent, wait, in_dollars=in_dollars)
        self._halt(Halt(words, remedy, HaltKind.BUDGET))
