"""A hard budget, for all workers of a database together: the most that a call can cost is reserved
before it is sent, and settled in the transaction that writes its answer."""

import json
from collections.abc import Collection, Sequence

from batchgen.store.grants import plan_grants
from batchgen.store.plan import Claim, Reserved, claim_of
from batchgen.store.transaction import Rows, Transaction
from batchgen.store.transactions.fencing import held_claims
from batchgen.store.values import Budget, Grant, Reservation, Spent


def reserve(
    db: Transaction, worker_id: int, wanted: Sequence[Reservation], budget: Budget
) -> list[Grant]:
    db.lock("budget")
    held = held_claims(db, {claim_of(one.item) for one in wanted})
    spent, reserved = look_at_budget(db, budget)
    times = overuse(db)
    grants, made = plan_grants(wanted, budget, spent, reserved, held.keys(), times)
    rows = [
        {
            "item_id": one.item.id, "epoch": one.item.epoch, "worker_id": worker_id,
            "experiment_id": one.item.experiment_id,
            "asked": one.tokens, "tokens": most.tokens, "cost_usd": most.cost_usd,
        }
        for one, most in made
    ]  # fmt: skip
    db.execute_many("reserve", rows)
    return grants


def look_at_budget(db: Transaction, budget: Budget) -> tuple[Spent, Spent]:
    """What is spent of it, and what is reserved."""
    # In this order: a call that ends between the two counts twice, and not in neither.
    reserved = _sum(db, "reserved", budget)
    return spent_of(db, budget), reserved


def spent_of(db: Transaction, budget: Budget) -> Spent:
    """By calls that are over; one with an unknown answer counts with the most it can have cost."""
    return _sum(db, "spent", budget)


def overuse(db: Transaction) -> dict[int, float]:
    """By experiment, how many times as much as was asked for a call has used; where it is more."""
    return dict(db.execute("overuse").fetchall())


def look_for_reserved(db: Transaction) -> Rows:
    """For `take_reserved`; so it can be begun with other reads."""
    return db.execute("any_reservation")


def take_reserved(
    db: Transaction, claims: Collection[Claim], any_reserved: Rows
) -> dict[Claim, Reserved]:
    """Remove what was reserved for these claims, those for which anything was."""
    if any_reserved.fetchone() is None:
        return {}
    ids = {"ids": json.dumps([item_id for item_id, _ in claims])}
    found = {
        (item_id, epoch): Reserved(Spent(tokens, cost_usd), asked)
        for item_id, epoch, asked, tokens, cost_usd in db.execute("reservations_of", ids)
        if (item_id, epoch) in claims
    }
    rows = [{"item_id": item_id, "epoch": epoch} for item_id, epoch in found]
    db.execute_many("settle_reservation", rows)
    return found


def _sum(db: Transaction, query: str, budget: Budget) -> Spent:
    sums = [
        (tokens, cost_usd)
        for experiment_id, tokens, cost_usd in db.execute(query)
        if budget.experiments is None or experiment_id in budget.experiments
    ]
    return Spent(sum(tokens for tokens, _ in sums), sum(cost_usd for _, cost_usd in sums))
