"""What all workers of a database together may send, now and next. Pure; the store keeps the state.

Token buckets: requests and tokens flow in at a steady rate, and a claim takes them out. A bucket
holds half a second's worth, so calls are spread over the minute. Rate and size are such that no
sixty seconds see more than the limit allows, even if a call is a second late on its way.

    requests   whole ones; taken when there are any
    tokens     by estimate, and settled by what came back. A claim may take more than there is:
               the level is below zero then, and nothing is claimed until it is not
    learned    with `adaptive`, the rate of requests is found (adaptive.py), below the limits
    paused     the server has asked that nobody sends for a while
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor

from batchgen.limits.adaptive import NOTHING_LEARNED, Learned

_WINDOW_S = 61.0  # a minute, and a second for what a commit or the network holds up
_BURST_S = 0.5
# Claims in small batches: no more than so many commits a second only to let calls out.
_BATCH_S = 0.1
_ADAPTIVE_BURST_S = 0.25


@dataclass(frozen=True, slots=True)
class Limits:
    """What the user allows; None: no limit. `adaptive`: and no more than the server takes."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    adaptive: bool = False

    @property
    def any(self) -> bool:
        return self != NO_LIMITS

    def overruled(self, requests_per_minute: int | None, tokens_per_minute: int | None) -> "Limits":
        """By others, where they are not None; 0: no limit."""
        limits = self
        if requests_per_minute is not None:
            limits = replace(limits, requests_per_minute=requests_per_minute or None)
        if tokens_per_minute is not None:
            limits = replace(limits, tokens_per_minute=tokens_per_minute or None)
        return limits

    def below(self, announced: int | None) -> "Limits":
        """With `adaptive`: no more requests a minute than the server says that it takes."""
        if not self.adaptive or announced is None:
            return self
        own = self.requests_per_minute
        return replace(self, requests_per_minute=announced if own is None else min(own, announced))


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Flow:
    """What runs into a bucket, and how much of it stays."""

    per_s: float
    burst: float


@dataclass(frozen=True, slots=True)
class Sending:
    """The state that all workers share: what was in the buckets at `at`."""

    at: int = 0
    requests: float = 0.0
    tokens: float = 0.0
    paused_until: int = 0
    learned: Learned = NOTHING_LEARNED

    def settled(self, back: "Back", now: int) -> "Sending":
        """After what came back: unsent calls, tokens not used, 429s."""
        sending = self._by_the_clock(now)
        paused_until = max(sending.paused_until, now + back.pause_ms if back.pause_ms else 0)
        learned = sending.learned.sent(-back.requests)
        if back.refused_at:
            learned = learned.refused(back.refused_at, now, paused_until)
        return replace(
            sending,
            requests=sending.requests + back.requests,
            tokens=sending.tokens + back.tokens,
            paused_until=paused_until,
            learned=learned,
        )

    def filled(self, limits: Limits, call_tokens: float, now: int) -> "Sending":
        """With what has run in since."""
        sending = self._by_the_clock(now)
        seconds = (now - sending.at) / 1000
        requests = requests_flow(limits, sending.learned)
        tokens = tokens_flow(limits, call_tokens)
        return replace(
            sending,
            at=now,
            requests=_fill(sending.requests, requests, seconds),
            tokens=_fill(sending.tokens, tokens, seconds),
        )

    def taken(self, requests: int, tokens: float) -> "Sending":
        return replace(
            self,
            requests=self.requests - requests,
            tokens=self.tokens - tokens,
            learned=self.learned.sent(requests),
        )

    def _by_the_clock(self, now: int) -> "Sending":
        """When the clock was set back, what lies ahead of it is as far ahead as it was."""
        back = now - self.at
        if back >= 0:
            return self
        paused_until, learned = self.paused_until + back, self.learned.shifted(back)
        return replace(self, at=now, paused_until=paused_until, learned=learned)


@dataclass(frozen=True, slots=True)
class Back:
    """What an exchange brings back: requests that were claimed but not sent, tokens that were
    reserved but not used (or used beyond that: negative), when the calls were sent that got a 429,
    and for how long the server wants no more."""

    requests: int = 0
    tokens: float = 0.0
    refused_at: Sequence[int] = ()
    pause_ms: int = 0


@dataclass(frozen=True, slots=True)
class Room:
    """How many calls may go out now. If that is fewer than wanted: when it is time to ask again,
    the rate that holds calls back, and whether it is the learned one."""

    calls: int
    next_at: int | None = None
    per_minute: float | None = None
    is_learned: bool = False


def room(sending: Sending, limits: Limits, want: int, call_tokens: float, now: int) -> Room:
    """For `want` more calls, which use `call_tokens` each, more or less. `sending` is filled."""
    if now < sending.paused_until:
        return Room(0, sending.paused_until)
    found = Room(want)
    if flow := requests_flow(limits, sending.learned):
        calls = max(0, floor(sending.requests))
        batch = min(want, max(1.0, flow.per_s * _BATCH_S))
        wait_s = (batch - (sending.requests - calls)) / flow.per_s
        if calls < want:
            learned = is_learning(limits, sending.learned)
            per_minute = flow.per_s * 60 if learned else limits.requests_per_minute
            found = Room(calls, _after(wait_s, now), per_minute, learned)
    if flow := tokens_flow(limits, call_tokens):
        calls = max(0, ceil(sending.tokens / call_tokens))
        wait_s = _BATCH_S - (sending.tokens - calls * call_tokens) / flow.per_s
        if calls < min(want, found.calls + 1):
            found = Room(calls, _after(wait_s, now), flow.per_s * 60 / call_tokens)
    return found


def held_line(per_minute: float) -> str:
    """What a limit comes to, in words."""
    if per_minute < 1:
        return f"limited to one call in {1 / per_minute:,.1f} min"
    return f"limited to about {per_minute:,.0f} requests/min"


def _after(wait_s: float, now: int) -> int:
    return now + max(1, ceil(wait_s * 1000))


def requests_flow(limits: Limits, learned: Learned) -> Flow | None:
    """None: no limit."""
    flow = None if limits.requests_per_minute is None else _spread(limits.requests_per_minute)
    if limits.adaptive and (flow is None or learned.per_s < flow.per_s):
        flow = Flow(learned.per_s, max(1.0, learned.per_s * _ADAPTIVE_BURST_S))
    return flow


def tokens_flow(limits: Limits, call_tokens: float) -> Flow | None:
    """A claim may take up to one call's tokens more than there are, so these are kept back."""
    if limits.tokens_per_minute is None:
        return None
    per_minute = limits.tokens_per_minute
    per_s = max(per_minute - call_tokens, per_minute / 2) / (_WINDOW_S + _BURST_S)
    return Flow(per_s, per_s * _BURST_S)


def is_learning(limits: Limits, learned: Learned) -> bool:
    """Whether the learned rate is the one that counts."""
    if not limits.adaptive:
        return False
    fixed = limits.requests_per_minute
    return fixed is None or learned.per_s < _spread(fixed).per_s


def _spread(per_minute: int) -> Flow:
    """In any window fewer than `burst + window * per_s` go out, which is one more than allowed."""
    per_s = (per_minute + 1) / (_WINDOW_S + _BURST_S)
    if per_s * _BURST_S < 1:
        return Flow(per_minute / _WINDOW_S, 1.0)
    return Flow(per_s, per_s * _BURST_S)


def _fill(level: float, flow: Flow | None, seconds: float) -> float:
    return level if flow is None else min(level + seconds * flow.per_s, flow.burst)
