"""Two clocks: the time of day, as it is stored and shown, and one for waits that nobody sets."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache

_ahead_ms = 0
_followers = 0


def now_ms() -> int:
    """The time as it is stored: milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000 + _ahead_ms


def follow(clock_ms: int, asked_ms: int, answered_ms: int) -> None:
    """From now on the time is that of another clock, which said so when it was asked: machines that
    share a database go by its server's. The other two are `own_ms` before and after that."""
    global _ahead_ms
    ahead_ms = clock_ms - (asked_ms + answered_ms) // 2
    if abs(ahead_ms - _ahead_ms) > (answered_ms - asked_ms) // 2 + 1:  # else it may be right
        _ahead_ms = ahead_ms


@contextmanager
def following() -> Iterator[None]:
    """A clock may be followed inside. After the last who did the time is this machine's again."""
    global _ahead_ms, _followers
    _followers += 1
    try:
        yield
    finally:
        _followers -= 1
        if not _followers:
            _ahead_ms = 0


def own_ms() -> int:
    """The time by this machine's clock, whichever is followed."""
    return time.time_ns() // 1_000_000


def clock_ms() -> int:
    """For waits within the process: milliseconds of a clock that nobody sets back or forward."""
    return time.monotonic_ns() // 1_000_000


def timestamp(at_ms: int) -> str:
    """A stored time for people and exports: ISO 8601, UTC, milliseconds."""
    second, ms = divmod(at_ms, 1000)
    return f"{_second(second)}.{ms:03}Z"


@lru_cache(maxsize=1000)  # the items of one page finished at about the same time
def _second(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"
