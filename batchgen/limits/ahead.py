"""Calls that a worker takes from the limits of a server ahead of sending them, so that it need not
meet the others each time. Pure; the store keeps who has taken how many.

A worker may send what it has taken for a fifth of a second (`AHEAD_MS`); for up to a second, where
the limit is far from all that is sent. What is left then is lost, unless it came back before; so is
what a worker had that died. Besides what is wanted at once a worker takes as many as it is thought
to send within that time, but no more than half of what is left for all.

No more calls are out at a time, with all workers, than the limit lets through in `_MOST_OUT_S`, or
one. So the calls of any time are those of the buckets' rule, and as many more, for however long
they are out: for them, and for what is late on its way, the rule counts a second on top of each
minute (buckets.py).
"""

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import astuple, replace

from batchgen.limits.buckets import (
    Allowance,
    Limits,
    Returned,
    SharedRate,
    allowance,
    requests_flow,
    tokens_flow,
)

AHEAD_MS = 200
_MOST_OUT_S = 0.4  # twice as long: within AHEAD_MS the limit itself lets half of it through
LONGEST_MS = 1000
_FAR = 0.25  # of what may be out: for longer than AHEAD_MS calls are taken while no more is
_WAY, _WAITING = 0.01, 8  # the share of a wait for the next call; and so many who are waited for
_FARTHEST_MS = 2 * LONGEST_MS  # what is further ahead is of a clock that was set back since


class Out(NamedTuple):
    """Calls that a worker has taken, and may send until then; none: until then it might have."""

    worker_id: int
    calls: int
    until: int


class AllowedAhead(Allowance, frozen=True):
    """Calls that may go out within `for_ms`."""

    for_ms: int = AHEAD_MS


class AskedAhead(Struct, frozen=True):
    """What a worker asks of a server's limits: `calls` to send at once, and about `soon` more in
    AHEAD_MS. And what it tells: that it has `sent` calls since it last
    asked, and brings back `unused` ones with their tokens (below zero: it has sent more). If it
    `was_held_back`, all that it was allowed is sent, and the rate that is learned made that few."""

    calls: int = 0
    soon: int = 0
    sent: int = 0
    unused: int = 0
    unused_tokens: float = 0.0
    returned: Returned = Returned()
    was_held_back: bool = False

    @property
    def tells(self) -> bool:
        """Whether there is anything to be noted, whatever is allowed."""
        return replace(self, calls=0, soon=0) != _NOTHING


_NOTHING = AskedAhead()


def take_ahead(
    shared: SharedRate, limits: Limits, asked: AskedAhead, call_tokens: float, worker_id: int,
    out: Sequence[Out], now: int,
) -> tuple[SharedRate, AllowedAhead, Out]:  # fmt: skip
    """The limits after this worker has asked, and what it is allowed, those `soon` included, also
    as what it has out from now on. `out` is what it and others had taken before."""
    seen_at, was = shared.updated_at, next((one for one in out if one.worker_id == worker_id), None)
    if was is None or not _is_out(was, now):
        asked = _without_lost(asked)
    others = [one for one in out if one is not was]
    shared = shared.drawn(-asked.unused, -asked.unused_tokens)
    shared = shared.sent(asked.sent).settled(asked.returned, now)
    if not asked.calls:
        return shared, AllowedAhead(0), Out(worker_id, 0, was.until if was else 0)
    shared = shared.filled(limits, call_tokens, now)
    allowed = _allowed(shared, limits, asked, call_tokens, _calls_out(others, now))
    until = now + allowed.for_ms if allowed.calls else was.until if was else 0
    if others:
        allowed = _giving_way(allowed, now - (until - AHEAD_MS))
    shared = shared.drawn(allowed.calls, tokens_of(allowed.calls, limits, call_tokens))
    if allowed.is_learned and seen_at and (asked.was_held_back or not allowed.calls):
        learned = shared.learned.limited_for((shared.updated_at - seen_at) / 1000)
        shared = replace(shared, learned=learned)
    return shared, allowed, Out(worker_id, allowed.calls, until)


def _is_out(one: Out, now: int) -> bool:
    return now < one.until < now + _FARTHEST_MS


def _calls_out(out: Sequence[Out], now: int) -> int:
    return sum(one.calls for one in out if _is_out(one, now))


def _giving_way(allowed: AllowedAhead, since_ms: int) -> AllowedAhead:
    """Where all wait for one call at a time, who had one a while ago asks a little later than those
    who have waited for longer; else one and the same could be the first each time."""
    if allowed.next_at is None or not allowed.limited_to_rpm:
        return allowed
    every_ms = 60_000 / allowed.limited_to_rpm
    waits = 1 - since_ms / (every_ms * _WAITING)
    return replace(allowed, next_at=allowed.next_at + round(every_ms * _WAY * max(0.0, waits)))


def _without_lost(asked: AskedAhead) -> AskedAhead:
    """What it brings back comes too late."""
    unused, tokens = min(asked.unused, 0), min(asked.unused_tokens, 0.0)
    return replace(asked, unused=unused, unused_tokens=tokens)


def tokens_of(calls: int, limits: Limits, call_tokens: float) -> float:
    """What is taken for so many calls; nothing where tokens are not limited."""
    return 0.0 if limits.tpm is None else calls * call_tokens


def _allowed(
    shared: SharedRate, limits: Limits, asked: AskedAhead, call_tokens: float, others: int
) -> AllowedAhead:
    """As if there were no more than may be out, besides those that `others` have."""
    most_out = _most_out(shared, limits, call_tokens)
    room = most_out - others
    shared = replace(
        shared,
        requests=min(shared.requests, room),
        tokens=min(shared.tokens, room * call_tokens),
    )
    now, calls = shared.updated_at, asked.calls
    allowed = allowance(shared, limits, calls, call_tokens, now)
    if not asked.soon or allowed.calls < calls:
        return AllowedAhead(*astuple(allowed))
    for_ms = AHEAD_MS
    if not limits.adaptive:  # a rate that is learned is never far, and refusals are told soon
        far_ms = AHEAD_MS * (_FAR * most_out - others - calls) / asked.soon
        for_ms = round(min(max(far_ms, AHEAD_MS), LONGEST_MS))
    soon = asked.soon * for_ms // AHEAD_MS
    most = allowance(shared, limits, calls + 2 * soon, call_tokens, now).calls
    return AllowedAhead(calls + max(0, most - calls) // 2, for_ms=for_ms)


def _most_out(shared: SharedRate, limits: Limits, call_tokens: float) -> float:
    """Calls, with all workers."""
    requests, tokens = requests_flow(limits, shared.learned), tokens_flow(limits, call_tokens)
    per_s = min(
        inf if requests is None else requests.per_s,
        inf if tokens is None else tokens.per_s / call_tokens,
    )
    return max(1.0, per_s * _MOST_OUT_S)
