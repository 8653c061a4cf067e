"""The transactions of the workers: join, exchange, leave, and taking over from the dead.

`exchange` is the heart: what the slots finished is written, and what the freed slots do next is
claimed, in one transaction. So the fsync is shared by every result and claim of a tick, a slot gets
its next item in the very transaction that made its last answer durable, and the rows in state
`running` are exactly the calls that may be in flight.

Fencing: every claim has its epoch, and an outcome is written only where the row still has it. A
worker that was taken for dead changes nothing; its paid answers are still appended to `attempts`.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from batchgen.items import (
    Attempt,
    Done,
    Fail,
    Item,
    KeepAnswer,
    Outcome,
    Reason,
    Release,
    Retry,
    State,
    StoredAnswer,
)
from batchgen.store.budget import Spent, settle
from batchgen.store.ledger import Ledger
from batchgen.store.sql import QUERIES

# A second more than a minute: requests are counted by whole seconds.
_RATE_WINDOW_S = 61
_CLOCK_SET_BACK_MS = 75_000


@dataclass(frozen=True, slots=True)
class Want:
    """What to claim: up to `slots` items of `experiments` (None: of all), sending no more than
    `requests_per_minute` together with every other worker (None: no limit)."""

    slots: int = 0
    experiments: tuple[int, ...] | None = None
    requests_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """What an exchange did.

    `attempt_seqs` belong to the outcomes, in their order (None: no call was made). `lost` are the
    outcomes that no longer counted. `open` items are pending or running, anybody's; `next_at` is
    when another try is worth it. Both are told only when fewer items were claimed than wanted.
    `expelled`: this worker was taken for dead; it claims nothing before it joins again.
    """

    items: list[Item]
    attempt_seqs: list[int | None]
    lost: list[Outcome] = field(default_factory=list)
    open: int | None = None
    next_at: int | None = None
    expelled: bool = False


@dataclass(frozen=True, slots=True)
class WorkerRow:
    id: int
    host: str
    boot_id: str
    pid: int
    slots: int
    started_at: int
    lease_until: int
    calls: int = 0
    alive: bool = True


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


def beat(db: sqlite3.Connection, worker_id: int, lease_until: int) -> bool:
    """Extend the lease. False: this worker was taken for dead, and its claims are others' now."""
    row = {"worker_id": worker_id, "lease_until": lease_until}
    return db.execute(QUERIES["beat"], row).rowcount == 1


def workers(db: sqlite3.Connection) -> list[WorkerRow]:
    rows = [WorkerRow(*row) for row in db.execute(QUERIES["workers"])]
    return [replace(row, calls=_count_calls(db, row.id)) for row in rows]


def _count_calls(db: sqlite3.Connection, worker_id: int) -> int:
    (n,) = db.execute(QUERIES["count_calls"], {"worker_id": worker_id}).fetchone()
    return int(n)


def remove_worker(
    db: sqlite3.Connection, worker_id: int, *, crashed: bool, max_crashes: int, now: int
) -> int:
    """Remove a worker and give its claims back to the others; how many these were.

    After a crash each of them may have been sent: an attempt with unknown outcome is kept for it.
    Answers that are waiting to be parsed stay with their items. An item that saw `max_crashes`
    workers die fails; but while a parser was at work, only the items it had are suspected of it.
    """
    ledger, calls, results = Ledger(), [], []
    claims = db.execute(QUERIES["claims_of_worker"], {"worker_id": worker_id}).fetchall()
    seqs = _Sequence(db, "attempts")
    parsing = any(answer_seq is not None for *_, answer_seq in claims)
    for item_id, experiment_id, epoch, crashes, answer_seq in claims:
        suspect = crashed and (answer_seq is not None or not parsing)
        item = Item(item_id, epoch, experiment_id, 0, None, "")
        if crashed and answer_seq is None:
            reserved = settle(db, item_id, epoch)
            unknown = _at_its_most(Attempt(finished_at=now), reserved)
            calls.append(_attempt_row(next(seqs), worker_id, item, unknown))
            ledger.spend(experiment_id, unknown, reserved.tokens)
        if suspect and crashes + 1 >= max_crashes:
            results.append((item, answer_seq))
        else:
            db.execute(QUERIES["take_back"], {"item_id": item_id, "crashed": int(suspect)})
            ledger.move(experiment_id, State.RUNNING, -1)
            ledger.move(experiment_id, State.PENDING, +1)
    db.executemany(QUERIES["append_attempt"], calls)
    _fail_crashed(db, results, max_crashes, now, ledger)
    db.execute(QUERIES["drop_reservations"], {"worker_id": worker_id})
    db.execute(QUERIES["remove_worker"], {"worker_id": worker_id})
    ledger.write(db)
    return len(claims)


