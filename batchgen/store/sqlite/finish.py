"""The end of a claim: outcomes become rows of `attempts` and `results`, and the item moves on.

Fenced: where the row has another epoch by now, nothing moves, and the answer is kept all the same.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from batchgen.items import (
    Attempt,
    Decision,
    Done,
    Fail,
    Item,
    KeepAnswer,
    Outcome,
    Reason,
    Release,
    Retry,
    State,
)
from batchgen.store.sqlite.budget import settle
from batchgen.store.sqlite.ledger import Ledger
from batchgen.store.sqlite.sql import QUERIES
from batchgen.store.values import Spent


def finish(
    db: sqlite3.Connection,
    worker_id: int,
    outcomes: Sequence[Outcome],
    now: int,
    ledger: Ledger,
) -> tuple[list[int | None], list[Outcome]]:
    """Write what the slots finished: the sequence number of each one's attempt (None: no call was
    made), and the outcomes that no longer counted."""
    attempt_seq, result_seq = _Sequence(db, "attempts"), _Sequence(db, "results")
    attempts, results, lost = [], [], []
    seqs: list[int | None] = []
    has_budget = db.execute(QUERIES["any_reservation"]).fetchone() is not None
    for outcome in outcomes:
        kept = _attempts_of(db, outcome, has_budget=has_budget)
        numbered = [(next(attempt_seq), *one) for one in kept]
        seq = numbered[0][0] if numbered else None
        result = _result_row(outcome, seq, now)
        if result is not None:
            result["seq"] = next(result_seq)
        if _settle(db, outcome, seq, result):
            _count(ledger, outcome)
            results += [result] if result is not None else []
        else:
            lost.append(outcome)
            if not _is_known_now(db, outcome, ledger):
                numbered, seq = [], None
        for number, attempt, unknown_tokens in numbered:
            attempts.append(_attempt_row(number, worker_id, outcome.item, attempt))
            ledger.spend(outcome.item.experiment_id, attempt, unknown_tokens)
        seqs.append(seq)
    db.executemany(QUERIES["append_attempt"], attempts)
    db.executemany(QUERIES["append_result"], results)
    return seqs, lost


def keep_unknown(
    db: sqlite3.Connection, worker_id: int, items: Sequence[Item], now: int, ledger: Ledger
) -> None:
    """The calls of a worker that died: each may have been sent, and answered."""
    seqs, calls = _Sequence(db, "attempts"), []
    for item in items:
        reserved = settle(db, item.id, item.epoch)
        unknown = _at_its_most(Attempt(finished_at=now), reserved)
        calls.append(_attempt_row(next(seqs), worker_id, item, unknown))
        ledger.spend(item.experiment_id, unknown, reserved.tokens)
    db.executemany(QUERIES["append_attempt"], calls)


def fail_crashed(
    db: sqlite3.Connection,
    crashed: list[tuple[Item, int | None]],
    max_crashes: int,
    now: int,
    ledger: Ledger,
) -> None:
    """Items that were in flight each of `max_crashes` times their worker died; with each the answer
    that waited for its parser, if there was one."""
    result_seq = _Sequence(db, "results")
    fail = Fail(Reason.CRASH, f"was in flight each of the {max_crashes} times its worker died")
    for item, answer_seq in crashed:
        outcome = Outcome(item, (), fail)
        result = _result_row(outcome, answer_seq, now)
        assert result is not None
        result["seq"] = next(result_seq)
        _settle(db, outcome, None, result)
        _count(ledger, outcome)
        db.execute(QUERIES["append_result"], result)


def _attempts_of(
    db: sqlite3.Connection, outcome: Outcome, *, has_budget: bool
) -> list[tuple[Attempt, int]]:
    """The attempts as they are kept, each with the tokens that it may have used without anybody
    seeing it. What was reserved for them is settled."""
    item, attempts = outcome.item, list(outcome.attempts)
    reserved = settle(db, item.id, item.epoch) if has_budget else Spent()
    if isinstance(outcome.decision, Retry) and outcome.decision.error:
        attempts[:1] = _with_parse_error(db, item, outcome.attempt, outcome.decision.error)
    return [
        (_at_its_most(attempt, reserved), reserved.tokens)
        if may_have_cost_all(attempt)
        else (attempt, 0)
        for attempt in attempts
    ]


def _is_known_now(db: sqlite3.Connection, outcome: Outcome, ledger: Ledger) -> bool:
    """Calls that were counted as unknown, as others have the claim by now: what they brought takes
    their place. False when the experiment was deleted meanwhile."""
    item = outcome.item
    claim = {"item_id": item.id, "epoch": item.epoch}
    for _ in outcome.attempts:
        if forgotten := db.execute(QUERIES["forget_unknown_call"], claim).rowcount:
            ledger.forget_unknown(item.experiment_id, forgotten)
    return db.execute(QUERIES["item_input"], {"item_id": item.id}).fetchone() is not None


def _with_parse_error(
    db: sqlite3.Connection, item: Item, attempt: Attempt | None, error: str
) -> list[Attempt]:
    """An answer that its parser could not use says so, and another one is asked for."""
    if attempt is not None:
        return [replace(attempt, error=error)]
    db.execute(QUERIES["note_parse_error"], {"seq": _answer_seq(item), "error": error})
    return []


def may_have_cost_all(attempt: Attempt) -> bool:
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


def _state_after(decision: Decision) -> State:
    match decision:
        case Done():
            return State.DONE
        case Fail():
            return State.FAILED
        case Retry() | Release():
            return State.PENDING
        case KeepAnswer():
            return State.RUNNING


def _count(ledger: Ledger, outcome: Outcome) -> None:
    decision, experiment_id = outcome.decision, outcome.item.experiment_id
    if isinstance(decision, KeepAnswer):
        return  # it is still running
    reason = decision.reason if isinstance(decision, Fail) else ""
    ledger.move(experiment_id, State.RUNNING, -1)
    ledger.move(experiment_id, _state_after(decision), +1, reason)
    if isinstance(decision, Retry):
        ledger.retry(experiment_id)


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


class _Sequence:
    """The next ids of an appended table, without asking the database for each."""

    def __init__(self, db: sqlite3.Connection, table: str) -> None:
        (self._last,) = db.execute(QUERIES["last_id"], {"name": table}).fetchone()

    def __next__(self) -> int:
        self._last += 1
        return int(self._last)
