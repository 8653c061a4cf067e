"""Decides what follows for an item from its reply: parse it, try again (and when), or fail. Pure.

Whatever happened becomes one frozen value here, and the store writes it later. So each rule of
the table "Why items fail" of docs/failures.md can be tested without a server or a database.
"""

from enum import Enum
from itertools import islice
from math import ceil
from random import Random

import backoff
from msgspec import Struct

from batchgen.endpoints import is_cut_off
from batchgen.items import (
    Answer,
    Decision,
    Fail,
    Failure,
    Item,
    KeepAnswer,
    Reason,
    Release,
    Retry,
    Trouble,
)

_LONGEST_WAIT_S = 60.0
_REFUSALS_AS_ASKED = 4  # in a row, after which an item waits no longer than it was told to
# A stray mostly does not come again, so its first wait is short; later ones soon are not.
_STRAY_SHARE, _STRAY_BASE = 0.1, 3
_COSTS_NO_TRY = (Trouble.STALE_CONNECTION, Trouble.PARAMETER_LEFT_OUT)
_RETRYABLE = frozenset({Reason.SERVER, Reason.CONNECTION, Reason.TIMEOUT, Reason.BAD_RESPONSE})
# The server may have finished, and charge for, what we did not see the end of.
MAY_BE_CHARGED = frozenset({Reason.TIMEOUT, Reason.CONNECTION, Reason.BAD_RESPONSE})


class Blame(Enum):
    """Whose fault it is that a call failed. LIMIT: the server was sent more than it takes. STRAY: a
    few calls are refused, whatever is sent. UNDECIDED: it is too early to say; if it was the item's
    after all, the try is charged later."""

    ITEM = "item"
    SERVER = "server"
    LIMIT = "limit"
    STRAY = "stray"
    UNDECIDED = "undecided"


class RetryPolicy(Struct, frozen=True):
    """How often an item is tried: `max_attempts` tries, of which `parse_attempts` may bring answers
    that its parser cannot use. `first_wait_s` is the wait before the first retry, in seconds; each
    later one is twice as long."""

    max_attempts: int = 5
    parse_attempts: int = 1
    first_wait_s: float = 1.0


def decide_on_answer(
    answer: Answer, item: Item, policy: RetryPolicy, *, needs_whole: bool
) -> Decision:
    """What becomes of the item. `KeepAnswer` means: the answer is good, now parse it.
    `needs_whole`: the item's parser cannot use one that was cut off."""
    if answer.slip is not None:
        return decide_parse_failure(item, answer.slip, policy)
    return fail_if_cut_off(answer, needs_whole=needs_whole) or KeepAnswer()


def decide_on_failure(
    verdict: Failure,
    item: Item,
    policy: RetryPolicy,
    *,
    blame: Blame,
    refusals: int = 0,
    now: int,
    rng: Random,
) -> Decision:
    """What becomes of the item. It has been refused `refusals` times in a row, this one included.
    `now` in epoch ms."""
    if verdict.halt is not None:
        return Release()
    if blame in (Blame.LIMIT, Blame.STRAY):
        own_wait_s = _stray_wait_s if blame is Blame.STRAY else wait_s
        refused_wait_s = own_wait_s(refusals - 1, policy.first_wait_s)
        asked_s = verdict.retry_after_s
        if asked_s and refusals > _REFUSALS_AS_ASKED:  # it does not mean what it asks for
            asked_s = max(asked_s, wait_s(refusals - 1 - _REFUSALS_AS_ASKED, policy.first_wait_s))
        return Retry(_at(now, asked_s, refused_wait_s, rng), charged=False)
    if blame is Blame.SERVER or verdict.trouble in _COSTS_NO_TRY:
        return Retry(None, charged=False)
    again_at = _at(now, verdict.retry_after_s, wait_s(item.tries, policy.first_wait_s), rng)
    if blame is Blame.UNDECIDED:
        return Retry(again_at, charged=False)
    # A gateway may have several keys, of which one has come to its end.
    is_retryable = verdict.reason in _RETRYABLE or verdict.trouble is Trouble.ACCOUNT
    if is_retryable and item.tries + 1 < policy.max_attempts:
        return Retry(again_at, charged=True)
    return Fail(verdict.reason, verdict.message)


def fail_if_cut_off(answer: Answer, *, needs_whole: bool) -> Fail | None:
    """The failure of an answer that ended at max_tokens; None when it can be parsed."""
    if not is_cut_off(answer.finish_reason):
        return None
    if needs_whole:
        error = "the answer was cut off at max_tokens, and the parser needs all of it"
    elif not answer.text:  # a reasoning model that used all its tokens to think
        error = "the answer was cut off at max_tokens before its first word"
    else:
        return None
    return Fail(Reason.TRUNCATED, error)


def decide_parse_failure(item: Item, error: str, policy: RetryPolicy) -> Decision:
    """The answer is there but its parser failed: ask again if the policy allows, at once."""
    tries_left = (
        item.parse_failures + 1 < policy.parse_attempts and item.tries + 1 < policy.max_attempts
    )
    if tries_left:
        return Retry(None, charged=True, parse_failed=True, error=error)
    return Fail(Reason.PARSE, error)


def wait_s(failures: int, first_s: float, longest_s: float = _LONGEST_WAIT_S) -> float:
    """The wait after `failures` earlier failures in a row: `first_s` seconds, twice, four times as
    many and so on, at most `longest_s`."""
    return _grown(2, failures, first_s, longest_s)


def _stray_wait_s(failures: int, first_s: float) -> float:
    return _grown(_STRAY_BASE, failures, first_s * _STRAY_SHARE, _LONGEST_WAIT_S)


def _grown(base: float, failures: int, first_s: float, longest_s: float) -> float:
    waits = backoff.expo(base=base, factor=first_s, max_value=longest_s)
    # The generator's first value is not a wait; past 10 steps nothing changes.
    return float(next(islice(waits, 1 + min(failures, 10), None)))


def _at(now: int, retry_after_s: float | None, otherwise_s: float, rng: Random) -> int:
    """Never before the wait is over: jitter is added, as full jitter would undercut Retry-After. A
    server that asks to wait for nothing has not asked."""
    seconds = retry_after_s or otherwise_s
    return now + ceil((seconds + rng.uniform(0, min(0.5, seconds / 4))) * 1000)
