"""What changed between looks at a status: the rates, and how they went."""

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice
from typing import NamedTuple

from batchgen.jobs.status import Status

Look = Callable[[], Awaitable[Status]]

# Rates look back a quarter of the time that one has watched: an answer may take minutes, and a
# short look would jump.
_SHORTEST_WINDOW_S = 30.0
_LONGEST_WINDOW_S = 600.0
_STEPS_KEPT = 1200  # the longest window, with a look every half second


class Step(NamedTuple):
    """What changed within `span_s`. `calls` are those whose end is known, `tokens` those of
    answers."""

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
        return self.latency_ms / self.calls / 1000 if self.calls else None


class History:
    """The newest steps, oldest first. One in which a total went back says nothing and is left out:
    items were put back to pending, or an experiment was deleted."""

    def __init__(self) -> None:
        self.steps: deque[Step] = deque(maxlen=_STEPS_KEPT)
        self.elapsed_s = 0.0
        self.retried = 0  # calls that had to be repeated since the first look
        self._began: tuple[float, int] | None = None  # when, and how often was retried by then
        self._before: Step | None = None

    async def follow(self, look: Look) -> Status:
        """Look once more."""
        status = await look()
        self.add(status, time.monotonic())
        return status

    def add(self, status: Status, now_s: float) -> None:
        """`now_s` is of a clock that nobody sets."""
        total = status.total
        if self._began is None:
            self._began = now_s, total.retried
        began_s, retried_before = self._began
        self.elapsed_s, self.retried = now_s - began_s, max(0, total.retried - retried_before)
        seen = Step(
            now_s, total.finished, total.calls - total.unknown_calls, total.latency_ms,
            total.completion_tokens, total.cost_usd,
        )  # fmt: skip
        before, self._before = self._before, seen
        if before is not None and now_s > before.span_s:
            step = Step._make(now - then for now, then in zip(seen, before, strict=True))
            if min(step) >= 0:
                self.steps.append(step)

    @property
    def lately(self) -> Step | None:
        """All that changed within the time that rates look back; None before the second look."""
        window_s = min(max(_SHORTEST_WINDOW_S, self.elapsed_s / 4), _LONGEST_WINDOW_S)
        span_s = 0.0
        for n, step in enumerate(reversed(self.steps), start=1):
            span_s += step.span_s
            if span_s >= window_s:
                return _sum(islice(reversed(self.steps), n))
        return _sum(self.steps) if self.steps else None

    @property
    def items_per_s(self) -> float:
        return self.lately.items_per_s if self.lately else 0.0

    @property
    def tokens_per_s(self) -> float:
        return self.lately.tokens_per_s if self.lately else 0.0


def _sum(steps: Iterable[Step]) -> Step:
    return Step._make(map(sum, zip(*steps, strict=True)))
