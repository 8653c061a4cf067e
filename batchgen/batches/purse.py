"""What is left of a budget for requests that are not sealed yet: so that a file has no more of them
than the seal will take. What counts is said in the seal, for all workers together."""

from math import ceil

from batchgen.batches.place import Ground
from batchgen.errors import Remedy
from batchgen.items import Item
from batchgen.llm.prices import WorstCase
from batchgen.store import Budget, Spent, Store
from batchgen.worker.budget import WorstCases
from batchgen.worker.halts import no_room_in_budget
from batchgen.worker.report import BudgetWait
from batchgen.worker.requests import Prepared
from batchgen.worker.stats import Halt, HaltKind


class Purse:
    """Of one run; where there is no budget, it takes all."""

    def __init__(self, ground: Ground, store: Store) -> None:
        self._ground = ground
        self._store = store
        self._budget = ground.spec.budget
        self._spent = self._reserved = Spent()
        self._overuse: dict[int, float] = {}
        self.is_short = False

    async def open(self) -> None:
        """Look at what is spent and reserved by now."""
        self.is_short = False
        if self._budget is not None:
            self._spent, self._reserved = await self._store.batches.booked(self._budget)
            self._overuse.clear()

    async def most(self, item: Item, prepared: Prepared) -> WorstCase | None:
        """The most that the request can use; None: there is no budget. Raises ConfigError when that
        is not known, InputError when the reason lies in what this item alone asks for."""
        if self._budget is None:
            return None
        place = self._ground.place(item.server)
        assert place is not None
        if item.experiment_id not in self._overuse:
            self._overuse[item.experiment_id] = await self._store.overuse(item.experiment_id)
        return WorstCases(self._budget, lambda _: place.prices).of(item, prepared)

    def takes(self, most: WorstCase | None, experiment_id: int) -> bool:
        """Take so much out, or as many times as much as calls of the experiment have used; False:
        so much is not left, and from now on it is short."""
        if self._budget is None or most is None:
            return True
        times = self._overuse[experiment_id]
        needs = Spent(ceil(most.tokens * times), (most.cost_usd or 0.0) * times)
        if self._budget.is_exceeded_by(self._spent + self._reserved + needs):
            self.is_short = True
            if self._budget.is_exceeded_by(self._spent + needs):
                self._halt(self._budget, needs)
            return False
        self._reserved += needs
        return True

    def _halt(self, budget: Budget, needs: Spent) -> None:
        """What is spent already leaves too little, whatever becomes of what is reserved."""
        in_dollars = (
            budget.max_cost_usd is not None
            and self._spent.cost_usd + needs.cost_usd > budget.max_cost_usd
        )
        remedy = Remedy.RAISE_COST_BUDGET if in_dollars else Remedy.RAISE_TOKEN_BUDGET
        wait = BudgetWait(needs.tokens, needs.cost_usd, 0, 0.0)
        words = no_room_in_budget(budget, self._spent, wait, in_dollars=in_dollars)
        self._ground.halt(Halt(words, remedy, HaltKind.BUDGET))
