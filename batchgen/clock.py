"""Two clocks: the time of day, as it is stored and shown, and one for waits that nobody sets."""

import time
from datetime import UTC, datetime
from functools import lru_cache


def now_ms() -> int:
    """The time as it is stored: milliseconds since 1970, UTC."""
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