def mend_times(db: sqlite3.Connection, now: int, back: int | None = None) -> None:
    """When the clock was set back, tries that were due in a moment would wait as long as it was.

    `back` in ms; None: nobody knows, but the newest call must not lie ahead. Twice does no harm,
    but to a wait of more than half of it. A little is not worth it: waits are of up to a minute.
    """
    if back is None:
        (newest,) = db.execute(QUERIES["newest_attempt_at"]).fetchone() or (0,)
        back = newest - now
    if back > _CLOCK_SET_BACK_MS:
        db.execute(QUERIES["wait_less"], {"back": back, "after": now + back // 2})


def charge(db: sqlite3.Connection, items: Iterable[Item]) -> None:
    """One more try used up by each of these, which went back to pending without."""
    db.executemany(QUERIES["charge"], [{"item_id": item.id} for item in items])


def exchange(
    db: sqlite3.Connection, worker_id: int, outcomes: Sequence[Outcome], want: Want, now: int
) -> Exchange:
    """Write what the slots finished, and claim what the free ones do next."""
    ledger = Ledger()
    seqs, lost = _finish(db, worker_id, outcomes, now, ledger)
    ledger.write(db)  # claiming goes by the counters
    ledger = Ledger()
    expelled = db.execute(QUERIES["is_worker"], {"worker_id": worker_id}).fetchone() is None
    claimed, next_at = ([], None) if expelled else _claim(db, worker_id, want, now, ledger)
    ledger.write(db)
    items = _items(db, claimed)
    if len(items) == want.slots:
        return Exchange(items, seqs, lost, expelled=expelled)
    return Exchange(items, seqs, lost, _count_open(db, want), next_at, expelled)


def _finish(
    db: sqlite3.Connection,
    worker_id: int,
    outcomes: Sequence[Outcome],
    now: int,
    ledger: Ledger,
) -> tuple[list[int | None], list[Outcome]]:
    attempt_seq, result_seq = _Sequence(db, "attempts"), _Sequence(db, "results")
    attempts, results, lost = [], [], []
    seqs: list[int | None] = []
    has_budget = db.execute(QUERIES["any_reservation"]).fetchone() is not None
    for outcome in outcomes:
        item, attempt = outcome.item, outcome.attempt
        reserved = settle(db, item.id, item.epoch) if has_budget else Spent()
        if isinstance(outcome.decision, Retry) and outcome.decision.error:
            attempt = _with_parse_error(db, item, attempt, outcome.decision.error)
        if attempt is None or not _may_have_cost_all(attempt):
            reserved = Spent()
        elif has_budget:
            attempt = _at_its_most(attempt, reserved)
        seq = None if attempt is None else next(attempt_seq)
        result = _result_row(outcome, seq, now)
        if result is not None:
            result["seq"] = next(result_seq)
        if _settle(db, outcome, seq, result):
            _count(ledger, outcome)
            results += [result] if result is not None else []
        else:
            lost.append(outcome)
            if attempt is not None:
                claim = {"item_id": item.id, "epoch": item.epoch}
                if forgotten := db.execute(QUERIES["forget_unknown_call"], claim).rowcount:
                    ledger.forget_unknown(item.experiment_id, forgotten)
            if not db.execute(QUERIES["item_input"], {"item_id": item.id}).fetchone():
                seq = None  # its experiment was deleted meanwhile
        if attempt is not None and seq is not None:
            attempts.append(_attempt_row(seq, worker_id, item, attempt))
            ledger.spend(item.experiment_id, attempt, reserved.tokens)
        seqs.append(seq)
    db.executemany(QUERIES["append_attempt"], attempts)
    db.executemany(QUERIES["append_result"], results)
    return seqs, lost


def _with_parse_error(
    db: sqlite3.Connection, item: Item, attempt: Attempt | None, error: str
) -> Attempt | None:
    """An answer that its parser could not use says so, and another one is asked for."""
    if attempt is not None:
        return replace(attempt, error=error)
    db.execute(QUERIES["note_parse_error"], {"seq": _answer_seq(item), "error": error})
    return None


def _may_have_cost_all(attempt: Attempt) -> bool:
    """Nobody knows whether the server finished, and charged for, what we did not see the end of."""
    if attempt.usage.prompt_tokens is not None and attempt.usage.completion_tokens is not None:
        return False
    return attempt.outcome != "failed" or attempt.may_be_charged


def _at_its_most(attempt: Attempt, reserved: Spent) -> Attempt:
    if reserved == Spent():
        return attempt
    return replace(attempt, cost_usd=reserved.cost_usd)


def _settle(
    db: sqlite3.Connection, outcome: Outcome, seq: int | None, result: dict[str, object] | None
) -> bool:
    """Move the item's row; False when the claim is no longer this worker's."""
    item, decision = outcome.item, outcome.decision
    row: dict[str, object] = {"item_id": item.id, "epoch": item.epoch}
    if isinstance(decision, KeepAnswer):
        return db.execute(QUERIES["keep_answer"], row | {"answer_seq": seq}).rowcount == 1
    row |= {
        "state": _state_after(decision),
        "available_at": decision.available_at if isinstance(decision, Retry) else None,
        "charged": isinstance(decision, Done | Fail)
        or (isinstance(decision, Retry) and decision.charged),
        "parse_failed": isinstance(decision, Retry) and decision.parse_failed,
        "answer_seq": _answer_seq(item) if isinstance(decision, Release) else None,
        "result_seq": result and result["seq"],
    }
    return db.execute(QUERIES["settle"], row).rowcount == 1


def _state_after(decision: Done | Retry | Fail | Release) -> State:
    match decision:
        case Done():
            return State.DONE
        case Fail():
            return State.FAILED
        case Retry() | Release():
            return State.PENDING


def _count(ledger: Ledger, outcome: Outcome) -> None:
    decision, experiment_id = outcome.decision, outcome.item.experiment_id
    if isinstance(decision, KeepAnswer):
        return
    reason = decision.reason if isinstance(decision, Fail) else ""
    ledger.move(experiment_id, State.RUNNING, -1)
    ledger.move(experiment_id, _state_after(decision), +1, reason)


def _answer_seq(item: Item) -> int | None:
    return None if item.answer is None else item.answer.attempt_seq


def _result_row(outcome: Outcome, seq: int | None, now: int) -> dict[str, object] | None:
    row: dict[str, object] = {
        "item_id": outcome.item.id,
        "attempt_seq": seq if seq is not None else _answer_seq(outcome.item),
        "finished_at": now,
    }
    match outcome.decision:
        case Done(parsed_json=parsed):
            return row | {"state": "done", "reason": None, "error": None, "parsed": parsed}
        case Fail(reason=reason, error=error):
            return row | {"state": "failed", "reason": reason, "error": error, "parsed": None}
        case _:
            return None


def _attempt_row(seq: int, worker_id: int, item: Item, attempt: Attempt) -> dict[str, object]:
    usage = attempt.usage
    return {
        "seq": seq,
        "item_id": item.id,
        "epoch": item.epoch,
        "worker_id": worker_id,
        "finished_at": attempt.finished_at,
        "latency_ms": attempt.latency_ms,
        "outcome": attempt.outcome,
        "reason": attempt.reason,
        "error": attempt.error,
        "http_status": attempt.http_status,
        "request_id": attempt.request_id,
        "model": attempt.model,
        "finish_reason": attempt.finish_reason,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cost_usd": attempt.cost_usd,
        "response": attempt.response,
        "body": attempt.body,
    }


def _fail_crashed(
    db: sqlite3.Connection,
    crashed: list[tuple[Item, int | None]],
    max_crashes: int,
    now: int,
    ledger: Ledger,
) -> None:
    result_seq = _Sequence(db, "results")
    fail = Fail(Reason.CRASH, f"was in flight each of the {max_crashes} times its worker died")
    for item, answer_seq in crashed:
        outcome = Outcome(item, None, fail)
        result = _result_row(outcome, answer_seq, now)
        assert result is not None
        result["seq"] = next(result_seq)
        _settle(db, outcome, None, result)
        _count(ledger, outcome)
        db.execute(QUERIES["append_result"], result)


def _claim(
    db: sqlite3.Connection, worker_id: int, want: Want, now: int, ledger: Ledger
) -> tuple[list[int], int | None]:
    """Retries that are due first, then fresh items. Also when to look again, if that is known."""
    if want.slots == 0:
        return [], None
    allowed, window_at = _rate_allows(db, want, now)
    next_at: int | None = None
    claimed: list[int] = []
    for experiment_id in _experiments_to_claim(db, want):
        for query in ("claim_waiting", "claim_fresh"):
            slots = allowed - len(claimed)
            if slots > 0:
                row = {
                    "worker_id": worker_id, "experiment_id": experiment_id, "now": now,
                    "want": slots,
                }  # fmt: skip
                ids = [id_ for (id_,) in db.execute(QUERIES[query], row).fetchall()]
                claimed += ids
                ledger.move(experiment_id, State.PENDING, -len(ids))
                ledger.move(experiment_id, State.RUNNING, +len(ids))
        next_at = _earlier(next_at, _next_available_at(db, experiment_id))
    if claimed and want.requests_per_minute is not None:
        db.execute(QUERIES["count_requests"], {"second": now // 1000, "n": len(claimed)})
    # While the limit holds claims back, what comes due before its window opens is worth no look.
    return claimed, window_at if window_at and len(claimed) == allowed else next_at


def _experiments_to_claim(db: sqlite3.Connection, want: Want) -> Iterable[int]:
    if want.experiments is not None:
        return want.experiments
    return [id_ for (id_,) in db.execute(QUERIES["open_experiments"])]


def _rate_allows(db: sqlite3.Connection, want: Want, now: int) -> tuple[int, int | None]:
    """How many requests may go out now, and when the next may if that is fewer than wanted."""
    if want.requests_per_minute is None:
        return want.slots, None
    second = now // 1000
    window = {"before": second - _RATE_WINDOW_S, "after": second + _RATE_WINDOW_S}
    db.execute(QUERIES["forget_old_requests"], window)
    sent, oldest = db.execute(QUERIES["requests_last_minute"]).fetchone()
    allowed = min(want.slots, max(0, want.requests_per_minute - sent))
    if allowed == want.slots:
        return allowed, None
    return allowed, ((oldest or now // 1000) + _RATE_WINDOW_S) * 1000


def _next_available_at(db: sqlite3.Connection, experiment_id: int) -> int | None:
    (at,) = db.execute(QUERIES["next_available_at"], {"experiment_id": experiment_id}).fetchone()
    return None if at is None else int(at)


def _earlier(one: int | None, other: int | None) -> int | None:
    return min((at for at in (one, other) if at is not None), default=None)


def _items(db: sqlite3.Connection, claimed: list[int]) -> list[Item]:
    if not claimed:
        return []
    rows = db.execute(QUERIES["claimed_items"], {"ids": json.dumps(claimed)}).fetchall()
    return [
        Item(
            id=row[0], epoch=row[1], experiment_id=row[2], recipe_id=row[3], custom_id=row[4],
            input_json=row[5], attempts=row[6], parse_failures=row[7],
            answer=None if row[8] is None else StoredAnswer(row[8], row[9]),
        )
        for row in rows
    ]  # fmt: skip


def _count_open(db: sqlite3.Connection, want: Want) -> int:
    """Items that are pending or running, in the experiments wanted."""
    return sum(
        n
        for experiment_id, state, _, n in db.execute(QUERIES["counters"])
        if state in (State.PENDING, State.RUNNING)
        and (want.experiments is None or experiment_id in want.experiments)
    )


class _Sequence:
    """The next ids of an appended table, without asking the database for each."""

    def __init__(self, db: sqlite3.Connection, table: str) -> None:
        (self._last,) = db.execute(QUERIES["last_id"], {"name": table}).fetchone()

    def __next__(self) -> int:
        self._last += 1
        return int(self._last)
