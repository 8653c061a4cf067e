"""The rate that `--adaptive` finds: how many calls a second the server takes. Pure.

    start    One call a second, and twice as many with each second in which this rate was what held
             calls back, until the first 429.
    burst    A 429 cuts the rate, once for all that belong to it: those of calls that went out
             before the cut could be felt, whoever reports them. The limit lies between what the
             server has taken since the cut before, and the rate. A server that lets calls gather
             (a minute's worth, say) is near the lower end: a burst right after a cut tells it. One
             that allows no more than a second's worth is near the upper.
    between  The new ceiling is in that bracket. From a little below it (the first time from half
             of it) the rate rises as a cube of time: soon to the ceiling, slowly past it, then
             faster. A cycle has about a hundred calls at least, so that one 429 in it is little.
    again    At twice the ceiling the limit must be another by now: the search starts from there.

A server that takes nothing at all for a while has other trouble than the rate, which stays then.
Only time in which the rate held calls back lets it grow: what nobody asks for, nobody learns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

_START_PER_S = 1.0
_DOUBLING_S, _DOUBLING_CALLS = 1.0, 5
_FASTEST_PER_S = 100_000.0  # which nobody can send
_FIRST_DEPTH, _DEPTH, _RISE = 0.5, 0.08, 0.08
_PERIOD_S, _PERIOD_CALLS = 20.0, 60
# Workers hear of a cut at their next exchange; what they had claimed before goes out until then.
_FELT_AFTER_MS = 200
_AT_ONCE_S, _AT_ONCE_CALLS = 1.0, 5
_ENOUGH_TO_MEASURE = 15
_DEEPEST_CUT, _CUT_WITHOUT_EVIDENCE = 1 / 8, 1 / 2
_TAKES_NOTHING_S, _TAKES_NOTHING_CALLS = 5.0, 5
_LEAST_PER_S = 1 / 60
# Where in the bracket the ceiling is put, by how much there was to measure.
_MEASURED, _GUESSED = 0.6, 0.75
_MOSTLY_PAUSED = 1 / 4


@dataclass(frozen=True, slots=True)
class Learned:
    """What is known of the server's limit. `ceiling` is of calls a second, None before the first
    429. `grown_s` counts the time that the rate held calls back since the cut, which was at
    `cut_at` and felt from `felt_at` on; `taken` the calls sent since then and not refused."""

    ceiling: float | None = None
    depth: float = 0.0
    grown_s: float = 0.0
    cut_at: int = 0
    felt_at: int = -1
    taken: int = 0

    @property
    def per_s(self) -> float:
        """The rate: calls a second."""
        if self.ceiling is None:
            return _doubled(_START_PER_S, self.grown_s / _DOUBLING_S)
        if self._is_searching:
            doubling_s = max(_DOUBLING_S, _DOUBLING_CALLS / self.ceiling)
            return _doubled(2 * self.ceiling, (self.grown_s - self._risen_s) / doubling_s)
        x = self.grown_s / self._period_s - 1
        return self.ceiling * (1 + (self.depth if x < 0 else _RISE) * x**3)

    def held_back(self, seconds: float) -> "Learned":
        """The rate was what kept calls from going out for so long; a long look counts less."""
        longest_s = max(1.0, 2 / self.per_s)
        return replace(self, grown_s=self.grown_s + min(max(seconds, 0.0), longest_s))

    def sent(self, calls: int) -> "Learned":
        """So many more; below zero when they came back unsent."""
        return replace(self, taken=max(0, self.taken + calls))

    def refused(self, sent_at: Sequence[int], now: int, paused_until: int) -> "Learned":
        """Calls sent at these times got a 429, and nothing goes out before `paused_until`."""
        since = sum(at > self.cut_at for at in sent_at)
        if all(at <= self.felt_at for at in sent_at):
            return replace(self, taken=max(0, self.taken - since))
        felt_at, taken = max(now + _FELT_AFTER_MS, paused_until), max(0, self.taken - since)
        if self._is_searching:
            return Learned(self.per_s, _FIRST_DEPTH, 0.0, now, felt_at)
        elapsed_s = max(1, now - self.cut_at) / 1000
        if not taken and elapsed_s > max(_TAKES_NOTHING_S, _TAKES_NOTHING_CALLS / self.per_s):
            return replace(self, cut_at=now, felt_at=felt_at, taken=0)
        ceiling = max(self._next_ceiling(taken, elapsed_s), _LEAST_PER_S)
        return Learned(ceiling, _DEPTH, 0.0, now, felt_at)

    def shifted(self, ms: int) -> "Learned":
        """The same by a clock that was set."""
        return replace(self, cut_at=self.cut_at + ms, felt_at=self.felt_at + ms)

    @property
    def _period_s(self) -> float:
        assert self.ceiling is not None
        return max(_PERIOD_S, _PERIOD_CALLS / self.ceiling)

    @property
    def _risen_s(self) -> float:
        """How long it takes to twice the ceiling."""
        return float(self._period_s * (1 + (1 / _RISE) ** (1 / 3)))

    @property
    def _is_searching(self) -> bool:
        return self.ceiling is None or self.grown_s > self._risen_s

    def _next_ceiling(self, taken: int, elapsed_s: float) -> float:
        rate = self.per_s
        most = (taken + 1) / elapsed_s  # what it would have taken, if none had gathered unused
        at_once = self.grown_s < max(_AT_ONCE_S, _AT_ONCE_CALLS / rate)
        if at_once and most < rate / 2:
            if taken >= _ENOUGH_TO_MEASURE:
                return most
            return max(most, rate * (_DEEPEST_CUT if taken else _CUT_WITHOUT_EVIDENCE))
        least = min(taken / elapsed_s, rate)
        if taken < _ENOUGH_TO_MEASURE:
            least, share = max(least, rate / 2), _GUESSED
        elif self.grown_s < elapsed_s * _MOSTLY_PAUSED:
            share = 0.0  # a window that was used up in a moment: only its whole length tells
        else:
            share = _MEASURED
        return least + (rate - least) * share


def _doubled(per_s: float, times: float) -> float:
    return float(min(per_s * 2 ** min(times, 60.0), _FASTEST_PER_S))


NOTHING_LEARNED = Learned()
