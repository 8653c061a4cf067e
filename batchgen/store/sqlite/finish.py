"""The end of claims: what the plan says becomes rows, a statement for each kind of them."""

import sqlite3
from collections.abc import Sequence

from batchgen.items import Outcome
from batchgen.store.plan import (
    ClaimRow,
    Known,
    Plan,
    claim_of,
    plan_finish,
    plan_removal,
)
from batchgen.store.sqlite.budget import take_reserved
from batchgen.store.sqlite.deltas import write_deltas
from batchgen.store.sqlite.fencing import held_claims, unknown_calls_of
from batchgen.store.sqlite.rows import rows_of
from batchgen.store.sqlite.sql import QUERIES, last_id


def finish(db: sqlite3.Connection, worker_id: int, outcomes: Sequence[Outcome], now: int) -> Plan:
    """Write what the slots finished."""
    if not outcomes:
        return Plan(0, 0)
    plan = plan_finish(outcomes, _known(db, outcomes), worker_id, now)
    _write(db, plan)
    return plan


def give_back(
    db: sqlite3.Connection, worker_id: int, *, crashed: bool, max_crashes: int, now: int
) -> int:
    """The claims of a worker that is gone, or goes, to the others; how many these were."""
    claims = list(rows_of(db, "claims_of_worker", ClaimRow, {"worker_id": worker_id}))
    reserved = take_reserved(db, [(claim.item_id, claim.epoch) for claim in claims])
    known = Known(
        reserved=reserved if crashed else {},
        last_attempt_seq=last_id(db, "attempts"),
        last_result_seq=last_id(db, "results"),
    )
    plan = plan_removal(claims, known, worker_id, crashed=crashed, max_crashes=max_crashes, now=now)
    _write(db, plan)
    return len(claims)


def _known(db: sqlite3.Connection, outcomes: Sequence[Outcome]) -> Known:
    claims = {claim_of(outcome.item) for outcome in outcomes}
    held = held_claims(db, claims)
    late = claims - held
    return Known(
        held=held,
        late=unknown_calls_of(db, late),
        reserved=take_reserved(db, claims),
        last_attempt_seq=last_id(db, "attempts"),
        last_result_seq=last_id(db, "results"),
    )


def _write(db: sqlite3.Connection, plan: Plan) -> None:
    statements = (
        ("remove_unknown_attempt", plan.replaced),
        ("append_attempt", plan.attempts),
        ("note_parse_error", plan.parse_errors),
        ("append_result", plan.results),
        ("keep_answer", plan.kept_answers),
        ("take_back", plan.taken_back),
    )
    for name, rows in statements:
        if rows:
            db.executemany(QUERIES[name], rows)
    settled = db.executemany(QUERIES["settle"], plan.settled).rowcount
    assert settled in (len(plan.settled), -1), "a claim that holds was not there to be settled"
    write_deltas(db, plan.deltas)
