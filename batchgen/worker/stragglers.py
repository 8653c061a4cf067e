"""Calls in flight, and which of them are late: time is passed in (of `clock_ms`).

A straggler is a call that takes three times as long as 99 of 100 answers did. While fewer than
thirty answers are known, nobody can say.
"""

from collections.abc import Collection, Sequence
from itertools import takewhile
from math import ceil

LATE_BY = 3
_ANSWERS_TO_JUDGE_BY = 30
# Sorting a thousand latencies for each answer would cost as much as the answer.
_JUDGE_ANEW_MS = 1000


class CallsInFlight:
    """The calls of one worker. `latencies_ms` of its newest answers is added to elsewhere."""

    def __init__(self, latencies_ms: Collection[int]) -> None:
        self._latencies_ms = latencies_ms
        self._began_at: dict[int, int] = {}
        self._late_after_ms: int | None = None
        self._judged_at: int | None = None

    def began(self, item_id: int, now: int) -> None:
        self._began_at.pop(item_id, None)  # the dict is in the order in which they began
        self._began_at[item_id] = now

    def ended(self, item_id: int) -> None:
        self._began_at.pop(item_id, None)

    def late_after_ms(self, now: int) -> int | None:
        """How long a call takes before it is late; None: too few answers to say."""
        if self._judged_at is None or now - self._judged_at >= _JUDGE_ANEW_MS:
            self._judged_at = now
            self._late_after_ms = _late_after_ms(self._latencies_ms)
        return self._late_after_ms

    def stragglers(self, now: int) -> list[tuple[int, int]]:
        """The calls that are late, the longest in flight first: the item, and when it began."""
        late_after_ms = self.late_after_ms(now)
        if late_after_ms is None:
            return []
        items = self._began_at.items()
        return list(takewhile(lambda call: now - call[1] > late_after_ms, items))


def _late_after_ms(latencies_ms: Collection[int]) -> int | None:
    if len(latencies_ms) < _ANSWERS_TO_JUDGE_BY:
        return None
    return LATE_BY * percentile(sorted(latencies_ms), 0.99)


def percentile(ordered: Sequence[int], fraction: float) -> int:
    """By nearest rank: the lowest value that at least this fraction of them do not exceed.
    `ordered` is not empty, and sorted by the caller, who may need several percentiles."""
    return ordered[max(0, ceil(fraction * len(ordered)) - 1)]
