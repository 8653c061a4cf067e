"""The two clocks: the time of day, as it is stored, and one for waits that nobody sets."""

import time


def now_ms() -> int:
    """The time as it is stored: milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


def clock_ms() -> int:
    """For waits within the process: milliseconds of a clock that nobody sets back or forward."""
    return time.monotonic_ns() // 1_000_000
