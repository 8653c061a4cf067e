"""What a server says of its own limits in its replies, and what follows: a copy of its buckets.

OpenAI and others tell, with every reply, how many requests and tokens are left as of the moment
the call came in. From then on our own calls take from that, and it fills up again; when nothing is
left, no call goes out before there is room. So the 429 that would have come does not. Of several
workers, each takes its part of what is left: whatever one leaves, the next reply tells to all. What
was said counts until the limit resets: a server that says no more holds nobody up. Pure.
"""

import math
from dataclasses import dataclass, field

_MINUTE_S = 60.0
_A_MINUTE_OR_SO = (30.0, 90.0)
_BATCH_S = 0.1


@dataclass(frozen=True, slots=True)
class Announced:
    """One limit: `remaining` of `limit` are left, and all of it is there again in `reset_s`."""

    limit: float
    remaining: float
    reset_s: float

    @property
    def per_s(self) -> float:
        """How fast it fills up. Some enforce a minute's limit over less, and say when that ends."""
        used = self.limit - self.remaining
        a_minute = self.limit / _MINUTE_S
        return min(used / self.reset_s, a_minute) if used > 0 and self.reset_s > 0 else a_minute

    @property
    def is_per_minute(self) -> bool:
        """A bucket that holds a minute's worth. Of a free account it is a day's."""
        used = self.limit - self.remaining
        least, most = _A_MINUTE_OR_SO
        return used > 0 and least <= self.reset_s * self.limit / used <= most


@dataclass(slots=True)
class _Copy:
    """Of one limit. `each` is what must be there for one more call."""

    said: Announced | None = None
    call: int = 0
    at: int = 0

    def hear(self, said: Announced, call: int, at: int) -> None:
        if call > self.call:
            self.said, self.call, self.at = said, call, at

    def left(self, calls: int, each: float, now: int) -> float:
        """How many calls; infinite where nothing is known."""
        if self.said is None or now >= self._full_at:
            return math.inf
        level = self.said.remaining + (now - self.at) / 1000 * self.said.per_s
        return level / min(each, self.said.limit) - (calls - self.call)

    def next_at(self, calls: int, each: float, now: int) -> int | None:
        """When there will be room for some; None: there is."""
        left = self.left(calls, each, now)
        if self.said is None or left >= 1:
            return None
        calls_per_s = self.said.per_s / min(each, self.said.limit)
        wait_s = (max(1, calls_per_s * _BATCH_S) - left) / calls_per_s
        return min(now + max(1, math.ceil(wait_s * 1000)), self._full_at)

    @property
    def _full_at(self) -> int:
        assert self.said is not None
        return self.at + math.ceil(self.said.reset_s * 1000)


@dataclass(slots=True)
class ServerRoom:
    """One a worker. Calls are numbered as they go out; times are of `clock_ms`. `workers` share
    what the server takes; `requests_per_minute` is its limit, where it is one for a minute."""

    calls: int = 0
    workers: int = 1
    requests_per_minute: int | None = None
    _requests: _Copy = field(default_factory=_Copy)
    _tokens: _Copy = field(default_factory=_Copy)

    def sent(self) -> int:
        """One more call goes out: its number."""
        self.calls += 1
        return self.calls

    def hear(
        self, requests: Announced | None, tokens: Announced | None, call: int, sent_at: int
    ) -> None:
        """What the reply to a call says."""
        if requests is not None:
            self._requests.hear(requests, call, sent_at)
            if requests.is_per_minute:
                self.requests_per_minute = max(1, int(requests.limit))
        if tokens is not None:
            self._tokens.hear(tokens, call, sent_at)

    def left(self, call_tokens: float, now: int) -> float:
        """How many more calls the server would take from us now; infinite where it does not say."""
        requests = self._requests.left(self.calls, self.workers, now)
        tokens = self._tokens.left(self.calls, call_tokens * self.workers, now)
        return max(0, min(requests, tokens))

    def next_at(self, call_tokens: float, now: int) -> int | None:
        """When it will take some again; None: it does now."""
        times = (
            self._requests.next_at(self.calls, self.workers, now),
            self._tokens.next_at(self.calls, call_tokens * self.workers, now),
        )
        return max((at for at in times if at is not None), default=None)

    @property
    def counts_tokens(self) -> bool:
        return self._tokens.said is not None
