"""What a transaction of a worker will write, decided before anything is written: pure, and the same
for every engine.

The engine reads what it knows of the claims (`Known`), asks for the plan, and writes its rows
by the set: a handful of statements, however many outcomes there are. Rows are dicts by the
names of the columns.

Fencing is decided here: an outcome counts only while its claim holds, that is while the row has the
epoch of the claim and is running. Of one that came too late nothing moves; its attempts are kept
all the same, in the places of the unknown ones that others have written for them.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from msgspec import Struct, field
from msgspec.structs import replace

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
    Suspect,
)
from batchgen.store.deltas import CounterDeltas
from batchgen.store.returned import may_have_cost_all, used_tokens
from batchgen.store.values import Budget, Grant, Reservation, Spent
from batchgen.text.spans import spans_of

# How an answer ends that the parser, or what it needs of an answer, is to blame for.
_PARSER_REASONS = frozenset({Reason.PARSE, Reason.TRUNCATED, Reason.CRASH})

Row = dict[str, object]
Claim = tuple[int, int]
"""The number of the item, and the epoch that the claim has."""


def claim_of(item: Item) -> Claim:
    return item.id, item.epoch


class Claimed(Struct, frozen=True):
    """An item of a claim. `answer_seq` is its answer that waits for its parser, `parser_id`."""

    item_id: int
    experiment_id: int
    epoch: int
    answer_seq: int | None
    parser_id: int | None

    @classmethod
    def of(cls, item: Item) -> "Claimed":
        return cls(item.id, item.experiment_id, item.epoch, item.answer_seq, item.parser_id)


class Reserved(Struct, frozen=True):
    """What a budget holds back for a claim: the most that it can use, and the tokens that were
    asked for, of which that may be several times as many."""

    most: Spent
    asked: int


_NOTHING_RESERVED = Reserved(Spent(), 0)
# More is a wrong count, which must not end all reservations for good.
_MOST_OVERUSE = 100.0


class Known(Struct, frozen=True):
    """What the engine knows before it writes. `late` has the other claims, those that do not hold,
    as far as their items are still there: how many attempts of unknown outcome, which no budget has
    booked, are kept for each. `reserved` is what budgets hold back for the calls."""

    held: AbstractSet[Claim] = frozenset()
    late: Mapping[Claim, int] = field(default_factory=dict)
    reserved: Mapping[Claim, Reserved] = field(default_factory=dict)
    last_attempt_seq: int = 0
    last_result_seq: int = 0


class Plan(Struct):
    """Rows to write, in the order of the lists, and what that changes in the counters.

    `attempt_seqs` and `lost` belong to the outcomes, as in `Exchange`.
    """

    attempt_seq: int  # the last one given out, as the next
    result_seq: int
    replaced: list[Row] = field(default_factory=list)  # one unknown attempt of a claim each
    attempts: list[Row] = field(default_factory=list)
    parse_errors: list[Row] = field(default_factory=list)  # of answers that were kept before
    results: list[Row] = field(default_factory=list)
    settled: list[Row] = field(default_factory=list)  # claims that end
    kept_answers: list[Row] = field(default_factory=list)
    taken_back: list[Row] = field(default_factory=list)
    deltas: CounterDeltas = field(default_factory=CounterDeltas)
    attempt_seqs: list[int | None] = field(default_factory=list)
    lost: list[Outcome] = field(default_factory=list)

    def keep_attempt(
        self, worker_id: int, item: Claimed, attempt: Attempt, reserved: Reserved, server: str = ""
    ) -> int:
        """Its sequence number; the item was claimed for `server`. What nobody saw the end of is
        booked with what was reserved; one that used more than was asked for tells what is to be
        reserved from now on."""
        unknown_tokens = 0
        if may_have_cost_all(attempt) and reserved.most != Spent():
            attempt = replace(attempt, cost_usd=reserved.most.cost_usd)
            unknown_tokens = reserved.most.tokens
        if reserved.asked:
            times = used_tokens(attempt, 0) / reserved.asked
            self.deltas.overuse(item.experiment_id, min(times, _MOST_OVERUSE))
        self.attempt_seq += 1
        self.attempts.append(_attempt_row(self.attempt_seq, worker_id, item, attempt, server))
        self.deltas.spend(item.experiment_id, attempt, unknown_tokens)
        return self.attempt_seq

    def replace_unknown(self, item: Claimed, calls: int) -> int:
        """So many unknown attempts of a claim give their places to what came after all."""
        self.replaced += [{"item_id": item.item_id, "epoch": item.epoch}] * calls
        self.deltas.forget_unknown(item.experiment_id, calls)
        return calls

    def move(self, item: Claimed, outcome: Outcome, attempt_seq: int | None, now: int) -> None:
        """What was decided of a claim that holds. `attempt_seq`: the call that counts, if any."""
        if isinstance(outcome.decision, KeepAnswer):
            claim = {"item_id": item.item_id, "epoch": item.epoch}
            self.kept_answers.append(claim | {"answer_seq": attempt_seq})
        elif outcome.attempt is not None and outcome.attempt.response is None:
            self.end(replace(item, parser_id=None), outcome.decision, attempt_seq, now)
        else:
            answer = outcome.attempt.response if outcome.attempt else outcome.item.answer_text
            self.end(item, outcome.decision, attempt_seq, now, answer)

    def end(
        self, item: Claimed, decision: Decision, attempt_seq: int | None, now: int,
        answer: str | None = None,
    ) -> None:  # fmt: skip
        """The claim ends as decided. The item has no parser where there was no `answer` to read."""
        state, retry = _state_after(decision), decision if isinstance(decision, Retry) else None
        result_seq = None
        if isinstance(decision, Done | Fail):
            result_seq = self._append_result(item, decision, attempt_seq, now, answer)
        self.settled.append({
            "item_id": item.item_id, "epoch": item.epoch, "state": state,
            "available_at": retry and retry.available_at,
            "charged": retry.charged if retry else result_seq is not None,
            "parse_failed": retry is not None and retry.parse_failed,
            "answer_seq": item.answer_seq if isinstance(decision, Release) else None,
            "result_seq": result_seq,
        })  # fmt: skip
        reason = decision.reason if isinstance(decision, Fail) else ""
        self.deltas.move(item.experiment_id, State.RUNNING, -1)
        self.deltas.move(item.experiment_id, state, +1, reason)
        if isinstance(decision, Retry):
            self.deltas.retry(item.experiment_id)
            if decision.error and attempt_seq is None:
                self.parse_errors.append({"seq": item.answer_seq, "error": decision.error})

    def _append_result(
        self, item: Claimed, decision: Done | Fail, attempt_seq: int | None, now: int,
        answer: str | None,
    ) -> int:  # fmt: skip
        self.result_seq += 1
        seq = attempt_seq if attempt_seq is not None else item.answer_seq
        parser_id = None if seq is None else parser_of(decision, item.parser_id)
        self.results.append(
            result_row(
                self.result_seq,
                item.item_id,
                seq,
                decision,
                now,
                parser_id=parser_id,
                answer=answer,
            )
        )
        self.deltas.parse(item.experiment_id, parser_id, +1)
        return self.result_seq


def plan_finish(outcomes: Sequence[Outcome], known: Known, worker_id: int, now: int) -> Plan:
    """What the slots finished."""
    plan = Plan(known.last_attempt_seq, known.last_result_seq)
    held, late = set(known.held), dict(known.late)
    for outcome in outcomes:
        item, claim = Claimed.of(outcome.item), claim_of(outcome.item)
        attempts = _with_parse_error(outcome)
        if claim not in held:
            plan.lost.append(outcome)
            unknown = late.get(claim, 0 if claim in known.held else None)
            if unknown is None:  # its experiment was deleted meanwhile
                plan.attempt_seqs.append(None)
                continue
            late[claim] = unknown - plan.replace_unknown(item, min(unknown, len(attempts)))
        reserved = known.reserved.get(claim, _NOTHING_RESERVED)
        server = outcome.item.server
        seqs = [plan.keep_attempt(worker_id, item, one, reserved, server) for one in attempts]
        plan.attempt_seqs.append(seqs[0] if seqs else None)
        if claim in held:
            plan.move(item, outcome, plan.attempt_seqs[-1], now)
            if not isinstance(outcome.decision, KeepAnswer):
                held.discard(claim)
    return plan


class ClaimRow(Claimed, frozen=True):
    """A claim of a worker that is gone."""

    crashes: int
    second_call: int


def plan_removal(
    claims: Sequence[ClaimRow],
    known: Known,
    worker_id: int,
    *,
    crashed: bool,
    max_crashes: int,
    now: int,
) -> Plan:
    """The claims of a worker go back to the others.

    After a crash each of its calls may have been sent, and answered: an attempt with unknown
    outcome is kept for each. Who leaves in order has handed in what was sent before. Answers that
    wait to be parsed stay with their items. An item that saw `max_crashes` workers die fails; but
    while a parser was at work, only the items it had are suspected of it.
    """
    plan = Plan(known.last_attempt_seq, known.last_result_seq)
    parsing = any(claim.answer_seq is not None for claim in claims)
    fail = Fail(Reason.CRASH, f"was in flight each of the {max_crashes} times its worker died")
    for claim in claims:
        reserved = known.reserved.get((claim.item_id, claim.epoch), _NOTHING_RESERVED)
        calls = int(claim.answer_seq is None) + claim.second_call if crashed else 0
        for _ in range(calls):
            plan.keep_attempt(worker_id, claim, Attempt(finished_at=now), reserved)
        suspect = crashed and (claim.answer_seq is not None or not parsing)
        if suspect and claim.crashes + 1 >= max_crashes:
            plan.end(claim, fail, None, now)
        else:
            plan.taken_back.append({"item_id": claim.item_id, "crashed": int(suspect)})
            plan.deltas.move(claim.experiment_id, State.RUNNING, -1)
            plan.deltas.move(claim.experiment_id, State.PENDING, +1)
    return plan


def plan_grants(
    wanted: Sequence[Reservation],
    budget: Budget,
    spent: Spent,
    reserved: Spent,
    held: AbstractSet[Claim],
    overuse: Mapping[int, float],
) -> tuple[list[Grant], list[tuple[Reservation, Spent]]]:
    """What may be sent, an answer each, and the reservations that this makes, with what is held
    back for each: several times as much, in an experiment whose calls have used so much more."""
    grants: list[Grant] = []
    made = []
    booked = spent + reserved
    for one in wanted:
        most = one.most(overuse.get(one.item.experiment_id, 1.0))
        if budget.is_exceeded_by(spent + most):
            grants.append(Grant.NEVER)
        elif budget.is_exceeded_by(booked + most) or claim_of(one.item) not in held:
            grants.append(Grant.WAIT)
        else:
            booked += most
            made.append((one, most))
            grants.append(Grant.YES)
    return grants, made


def parser_of(end: Done | Fail, parser_id: int | None) -> int | None:
    """The parser by which an item with an answer has ended so; None: another could change nothing,
    as it was not read."""
    return parser_id if isinstance(end, Done) or end.reason in _PARSER_REASONS else None


def result_row(
    seq: int, item_id: int, attempt_seq: int | None, end: Done | Fail, finished_at: int,
    *, parser_id: int | None, reparsed: bool = False, answer: str | None = None,
) -> Row:  # fmt: skip
    """`answer` is the text that was parsed, if known: what stands in it is not stored twice."""
    done, parsed = isinstance(end, Done), end.parsed_json if isinstance(end, Done) else None
    spans = None if answer is None or parsed is None else spans_of(answer, parsed)
    return {
        "seq": seq,
        "item_id": item_id,
        "attempt_seq": attempt_seq,
        "state": State.DONE if done else State.FAILED,
        "reason": None if isinstance(end, Done) else end.reason,
        "error": None if isinstance(end, Done) else end.error,
        "parsed": parsed if spans is None else None,
        "spans": spans,
        "parser_id": parser_id,
        "reparsed": reparsed,
        "finished_at": finished_at,
    }


def _with_parse_error(outcome: Outcome) -> tuple[Attempt, ...]:
    """The attempts as they are kept: an answer that its parser could not use says so, where another
    one is asked for."""
    attempts, decision = outcome.attempts, outcome.decision
    if not attempts or not isinstance(decision, Retry) or not decision.error:
        return attempts
    return (replace(attempts[0], error=decision.error), *attempts[1:])


def _state_after(decision: Decision) -> State:
    match decision:
        case Done():
            return State.DONE
        case Fail():
            return State.FAILED
        case Retry() | Suspect() | Release():
            return State.PENDING
        case KeepAnswer():
            return State.RUNNING


def _attempt_row(seq: int, worker_id: int, item: Claimed, attempt: Attempt, server: str) -> Row:
    usage = attempt.usage
    return {
        "seq": seq,
        "item_id": item.item_id,
        "epoch": item.epoch,
        "worker_id": worker_id,
        "server": attempt.server or server,
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
        "vector": attempt.vector,
        "body": attempt.body,
    }
