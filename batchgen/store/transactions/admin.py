"""The transactions on whole experiments and on the files that export wrote."""

from pathlib import Path

from batchgen.errors import Remedy, UsageError
from batchgen.store.records import ExportRecord
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.rows import rows_of


def rename_experiment(db: Transaction, experiment_id: int, new_name: str) -> None:
    """With its steps."""
    which = {"experiment_id": experiment_id, "new_name": new_name}
    _refuse_a_step(db, experiment_id)
    if db.execute("find_experiment", {"name": new_name}).fetchone():
        raise UsageError(f"experiment {new_name!r} exists already; choose another name.")
    db.execute("rename_experiment", which)
    db.execute("rename_steps", which)


def delete_experiment(db: Transaction, experiment_id: int) -> None:
    """With its steps, the last first."""
    _refuse_a_step(db, experiment_id)
    which = {"experiment_id": experiment_id}
    later = [step for (step,) in db.execute("later_steps", which)]
    db.execute("ungather", which)
    for one in (*later, experiment_id):
        _delete(db, one)


def _delete(db: Transaction, experiment_id: int) -> None:
    which = {"experiment_id": experiment_id}
    running, at_provider = db.execute("count_running", which).fetchone()
    if at_provider:
        raise UsageError(
            f"{at_provider} of its rows are at the provider, in batches.", Remedy.END_BATCHES
        )
    if running:
        raise UsageError(f"{running} of its items are being worked on.", Remedy.STOP_WORKERS)
    for query in (
        "delete_keys", "delete_keys_not_sorted", "delete_results", "delete_items",
        "delete_counters", "delete_parser_counters", "delete_step_counters", "delete_totals",
        "delete_failed_calls", "delete_minutes", "delete_experiment",
    ):  # fmt: skip
        db.execute(query, which)


def _refuse_a_step(db: Transaction, experiment_id: int) -> None:
    first = db.execute("first_step", {"experiment_id": experiment_id}).fetchone()
    if first:
        raise UsageError(f"it is a step of {first[0]}; name that one.")


def record_export(
    db: Transaction,
    experiment_id: int,
    path: Path,
    rows: int,
    sha256: str,
    result_seq: int,
    now: int,
) -> None:
    """A live file that was at this place is one no more."""
    db.execute("forget_live_file", {"path": str(path.resolve())})
    db.execute(
        "record_export",
        {
            "experiment_id": experiment_id,
            "path": str(path.resolve()),
            "rows": rows,
            "sha256": sha256,
            "result_seq": result_seq,
            "now": now,
        },
    )


def exports(db: Transaction) -> list[ExportRecord]:
    return list(rows_of(db, "exports", ExportRecord))
