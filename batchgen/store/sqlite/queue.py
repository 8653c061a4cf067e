"""The transactions of the workers: join, exchange, leave, and taking over from the dead.

`exchange` is the heart: what the slots finished is written, and what the freed slots do next is
claimed, in one transaction. So the fsync is shared by every result and claim of a tick, a slot gets
its next item in the very transaction that made its last answer durable, and the rows in state
`running` are exactly the calls that may be in flight.

Fencing: every claim has its epoch, and an outcome counts only while the row still has it (plan.py).
A worker that was taken for dead changes nothing; its paid answers are still appended to `attempts`.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace

from batchgen.items import Item, Outcome, State
from batchgen.limits import Allowance, Limits
from batchgen.store.deltas import CounterDeltas
from batchgen.store.plan import plan_returned
from batchgen.store.records import Counts
from batchgen.store.sqlite.deltas import write_deltas
from batchgen.store.sqlite.finish import finish, give_back
from batchgen.store.sqlite.limiter import Limiter
from batchgen.store.sqlite.rows import rows_of
from batchgen.store.sqlite.selections import selection_counts
from batchgen.store.sqlite.sql import QUERIES
from batchgen.store.sqlite.steering import orders_of
from batchgen.store.values import ClaimRequest, Exchange, WorkerRow

_CLOCK_SET_BACK_MS = 75_000


def join(
    db: sqlite3.Connection, machine: tuple[str, str], pid: int, slots: int, now: int, lease_ms: int
) -> int:
    """Add a worker; its id is never used again."""
    host, boot_id = machine
    row = {
        "host": host, "boot_id": boot_id, "pid": pid, "slots": slots, "now": now,
        "lease_until": now + lease_ms,
    }  # fmt: skip
    worker_id = db.execute(QUERIES["join_worker"], row).lastrowid
    assert worker_id is not None
    return worker_id


def heartbeat(db: sqlite3.Connection, worker_id: int, lease_until: int) -> bool:
    """Extend the lease. False: this worker was taken for dead, and its claims are others' now."""
    row = {"worker_id": worker_id, "lease_until": lease_until}
    return db.execute(QUERIES["heartbeat"], row).rowcount == 1


def workers(db: sqlite3.Connection) -> list[WorkerRow]:
    rows = list(rows_of(db, "workers", WorkerRow))
    return [replace(row, paused=bool(row.paused), calls=_count_calls(db, row.id)) for row in rows]


def _count_calls(db: sqlite3.Connection, worker_id: int) -> int:
    (n,) = db.execute(QUERIES["count_calls"], {"worker_id": worker_id}).fetchone()
    return int(n)


def remove_worker(
    db: sqlite3.Connection, worker_id: int, *, crashed: bool, max_crashes: int, now: int
) -> int:
    """Remove a worker, and give its claims back to the others; how many these were."""
    n = give_back(db, worker_id, crashed=crashed, max_crashes=max_crashes, now=now)
    db.execute(QUERIES["drop_reservations"], {"worker_id": worker_id})
    db.execute(QUERIES["remove_worker"], {"worker_id": worker_id})
    return n


