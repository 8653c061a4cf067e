"""What a server announces in the headers of a reply: how long to wait, and its limits. Pure."""

import email.utils
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal

from batchgen.limits import AnnouncedLimit

_LONGEST_WAIT_S = 6 * 3600.0  # a server that asks for more is wrong, or means "never"
# A limit beyond what a server can mean would hold the work up for ever.
_LARGEST_LIMIT = 1e12


def parse_retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """How many seconds a server asks to wait, or None when it does not say.

    In this order: `retry-after-ms`, `retry-after` as seconds or as an HTTP date, and the longest of
    the vendors' `x-ratelimit-reset*` ("1s", "6m0s", "250ms", seconds). Header names are lower-case.
    """
    wait_s = asked_wait_s(headers, now)
    if wait_s is None:
        resets = [v for k, v in headers.items() if k.startswith("x-ratelimit-reset")]
        wait_s = max((s for s in map(_duration_s, resets) if s is not None), default=None)
    return None if wait_s is None else min(wait_s, _LONGEST_WAIT_S)


def asked_wait_s(headers: Mapping[str, str], now: datetime) -> float | None:
    wait_s = _number(headers.get("retry-after-ms"), 0.001)
    if wait_s is None:
        wait_s = _number(headers.get("retry-after"), 1.0)
    if wait_s is None:
        wait_s = _seconds_until(headers.get("retry-after"), now)
    return None if wait_s is None else min(max(wait_s, 0.0), _LONGEST_WAIT_S)


def announced_limit(
    headers: Mapping[str, str], of: Literal["requests", "tokens"]
) -> AnnouncedLimit | None:
    """What the server says of its limit of requests or tokens; None unless it says all of it."""
    names = _LIMIT_HEADERS[of]
    if names[0] not in headers:
        return None
    remaining, limit = (_number(headers.get(name), 1.0) for name in names[:2])
    reset_s = _duration_s(headers.get(names[2], ""))
    if remaining is None or not limit or reset_s is None or max(remaining, limit) > _LARGEST_LIMIT:
        return None
    return AnnouncedLimit(limit, remaining, reset_s)


_LIMIT_HEADERS = {
    of: tuple(f"x-ratelimit-{what}-{of}" for what in ("remaining", "limit", "reset"))
    for of in ("requests", "tokens")
}


def _number(text: str | None, unit_s: float) -> float | None:
    try:
        seconds = float(text or "") * unit_s
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _seconds_until(text: str | None, now: datetime) -> float | None:
    try:
        at = email.utils.parsedate_to_datetime(text or "")
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now.timestamp()
    except (ValueError, OverflowError, TypeError):
        return None


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@lru_cache(maxsize=1000)  # each reply has two, and most have the same
def _duration_s(text: str) -> float | None:
    parts = _DURATION.findall(text)
    if parts and _DURATION.sub("", text).strip() == "":
        told_s = sum(float(number) * _UNIT_S[unit] for number, unit in parts)
        return min(told_s, _LONGEST_WAIT_S)
    seconds = _number(text, 1.0)
    return seconds if seconds is not None and seconds < _LONGEST_WAIT_S else None
