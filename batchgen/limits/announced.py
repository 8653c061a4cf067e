"""What a server says of its own limits in its replies, and what follows: a copy of its buckets.

OpenAI and others say with every reply how many requests and tokens were left when the call came in.
From then on our own calls take from that, and it fills up again; when nothing is left, no call goes
out before the bucket has filled. So the 429 that would have come does not. Of several workers each
takes its share of what is left: what one of them does not use, the next reply offers to all. What a
server announced counts until that limit resets, so that a server that announces its limits in some
replies only does not hold anybody up. Pure: time is passed in.
"""

import math

from msgspec import Struct, field

_MINUTE_S = 60.0
_ABOUT_A_MINUTE_S = (30.0, 90.0)
_BATCH_S = 0.1


class AnnouncedLimit(Struct, frozen=True):
    """One limit: `remaining` of `limit` are left, and all of it is there again in `reset_s`."""

    limit: float
    remaining: float
    reset_s: float

    @property
    def per_s(self) -> float:
        """How fast it fills up. Some servers enforce a minute's limit over a shorter window, and
        announce the end of that window."""
        used = self.limit - self.remaining
        a_minute = self.limit / _MINUTE_S
        return min(used / self.reset_s, a_minute) if used > 0 and self.reset_s > 0 else a_minute

    @property
    def is_per_minute(self) -> bool:
        """Whether this is a bucket that holds a minute's worth; that of a free account holds a
        day's."""
        used = self.limit - self.remaining
        least, most = _ABOUT_A_MINUTE_S
        return used > 0 and least <= self.reset_s * self.limit / used <= most


class _Bucket(Struct):
    """Our copy of one of the server's buckets, as of the newest `call` whose reply told of it.
    `each` is what must be in it for one more call."""

    announced: AnnouncedLimit | None = None
    call: int = 0
    at: int = 0

    def observe(self, announced: AnnouncedLimit, call: int, at: int) -> None:
        if call > self.call:
            self.announced, self.call, self.at = announced, call, at

    def calls_left(self, calls: int, each: float, now: int) -> float:
        """How many calls may still go out; infinite where nothing is known."""
        if self.announced is None or now >= self.full_at:
            return math.inf
        level = self.announced.remaining + (now - self.at) / 1000 * self.announced.per_s
        return level / min(each, self.announced.limit) - (calls - self.call)

    def next_at(self, calls: int, each: float, now: int) -> int | None:
        """When calls may go out again; None: now."""
        left = self.calls_left(calls, each, now)
        if self.announced is None or left >= 1:
            return None
        calls_per_s = self.announced.per_s / min(each, self.announced.limit)
        wait_s = (max(1, calls_per_s * _BATCH_S) - left) / calls_per_s
        return min(now + max(1, math.ceil(wait_s * 1000)), self.full_at)

    @property
    def full_at(self) -> int:
        assert self.announced is not None
        return self.at + math.ceil(self.announced.reset_s * 1000)


class ServerAllowance(Struct):
    """How many calls the server would take from this worker; each worker has one. Calls are
    numbered as they go out; times are of `clock_ms`. `workers` share what the server allows.
    `rpm` is the server's limit, where it has announced one for a minute; `believed`: what it
    announces has not been found to be untrue."""

    calls: int = 0
    workers: int = 1
    rpm: int | None = None
    believed: bool = True
    _requests: _Bucket = field(default_factory=_Bucket)
    _tokens: _Bucket = field(default_factory=_Bucket)

    def disbelieve(self) -> None:
        """It has answered though it had announced that it would not for hours: what it announces
        holds nobody up any more."""
        self.believed = False
        self.rpm = None
        self._requests, self._tokens = _Bucket(), _Bucket()

    def sent(self) -> int:
        """One more call goes out; returns its number."""
        self.calls += 1
        return self.calls

    def observe(
        self,
        requests: AnnouncedLimit | None,
        tokens: AnnouncedLimit | None,
        call: int,
        sent_at: int,
    ) -> None:
        """Take in what the reply to a call announced; an older call's reply changes nothing."""
        if not self.believed:
            return
        if requests is not None:
            self._requests.observe(requests, call, sent_at)
            if requests.is_per_minute:
                self.rpm = max(1, int(requests.limit))
        if tokens is not None:
            self._tokens.observe(tokens, call, sent_at)

    def calls_left(self, call_tokens: float, now: int) -> float:
        """How many more calls the server would take from us now; infinite where it does not say."""
        requests = self._requests.calls_left(self.calls, self.workers, now)
        tokens = self._tokens.calls_left(self.calls, call_tokens * self.workers, now)
        return max(0, min(requests, tokens))

    def next_at(self, call_tokens: float, now: int) -> int | None:
        """When the server will take calls again; None: it does now."""
        times = (
            self._requests.next_at(self.calls, self.workers, now),
            self._tokens.next_at(self.calls, call_tokens * self.workers, now),
        )
        return max((at for at in times if at is not None), default=None)

    def full_at(self, call_tokens: float, now: int) -> int | None:
        """When all of what is used up now will be there again; None: nothing is."""
        buckets = ((self._requests, 1.0), (self._tokens, call_tokens))
        times = [
            bucket.full_at
            for bucket, each in buckets
            if bucket.announced and bucket.calls_left(self.calls, each * self.workers, now) < 1
        ]
        return max(times, default=None)

    @property
    def counts_tokens(self) -> bool:
        """Whether the server has announced a limit of tokens."""
        return self._tokens.announced is not None
