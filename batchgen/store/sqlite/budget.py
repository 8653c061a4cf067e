"""A hard budget, for all workers of a database together: the most that a call can cost is reserved
before it is sent, and settled in the transaction that writes its answer."""

import sqlite3
from collections.abc import Sequence

from batchgen.store.sqlite.sql import QUERIES
from batchgen.store.values import Budget, Grant, Reservation, Spent


def reserve(
    db: sqlite3.Connection, worker_id: int, wanted: Sequence[Reservation], budget: Budget
) -> list[Grant]:
    """One answer each, in their order."""
    spent = spent_of(db, budget)
    booked = spent + _sum(db, "reserved", budget)
    grants = []
    for one in wanted:
        most = Spent(one.tokens, one.cost_usd)
        if budget.is_exceeded_by(spent + most):
            grants.append(Grant.NEVER)
        elif budget.is_exceeded_by(booked + most) or not _reserve_one(db, worker_id, one):
            grants.append(Grant.WAIT)
        else:
            booked += most
            grants.append(Grant.YES)
    return grants


def _reserve_one(db: sqlite3.Connection, worker_id: int, one: Reservation) -> bool:
    """False: the claim is no longer this worker's."""
    row = {
        "item_id": one.item.id, "epoch": one.item.epoch, "worker_id": worker_id,
        "tokens": one.tokens, "cost_usd": one.cost_usd,
    }  # fmt: skip
    return db.execute(QUERIES["reserve"], row).rowcount == 1


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
