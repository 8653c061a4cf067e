"""The simulated model's rate limits: token buckets, and the headers that announce them."""

import math
import time

from batchgen.simulate.answers import Chat, count_tokens


class Limiter:
    """Limits the requests and the tokens a minute; None or 0: no limit."""

    def __init__(self, rpm: float | None, burst: int | None, tpm: float | None) -> None:
        self._requests = _Bucket(rpm, burst or max(1, math.ceil(rpm / 60))) if rpm else None
        self._tokens = _Bucket(tpm, tpm) if tpm else None

    def take(self, chat: Chat | None, now: float) -> float:
        """Accept the call and return 0, or refuse it and return the seconds until it would be
        accepted."""
        wanted = [(self._requests, 1.0)] if self._requests else []
        if self._tokens and chat:
            wanted.append((self._tokens, float(count_tokens(chat))))
        wait_s = max((bucket.wait_s(amount, now) for bucket, amount in wanted), default=0.0)
        if wait_s == 0:
            for bucket, amount in wanted:
                bucket.take(amount)
        return wait_s

    def headers(self, now: float) -> dict[str, str]:
        """The headers that OpenAI sends with every reply."""
        headers: dict[str, str] = {}
        for of, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            if bucket:
                headers |= bucket.headers(of, now)
        return headers


class _Bucket:
    """A token bucket, which starts full."""

    def __init__(self, per_minute: float, capacity: float) -> None:
        self._per_minute = per_minute
        self._per_s = per_minute / 60
        self._capacity = capacity
        self._level = float(capacity)
        self._filled_at = time.monotonic()

    def wait_s(self, amount: float, now: float) -> float:
        """The seconds until `amount` is there; a full bucket is enough for any call."""
        grown = self._level + (now - self._filled_at) * self._per_s
        self._level = min(grown, self._capacity)
        self._filled_at = now
        return max(0.0, (min(amount, self._capacity) - self._level) / self._per_s)

    def take(self, amount: float) -> None:
        self._level -= amount

    def headers(self, of: str, now: float) -> dict[str, str]:
        full_in_s = self.wait_s(self._capacity, now)
        return {
            f"x-ratelimit-limit-{of}": f"{self._per_minute:.0f}",
            f"x-ratelimit-remaining-{of}": f"{max(0, math.floor(self._level))}",
            f"x-ratelimit-reset-{of}": _duration(full_in_s),
        }


def _duration(seconds: float) -> str:
    """A duration as OpenAI writes it: 250ms, 1.5s, 6m0s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes:.0f}m{seconds:.3g}s" if minutes else f"{seconds:.3f}s"
