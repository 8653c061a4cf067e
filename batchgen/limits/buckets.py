"""What all workers of a database together may send, now and next. Pure; the store keeps the state.

These are token buckets: requests and tokens flow in at a steady rate, and a claim takes them out. A
bucket holds half a second's worth, so the calls are spread over the minute. Rate and size are such
that no sixty seconds see more than the limit allows, even if calls are late on their way: a second
or, where workers hold some that they took ahead (ahead.py), half a second.

    requests   counted whole
    tokens     taken by an estimate, which is corrected when the call comes back. A claim may take
               more than there is: then the level is below zero, and nothing is claimed until it
               has risen above it. No more than a minute's worth is owed: one answer that says it
               used billions of tokens must not hold everybody up for days
    learned    with `adaptive`, the rate of requests is found (adaptive.py), below the limits
    paused     the server has asked that nobody sends for a while
"""

from collections.abc import Sequence
from math import ceil, floor, inf
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from batchgen.limits.adaptive import NOTHING_LEARNED, LearnedRate

_WINDOW_S = 61.0  # a minute, and a second for what is held ahead, or up by a commit or the network
_BURST_S = 0.5
# Calls are claimed in small batches, so that a limit causes no more than ten commits a second.
_BATCH_S = 0.1
_ADAPTIVE_BURST_S = 0.25
_LONGEST_ASKED_MS = 60_000  # so long are the windows of most limits; then it is asked again
# By less the clocks of machines differ; one that was set back is by more.
_CLOCKS_DIFFER_MS = 2000


# `sought`: the one that is learned, before anything was refused.
LimitName = Literal["rpm", "tpm", "learned", "sought"]


class Limits(Struct, frozen=True):
    """What the user allows: requests and tokens a minute; None: no limit. `adaptive`: and no more
    than the server takes."""

    rpm: int | None = None
    tpm: int | None = None
    adaptive: bool = False

    @property
    def any(self) -> bool:
        return self != NO_LIMITS

    def overruled(self, rpm: int | None, tpm: int | None) -> "Limits":
        """With these limits in place of its own, where they are not None; 0: no limit."""
        limits = self
        if rpm is not None:
            limits = replace(limits, rpm=rpm or None)
        if tpm is not None:
            limits = replace(limits, tpm=tpm or None)
        return limits

    def below(self, announced: int | None) -> "Limits":
        """With `adaptive`: at most as many requests a minute as the server announces."""
        if not self.adaptive or announced is None:
            return self
        own = self.rpm
        return replace(self, rpm=announced if own is None else min(own, announced))


NO_LIMITS = Limits()


class Flow(Struct, frozen=True):
    """How fast a bucket fills, and how much it holds."""

    per_s: float
    burst: float


class SharedRate(Struct, frozen=True):
    """The state that all workers share: what was in the buckets at `updated_at` (epoch ms)."""

    updated_at: int = 0
    requests: float = 0.0
    tokens: float = 0.0
    paused_until: int = 0
    learned: LearnedRate = NOTHING_LEARNED

    def settled(self, returned: "Returned", now: int) -> "SharedRate":
        """After an exchange has returned what its calls did not use, and told of 429s."""
        shared, now = self._at_latest(now)
        paused_until = max(shared.paused_until, now + returned.pause_ms if returned.pause_ms else 0)
        learned = shared.learned.sent(-returned.requests, now)
        if returned.refused_at:
            asked_until = max(paused_until, now + min(returned.asked_ms, _LONGEST_ASKED_MS))
            learned = learned.refused(returned.refused_at, now, asked_until)
            if learned.cut_effective_at != shared.learned.cut_effective_at:  # they were no strays
                paused_until = asked_until
        return replace(
            shared,
            requests=shared.requests + returned.requests,
            tokens=shared.tokens + returned.tokens,
            paused_until=paused_until,
            learned=learned,
        )

    def filled(self, limits: Limits, call_tokens: float, now: int) -> "SharedRate":
        """With what has flowed into the buckets since `updated_at`."""
        shared, now = self._at_latest(now)
        seconds = (now - shared.updated_at) / 1000
        learned = shared.learned.rested(seconds, now)
        requests = requests_flow(limits, learned)
        tokens = tokens_flow(limits, call_tokens)
        return replace(
            shared,
            updated_at=now,
            requests=_fill(shared.requests, requests, seconds),
            tokens=_fill(max(shared.tokens, -_most_owed(limits)), tokens, seconds),
            learned=learned,
        )

    def taken(self, requests: int, tokens: float) -> "SharedRate":
        """After a claim has taken these out of the buckets."""
        return self.drawn(requests, tokens).sent(requests)

    def drawn(self, requests: int, tokens: float) -> "SharedRate":
        """The same for calls that are not sent yet; fewer than none come back."""
        return replace(self, requests=self.requests - requests, tokens=self.tokens - tokens)

    def sent(self, calls: int) -> "SharedRate":
        """So many of those that were drawn are sent."""
        return replace(self, learned=self.learned.sent(calls, self.updated_at))

    def _at_latest(self, now: int) -> tuple["SharedRate", int]:
        """And what the time is then: it stands still for one whose clock is a little behind. When
        the clock was set back, all times move with it, so that a wait stays as long."""
        shift_ms = now - self.updated_at
        if shift_ms >= -_CLOCKS_DIFFER_MS:
            return self, max(now, self.updated_at)
        paused_until, learned = self.paused_until + shift_ms, self.learned.shifted(shift_ms)
        return replace(self, updated_at=now, paused_until=paused_until, learned=learned), now


