"""Orders from elsewhere: in the row of each worker, which reads it in every exchange."""

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from batchgen.store.transaction import Transaction
from batchgen.store.transactions.rows import rows_of
from batchgen.store.values import OrderChange, Orders


def orders_of(db: Transaction, worker_id: int) -> Orders | None:
    """None: this worker was taken for dead."""
    return orders_in(look_for_orders(db, worker_id))


def look_for_orders(db: Transaction, worker_id: int) -> Iterator[Orders]:
    """For `orders_in`; so it can be begun with other reads."""
    return rows_of(db, "orders", Orders, {"worker_id": worker_id})


def orders_in(found: Iterator[Orders]) -> Orders | None:
    """See `orders_of`."""
    orders = next(found, None)
    return orders and replace(orders, paused=bool(orders.paused))


def change_orders(db: Transaction, given: Mapping[int, OrderChange | Orders]) -> int:
    """Write an order for each worker; how many were still there."""
    rows = [
        {
            "worker_id": worker_id, "slots": order.slots, "paused": order.paused,
            "rpm": order.rpm, "tpm": order.tpm, "stop": order.stop,
        }
        for worker_id, order in given.items()
    ]  # fmt: skip
    return sum(db.execute("change_orders", row).rowcount for row in rows)


def save_report(db: Transaction, worker_id: int, report: str) -> None:
    """Keep what a worker reports, in place of what it reported before."""
    db.execute("save_report", {"worker_id": worker_id, "report": report})
