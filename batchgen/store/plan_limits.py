"""What limits and budgets give, and get back, decided before it is written. Pure, as `plan`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

from batchgen.items import Outcome, Reason
from batchgen.limits import Returned
from batchgen.store.plan import Claim, claim_of, used_tokens
from batchgen.store.server_wants import ServerWant
from batchgen.store.values import Budget, Grant, Reservation, Spent


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


def plan_returned(outcomes: Sequence[Outcome], want: ServerWant) -> Returned:
    """What calls of a server that ended, or were never sent, give back of what they took from its
    limits, and what it has said."""
    counts_tokens = want.limits.tpm is not None
    return Returned(
        requests=sum(map(_calls_not_sent, outcomes)),
        tokens=sum(map(_unused_tokens, outcomes)) if counts_tokens else 0,
        refused_at=tuple(_refused_at(outcomes)) if want.limits.adaptive else (),
        asked_ms=want.asked_ms,
        pause_ms=want.pause_ms,
    )


def _refused_at(outcomes: Iterable[Outcome]) -> Iterator[int]:
    """When the calls were sent that got a 429."""
    for outcome in outcomes:
        for attempt in outcome.attempts:
            if attempt.reason is Reason.RATE_LIMIT:
                yield attempt.finished_at - (attempt.latency_ms or 0)


def _calls_not_sent(outcome: Outcome) -> int:
    return int(_was_not_sent(outcome)) + int(outcome.second_call_unsent)


def _was_not_sent(outcome: Outcome) -> bool:
    """Claimed for a call, which never went out."""
    return not outcome.attempts and outcome.item.answer_seq is None


def _unused_tokens(outcome: Outcome) -> int:
    """Of those reserved for the calls; below zero when they used more."""
    reserved = outcome.item.reserved_tokens
    unused = sum(reserved - used_tokens(attempt, reserved) for attempt in outcome.attempts)
    return unused + reserved * _calls_not_sent(outcome)
