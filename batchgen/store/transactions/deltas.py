"""Writes the deltas of a transaction into the counters, totals and minutes."""

from msgspec.structs import asdict

from batchgen.store.deltas import CounterDeltas
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.minutes import write_minutes


def write_deltas(db: Transaction, deltas: CounterDeltas) -> None:
    """Within the caller's transaction, at its end."""
    db.execute_many(
        "move_counter",
        [
            {"experiment_id": experiment_id, "state": state, "reason": reason, "delta": delta}
            for (experiment_id, state, reason), delta in deltas.moved.items()
            if delta
        ],
    )
    db.execute_many(
        "move_parser_counter",
        [
            {"experiment_id": experiment_id, "parser_id": parser_id, "delta": delta}
            for (experiment_id, parser_id), delta in deltas.parsed.items()
            if delta
        ],
    )
    minutes = deltas.minutes()
    totals = deltas.totals(minutes)
    db.execute_many(
        "add_to_totals", [{"experiment_id": id_, **asdict(one)} for id_, one in totals.items()]
    )
    write_minutes(db, minutes)
    if deltas.failed_calls:
        rows = [asdict(one) for one in deltas.failed_calls.values()]
        db.execute_many("add_failed_calls", rows)
    if deltas.overused:
        times = [{"experiment_id": id_, "overuse": n} for id_, n in deltas.overused.items()]
        db.execute_many("note_overuse", times)
    if deltas.superseded:
        rows = [{"experiment_id": id_, "n": n} for id_, n in deltas.superseded.items()]
        db.execute_many("count_superseded", rows)
    if deltas.ended or deltas.passed_over:
        passed_over = deltas.passed_over
        rows = [
            {"experiment_id": id_, "ended": deltas.ended[id_], "passed_over": passed_over[id_]}
            for id_ in {**deltas.ended, **passed_over}
        ]
        db.execute_many("count_steps", rows)
