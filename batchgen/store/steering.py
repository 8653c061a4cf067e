"""Orders from another terminal: in the row of each worker, which reads it in every exchange."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from batchgen.store.sql import QUERIES


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker is to do. A limit of None is the one that it was started with, 0 is none.
    `stop`: as a first signal (drain), or as a second one (now)."""

    slots: int
    paused: bool = False
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    stop: Literal["drain", "now"] | None = None

    @property
    def claims_nothing(self) -> bool:
        return self.paused or self.stop is not None


@dataclass(frozen=True, slots=True)
class Order:
    """A change of `Orders`; None: as it is."""

    slots: int | None = None
    paused: bool | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    stop: Literal["drain", "now"] | None = None


def orders_of(db: sqlite3.Connection, worker_id: int) -> Orders | None:
    """None: this worker was taken for dead."""
    row = db.execute(QUERIES["orders"], {"worker_id": worker_id}).fetchone()
    return None if row is None else Orders(row[0], bool(row[1]), *row[2:])


def give(db: sqlite3.Connection, given: Mapping[int, Order | Orders]) -> int:
    """Write an order for each worker; how many were still there."""
    rows = [
        {
            "worker_id": worker_id, "slots": order.slots, "paused": order.paused,
            "requests_per_minute": order.requests_per_minute,
            "tokens_per_minute": order.tokens_per_minute, "stop": order.stop,
        }
        for worker_id, order in given.items()
    ]  # fmt: skip
    return sum(db.execute(QUERIES["order"], row).rowcount for row in rows)


def save_report(db: sqlite3.Connection, worker_id: int, report: str) -> None:
    """Keep what a worker reports, in place of what it reported before."""
    db.execute(QUERIES["save_report"], {"worker_id": worker_id, "report": report})
