"""The transactions of the person at the keyboard: retry, rename, delete, record an export."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from batchgen.errors import UsageError
from batchgen.items import State
from batchgen.store.ledger import Ledger
from batchgen.store.sql import QUERIES

FailedItem = tuple[int, int, str]  # item_id, experiment_id, reason


def failed_page(
    db: sqlite3.Connection, experiment_id: int, reason: str | None, after: int, limit: int
) -> list[FailedItem]:
    """The next failed items after item `after`. Ends with an empty page."""
    which = {"experiment_id": experiment_id, "reason": reason, "after": after, "limit": limit}
    return db.execute(QUERIES["failed_items"], which).fetchall()


def failed_item(db: sqlite3.Connection, item_id: int) -> FailedItem | None:
    found: FailedItem | None = db.execute(QUERIES["failed_item"], {"item_id": item_id}).fetchone()
    return found


def reopen(db: sqlite3.Connection, items: Sequence[FailedItem]) -> int:
    """Failed items back to pending, with all their tries; what they brought so far is kept.

    Those that are not failed for the reason given any more are left: another retry was faster.
    """
    ledger = Ledger()
    reopened = 0
    for item in items:
        item_id, experiment_id, reason = item
        if failed_item(db, item_id) == item:
            db.execute(QUERIES["reopen"], {"item_id": item_id})
            reopened += 1
            ledger.move(experiment_id, State.FAILED, -1, reason)
            ledger.move(experiment_id, State.PENDING, +1)
    ledger.write(db)
    return reopened


def rename_experiment(db: sqlite3.Connection, experiment_id: int, new_name: str) -> None:
    """Raises UsageError when the name is taken."""
    if db.execute(QUERIES["find_experiment"], {"name": new_name}).fetchone():
        raise UsageError(f"experiment {new_name!r} exists already; choose another name.")
    db.execute(QUERIES["rename_experiment"], {"experiment_id": experiment_id, "new_name": new_name})


def delete_experiment(db: sqlite3.Connection, experiment_id: int) -> None:
    """All of it, answers too. Raises UsageError while a worker is at work on it."""
    which = {"experiment_id": experiment_id}
    (running,) = db.execute(QUERIES["count_running"], which).fetchone()
    if running:
        raise UsageError(
            f"{running} of its items are being worked on; stop the worker first (batchgen status)."
        )
    for query in (
        "delete_keys", "delete_results", "delete_items", "delete_counters", "delete_totals",
        "delete_experiment",
    ):  # fmt: skip
        db.execute(QUERIES[query], which)


def record_export(
    db: sqlite3.Connection,
    experiment_id: int,
    path: Path,
    rows: int,
    sha256: str,
    result_seq: int,
    now: int,
) -> None:
    db.execute(
        QUERIES["record_export"],
        {
            "experiment_id": experiment_id,
            "path": str(path.resolve()),
            "rows": rows,
            "sha256": sha256,
            "result_seq": result_seq,
            "now": now,
        },
    )