def shift_retry_times(db: sqlite3.Connection, now: int, back: int | None = None) -> None:
    """When the clock was set back, retries that were due in a moment would wait as long as it was.

    `back` in ms; None: nobody knows, but the newest call must not lie ahead. Twice does no harm,
    but to a wait of more than half of it. A little is not worth it: waits are of up to a minute.
    """
    if back is None:
        (newest,) = db.execute(QUERIES["newest_attempt_at"]).fetchone() or (0,)
        back = newest - now
    if back > _CLOCK_SET_BACK_MS:
        db.execute(QUERIES["shift_retry_times"], {"back": back, "after": now + back // 2})


def charge(db: sqlite3.Connection, items: Iterable[Item]) -> None:
    db.executemany(QUERIES["charge"], [{"item_id": item.id} for item in items])


def begin_second_calls(
    db: sqlite3.Connection, items: Sequence[Item], limits: Limits, now: int
) -> set[int]:
    claims = json.dumps({item.id: item.epoch for item in items})
    begun = db.execute(QUERIES["begin_second_calls"], {"claims": claims}).fetchall()
    ours = {item_id for (item_id,) in begun}
    if ours and limits.any:
        limiter = Limiter(db, limits, 0.0, now)
        limiter.take_second_calls([item for item in items if item.id in ours])
        limiter.write()
    return ours


def exchange(
    db: sqlite3.Connection,
    worker_id: int,
    outcomes: Sequence[Outcome],
    want: ClaimRequest,
    now: int,
) -> Exchange:
    """Write what the slots finished, and claim what the free ones do next."""
    finished = finish(db, worker_id, outcomes, now)
    orders = orders_of(db, worker_id)
    limiter = Limiter(db, want.limits, want.call_tokens.mean, now) if want.limits.any else None
    if limiter:
        limiter.settle(plan_returned(outcomes, want.limits, want.pause_ms))
    claims_nothing = orders is None or orders.claims_nothing
    allowance = Allowance(0 if claims_nothing else want.slots)
    if limiter and not claims_nothing:
        allowance = limiter.allowance(want.slots)
    claimed, next_at = _claim(db, worker_id, want, allowance, now)
    items = _items(db, claimed, want)
    if limiter:
        limiter.take(items)
        limiter.write()
    done = Exchange(items, finished.attempt_seqs, orders, finished.lost)
    if len(items) == want.slots:
        return done
    counts = _counts(db, want)
    return replace(
        done,
        open=counts.open,
        next_at=next_at,
        enough=counts.is_enough(want.until),
        limited_to_rpm=allowance.limited_to_rpm if len(items) == allowance.calls else None,
    )


def _claim(
    db: sqlite3.Connection, worker_id: int, want: ClaimRequest, allowance: Allowance, now: int
) -> tuple[list[int], int | None]:
    """Retries that are due first, then fresh items. Also when to look again, if that is known."""
    if want.until is not None:
        want = replace(want, slots=min(want.slots, _counts(db, want).wanted(want.until)))
    if want.slots == 0:
        return [], None
    deltas = CounterDeltas()
    next_at: int | None = None
    claimed: list[int] = []
    for experiment_id in _experiments_to_claim(db, want):
        for query in _claims(want):
            slots = min(allowance.calls, want.slots) - len(claimed)
            if slots > 0:
                row = {
                    "worker_id": worker_id, "experiment_id": experiment_id, "now": now,
                    "want": slots, "selection": want.selection,
                }  # fmt: skip
                ids = [id_ for (id_,) in db.execute(QUERIES[query], row).fetchall()]
                claimed += ids
                deltas.move(experiment_id, State.PENDING, -len(ids))
                deltas.move(experiment_id, State.RUNNING, +len(ids))
        next_at = _earlier(next_at, _next_available_at(db, want, experiment_id))
    write_deltas(db, deltas)
    # While a limit holds claims back, what comes due before it allows more is worth no look.
    limited = allowance.next_at is not None and len(claimed) == allowance.calls
    return claimed, allowance.next_at if limited else next_at


def _claims(want: ClaimRequest) -> tuple[str, str]:
    if want.selection is None:
        return "claim_waiting", "claim_fresh"
    return "claim_selected_waiting", "claim_selected_fresh"


def _experiments_to_claim(db: sqlite3.Connection, want: ClaimRequest) -> Iterable[int]:
    if want.experiments is not None:
        return want.experiments
    return [id_ for (id_,) in db.execute(QUERIES["open_experiments"])]


def _next_available_at(
    db: sqlite3.Connection, want: ClaimRequest, experiment_id: int
) -> int | None:
    query = "next_available_at" if want.selection is None else "next_selected_at"
    which = {"experiment_id": experiment_id, "selection": want.selection}
    (at,) = db.execute(QUERIES[query], which).fetchone()
    return None if at is None else int(at)


def _earlier(one: int | None, other: int | None) -> int | None:
    return min((at for at in (one, other) if at is not None), default=None)


def _items(db: sqlite3.Connection, claimed: list[int], want: ClaimRequest) -> list[Item]:
    if not claimed:
        return []
    items = list(rows_of(db, "claimed_items", Item, {"ids": json.dumps(claimed)}))
    if want.limits.tpm is None:
        return items
    tokens_of = want.call_tokens.of
    return [
        replace(item, reserved_tokens=tokens_of(len(item.input_json.encode()))) for item in items
    ]


def _counts(db: sqlite3.Connection, want: ClaimRequest) -> Counts:
    """Items by state, of those wanted."""
    if want.selection is not None:
        return selection_counts(db, want.selection)
    counts = Counts()
    for experiment_id, state, _, n in db.execute(QUERIES["counters"]):
        if want.experiments is None or experiment_id in want.experiments:
            setattr(counts, state, getattr(counts, state) + n)
    return counts
