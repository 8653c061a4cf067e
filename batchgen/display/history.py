"""What changed between looks at a status: the rates, and how they went."""

import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice
from typing import NamedTuple

from batchgen.jobs.status import Status
from batchgen.store import CallFailure, Counts

Look = Callable[[], Awaitable[Status]]

# Rates look back a quarter of the time that one has watched: an answer may take minutes, and a
# short look would jump.
_SHORTEST_WINDOW_S = 30.0
_LONGEST_WINDOW_S = 600.0
_INTERVALS_KEPT = 1200  # the longest window, with a look every half second
_AWAY_S = 5.0  # a look that takes longer waited for a database that was away


class Interval(NamedTuple):
    """What changed between two looks, `span_s` apart. `calls` are those whose end is known,
    `tokens` those of answers."""

    span_s: float
    items: int
    calls: int
    latency_ms: int
    tokens: int
    cost_usd: float

    @property
    def items_per_s(self) -> float:
        return self.items / self.span_s

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.span_s

    @property
    def usd_per_h(self) -> float:
        return 3600 * self.cost_usd / self.span_s

    @property
    def latency_s(self) -> float | None:
        """Of lines of provider batches alone nobody knows it."""
        return self.latency_ms / self.calls / 1000 if self.latency_ms else None


class History:
    """The newest intervals, oldest first. One in which a total went back says nothing and is left
    out: items were put back to pending, or an experiment was deleted."""

    def __init__(self) -> None:
        self.intervals: deque[Interval] = deque(maxlen=_INTERVALS_KEPT)
        self.elapsed_s = 0.0
        self.retried = 0  # calls that had to be repeated since the first look
        self.failed_calls: Counter[CallFailure] = Counter()  # and how calls failed since then
        self._first: tuple[float, Counts] | None = None  # when, and what was counted
        self._last: tuple[float, Counts] | None = None

    async def observe(self, look: Look) -> Status:
        """Look once more, and remember what has changed."""
        asked_s = time.monotonic()
        status = await look()
        self.add(status, time.monotonic(), asked_s)
        return status

    def add(self, status: Status, now_s: float, asked_s: float | None = None) -> None:
        """What was seen at `now_s`, of a clock that nobody sets, by a look that began at `asked_s`
        (None: a moment ago). If it waited for a database that was away, the time since the look
        before says nothing: nobody could finish anything in it."""
        if asked_s is not None and now_s - asked_s > _AWAY_S:
            self._last = None
        total = status.total
        first_s, first = self._first = self._first or (now_s, total)
        last_s, last = self._last or (now_s, total)
        self._last = now_s, total
        self.elapsed_s, self.retried = now_s - first_s, max(0, total.retried - first.retried)
        self.failed_calls = total.failed_calls - first.failed_calls
        if now_s > last_s:
            interval = _interval(now_s - last_s, last, total)
            if min(interval) >= 0:
                self.intervals.append(interval)

    @property
    def recent(self) -> Interval | None:
        """All that changed within the time that rates look back; None before the second look."""
        window_s = min(max(_SHORTEST_WINDOW_S, self.elapsed_s / 4), _LONGEST_WINDOW_S)
        span_s = 0.0
        for n, interval in enumerate(reversed(self.intervals), start=1):
            span_s += interval.span_s
            if span_s >= window_s:
                return _sum(islice(reversed(self.intervals), n))
        return _sum(self.intervals) if self.intervals else None

    @property
    def items_per_s(self) -> float:
        return self.recent.items_per_s if self.recent else 0.0

    @property
    def tokens_per_s(self) -> float:
        return self.recent.tokens_per_s if self.recent else 0.0


def _interval(span_s: float, before: Counts, after: Counts) -> Interval:
    return Interval(
        span_s=span_s,
        items=after.finished - before.finished,
        calls=after.ended_calls - before.ended_calls,
        latency_ms=after.latency_ms - before.latency_ms,
        tokens=after.completion_tokens - before.completion_tokens,
        cost_usd=after.cost_usd - before.cost_usd,
    )


def _sum(intervals: Iterable[Interval]) -> Interval:
    return Interval._make(map(sum, zip(*intervals, strict=True)))
