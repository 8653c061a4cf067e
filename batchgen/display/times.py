"""Times in words: how long, when, since when."""

from datetime import UTC, datetime

_SOON_MS, _A_DAY_MS = 10 * 60_000, 24 * 3_600_000


def duration(seconds: float) -> str:
    """Two units at most, and no more precise than one can plan with: 8 s, 3 min 20 s, 23 min,
    5 h 12 min, 3 d 4 h."""
    whole = round(seconds)
    minutes, hours = whole // 60, whole // 3600
    if whole < 60:
        return f"{whole} s"
    if minutes < 10:
        return f"{minutes} min {whole % 60} s"
    if hours < 1:
        return f"{minutes} min"
    if hours < 48:
        return f"{hours} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"


def wall_clock(until_ms: int | None, at_ms: int) -> str:
    """When it is, on the clock of the wall."""
    at = datetime.fromtimestamp((until_ms or 0) / 1000, UTC).astimezone()
    if (until_ms or 0) - at_ms > _A_DAY_MS:
        return f"{at:%Y-%m-%d %H:%M}"
    return f"{at:%H:%M}" if (until_ms or 0) - at_ms > _SOON_MS else f"{at:%H:%M:%S}"


def hours_text(span_ms: int) -> str:
    """So many hours and minutes: 0:41."""
    minutes = max(0, span_ms) // 60_000
    return f"{minutes // 60}:{minutes % 60:02}"
