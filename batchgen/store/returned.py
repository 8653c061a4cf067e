"""What calls that ended have used, and what they give back of what was taken for them from the
limits of their server: pure, and the same for every engine."""

from collections.abc import Iterable, Iterator, Sequence

from batchgen.items import Attempt, Outcome, Reason
from batchgen.limits import Returned
from batchgen.store.server_wants import ServerWant
from batchgen.store.values import Spent


def returned_of(outcomes: Sequence[Outcome], want: ServerWant) -> Returned:
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


def used_tokens(attempt: Attempt, reserved: int) -> int:
    """Of a call; `reserved` where nobody saw its end."""
    if may_have_cost_all(attempt):
        return reserved
    return (attempt.usage.prompt_tokens or 0) + (attempt.usage.completion_tokens or 0)


def times_used(attempt: Attempt, asked: int, most: Spent) -> float:
    """How many times as much as was asked for a call has used or cost, as a server may write more,
    or serve it at another price; `asked` are tokens, and `most` is what was held back for it."""
    asked_usd = most.cost_usd * asked / (most.tokens or 1)
    as_dear = (attempt.cost_usd or 0.0) / asked_usd if asked_usd else 0.0
    return max(used_tokens(attempt, 0) / asked, as_dear)


def may_have_cost_all(attempt: Attempt) -> bool:
    """Nobody knows whether the server finished, and charged for, what we did not see the end of."""
    if attempt.usage.prompt_tokens is not None and attempt.usage.completion_tokens is not None:
        return False
    return attempt.outcome != "failed" or attempt.may_be_charged


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
