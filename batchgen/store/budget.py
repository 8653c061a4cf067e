"""A hard budget, for all workers of a database together: the most that a call can cost is reserved
before it is sent, and settled in the transaction that writes its answer."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from batchgen.items import Item
from batchgen.store.sql import QUERIES


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that the calls of `experiments` (None: of all) may cost in all, those of earlier
    runs included; None: no limit."""

    experiments: tuple[int, ...] | None = None
    max_cost_usd: float | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """The most that one call for this item can use."""

    item: Item
    tokens: int
    cost_usd: float


class Grant(Enum):
    """YES: send it. WAIT: others have reserved what is left, and may not need all of it, or the
    item is another's by now. NEVER: what is spent already leaves too little."""

    YES = "yes"
    WAIT = "wait"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Spent:
    tokens: int = 0
    cost_usd: float = 0.0


def reserve(
    db: sqlite3.Connection, worker_id: int, wanted: Sequence[Reservation], budget: Budget
) -> list[Grant]:
    """One answer each, in their order."""
    spent, reserved = spent_of(db, budget), _sum(db, "reserved", budget)
    tokens, cost_usd = spent.tokens + reserved.tokens, spent.cost_usd + reserved.cost_usd
    grants = []
    for one in wanted:
        if _exceeds(budget, spent.tokens + one.tokens, spent.cost_usd + one.cost_usd):
            grants.append(Grant.NEVER)
        elif _exceeds(budget, tokens + one.tokens, cost_usd + one.cost_usd):
            grants.append(Grant.WAIT)
        else:
            row = {
                "item_id": one.item.id, "epoch": one.item.epoch, "worker_id": worker_id,
                "tokens": one.tokens, "cost_usd": one.cost_usd,
            }  # fmt: skip
            if db.execute(QUERIES["reserve"], row).rowcount == 1:
                tokens, cost_usd = tokens + one.tokens, cost_usd + one.cost_usd
                grants.append(Grant.YES)
            else:
                grants.append(Grant.WAIT)
    return grants


def spent_of(db: sqlite3.Connection, budget: Budget) -> Spent:
    """By calls that are over; one with an unknown answer counts with the most it can have cost."""
    return _sum(db, "spent", budget)


def settle(db: sqlite3.Connection, item_id: int, epoch: int) -> Spent:
    """Remove what was reserved for a claim; nothing when nothing was."""
    row = db.execute(QUERIES["settle_reservation"], {"item_id": item_id, "epoch": epoch})
    found = row.fetchall()
    return Spent(*found[0]) if found else Spent()


def _sum(db: sqlite3.Connection, query: str, budget: Budget) -> Spent:
    sums = [
        (tokens, cost_usd)
        for experiment_id, tokens, cost_usd in db.execute(QUERIES[query])
        if budget.experiments is None or experiment_id in budget.experiments
    ]
    return Spent(sum(tokens for tokens, _ in sums), sum(cost_usd for _, cost_usd in sums))


def _exceeds(budget: Budget, tokens: int, cost_usd: float) -> bool:
    too_many = budget.max_tokens is not None and tokens > budget.max_tokens
    return too_many or (budget.max_cost_usd is not None and cost_usd > budget.max_cost_usd)