class Returned(Struct, frozen=True):
    """What an exchange returns to the buckets: requests that were claimed but not sent, and tokens
    that were reserved but not used (negative: more were used). `refused_at`: when the calls were
    sent that got a 429, and `asked_ms`, for how long the server wants none of these again.
    `pause_ms`: for how long it wants no more calls at all."""

    requests: int = 0
    tokens: float = 0.0
    refused_at: Sequence[int] = ()
    asked_ms: int = 0
    pause_ms: int = 0


class Allowance(Struct, frozen=True):
    """How many calls may go out now. If these are fewer than wanted: when it is time to ask again
    (epoch ms), the rate in force in requests a minute, and the limit that makes it."""

    calls: int
    next_at: int | None = None
    limited_to_rpm: float | None = None
    limited_by: LimitName | None = None

    @property
    def is_learned(self) -> bool:
        return self.limited_by in ("learned", "sought")


def allowance(
    shared: SharedRate, limits: Limits, want: int, call_tokens: float, now: int
) -> Allowance:
    """For `want` more calls, which use about `call_tokens` each. `shared` is filled up to `now`."""
    if now < shared.paused_until:
        return Allowance(0, shared.paused_until)
    found = Allowance(want)
    if flow := requests_flow(limits, shared.learned):
        calls = max(0, floor(shared.requests))
        batch = min(want, max(1.0, flow.per_s * _BATCH_S))
        wait_s = (batch - (shared.requests - calls)) / flow.per_s
        if calls < want:
            learned = is_learning(limits, shared.learned)
            rpm = flow.per_s * 60 if learned else limits.rpm
            name: LimitName = "rpm"
            if learned:
                name = "sought" if shared.learned.ceiling_per_s is None else "learned"
            found = Allowance(calls, _after(wait_s, now), rpm, name)
    if flow := tokens_flow(limits, call_tokens):
        calls = max(0, ceil(shared.tokens / call_tokens))
        wait_s = _BATCH_S - (shared.tokens - calls * call_tokens) / flow.per_s
        if calls < min(want, found.calls + 1):
            found = Allowance(calls, _after(wait_s, now), flow.per_s * 60 / call_tokens, "tpm")
    return found


def _after(wait_s: float, now: int) -> int:
    return now + max(1, ceil(wait_s * 1000))


def requests_flow(limits: Limits, learned: LearnedRate) -> Flow | None:
    """None: no limit."""
    flow = None if limits.rpm is None else _spread(limits.rpm)
    if limits.adaptive and (flow is None or learned.per_s < flow.per_s):
        flow = Flow(learned.per_s, max(1.0, learned.per_s * _ADAPTIVE_BURST_S))
    return flow


def tokens_flow(limits: Limits, call_tokens: float) -> Flow | None:
    """None: no limit. A claim may take up to one call's tokens more than there are, so the rate is
    lower by that much."""
    if limits.tpm is None:
        return None
    per_s = max(limits.tpm - call_tokens, limits.tpm / 2) / (_WINDOW_S + _BURST_S)
    return Flow(per_s, per_s * _BURST_S)


def is_learning(limits: Limits, learned: LearnedRate) -> bool:
    """Whether the learned rate is the one in force, not a limit of the user's."""
    if not limits.adaptive:
        return False
    fixed = limits.rpm
    return fixed is None or learned.per_s < _spread(fixed).per_s


def _spread(rpm: int) -> Flow:
    """In any window fewer than `burst + window * per_s` calls go out, and that is one more than
    allowed."""
    per_s = (rpm + 1) / (_WINDOW_S + _BURST_S)
    if per_s * _BURST_S < 1:
        return Flow(rpm / _WINDOW_S, 1.0)
    return Flow(per_s, per_s * _BURST_S)


def _most_owed(limits: Limits) -> float:
    return inf if limits.tpm is None else limits.tpm


def _fill(level: float, flow: Flow | None, seconds: float) -> float:
    return level if flow is None else min(level + seconds * flow.per_s, flow.burst)
