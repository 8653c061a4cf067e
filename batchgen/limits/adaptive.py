"""The rate that `--adaptive` finds: how many calls a second the server takes. Pure arithmetic.

    start    The rate begins at one call a second. It doubles with each second in which it limited
             the calls, until the first 429.
    burst    A 429 cuts the rate. All 429s of one burst cut it once: those of calls that went out
             before the cut could take effect, whichever worker reports them. The server's limit
             lies between the rate that it has accepted since the previous cut and the rate that it
             refused. A server whose bucket holds much (a minute's worth, say) is near the lower
             end: it refuses again right after a cut. One whose bucket holds no more than a second's
             worth is near the upper end.
    between  The new ceiling is put into that bracket. The rate rises to it from a little below (the
             first time from half of it) as a cube of time: soon to the ceiling, slowly past it,
             then faster. A cycle has about a hundred calls at least, so that one 429 in it costs
             little.
    again    At twice the ceiling the server's limit must have changed: the search starts again from
             there.

While a server accepts nothing at all, something else than the rate is wrong, and the rate stays.
Only time in which the rate limited the calls lets it grow: without demand nothing can be learned.
"""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

_START_PER_S = 1.0
_DOUBLING_S, _DOUBLING_CALLS = 1.0, 5
_FASTEST_PER_S = 100_000.0  # more than any worker can send
_FIRST_CUT_SHARE, _CUT_SHARE, _RISE = 0.5, 0.08, 0.08
_PERIOD_S, _PERIOD_CALLS = 20.0, 60
# Workers learn of a cut at their next exchange; what they had claimed before goes out until then.
_CUT_EFFECTIVE_AFTER_MS = 200
_AT_ONCE_S, _AT_ONCE_CALLS = 1.0, 5
_ENOUGH_TO_MEASURE = 15
_DEEPEST_CUT, _CUT_WITHOUT_EVIDENCE = 1 / 8, 1 / 2
_TAKES_NOTHING_S, _TAKES_NOTHING_CALLS = 5.0, 5
_LEAST_PER_S = 1 / 60
# Where in the bracket the ceiling is put, by how much there was to measure.
_MEASURED, _GUESSED = 0.6, 0.75
_MOSTLY_PAUSED = 1 / 4


class LearnedRate(Struct, frozen=True):
    """What is known of the server's limit.

    ceiling_per_s     about as many calls a second as the server takes; None before the first 429
    cut_share         how far below the ceiling the last cut set the rate, as a share of it
    limited_s         for how long the rate has limited the calls since that cut
    cut_at            when the cut was made; epoch ms, as all times here
    cut_effective_at  until then calls may have gone out that did not know of it
    taken_since_cut   calls that were sent since then and not refused
    """

    ceiling_per_s: float | None = None
    cut_share: float = 0.0
    limited_s: float = 0.0
    cut_at: int = 0
    cut_effective_at: int = -1
    taken_since_cut: int = 0

    @property
    def per_s(self) -> float:
        """The rate: calls a second."""
        if self.ceiling_per_s is None:
            return _doubled(_START_PER_S, self.limited_s / _DOUBLING_S)
        if self._is_searching:
            doubling_s = max(_DOUBLING_S, _DOUBLING_CALLS / self.ceiling_per_s)
            return _doubled(2 * self.ceiling_per_s, (self.limited_s - self._risen_s) / doubling_s)
        x = self.limited_s / self._period_s - 1
        return self.ceiling_per_s * (1 + (self.cut_share if x < 0 else _RISE) * x**3)

    def limited_for(self, seconds: float) -> "LearnedRate":
        """The rate kept calls from going out for `seconds`. What lies further back than two calls
        or a second does not count, as nobody watched."""
        longest_s = max(1.0, 2 / self.per_s)
        return replace(self, limited_s=self.limited_s + min(max(seconds, 0.0), longest_s))

    def sent(self, calls: int) -> "LearnedRate":
        """`calls` more were sent; fewer than zero when claimed ones came back unsent."""
        return replace(self, taken_since_cut=max(0, self.taken_since_cut + calls))

    def refused(self, sent_at: Sequence[int], now: int, paused_until: int) -> "LearnedRate":
        """Calls sent at these times got a 429, and nothing goes out before `paused_until`."""
        since = sum(at > self.cut_at for at in sent_at)
        if all(at <= self.cut_effective_at for at in sent_at):
            return replace(self, taken_since_cut=max(0, self.taken_since_cut - since))
        taken = max(0, self.taken_since_cut - since)
        effective_at = max(now + _CUT_EFFECTIVE_AFTER_MS, paused_until)
        if self._is_searching:
            return LearnedRate(self.per_s, _FIRST_CUT_SHARE, 0.0, now, effective_at)
        elapsed_s = max(1, now - self.cut_at) / 1000
        if not taken and elapsed_s > max(_TAKES_NOTHING_S, _TAKES_NOTHING_CALLS / self.per_s):
            return replace(self, cut_at=now, cut_effective_at=effective_at, taken_since_cut=0)
        ceiling = max(self._next_ceiling(taken, elapsed_s), _LEAST_PER_S)
        return LearnedRate(ceiling, _CUT_SHARE, 0.0, now, effective_at)

    def shifted(self, ms: int) -> "LearnedRate":
        """The same state after the clock was set forward by `ms` (back: negative)."""
        return replace(self, cut_at=self.cut_at + ms, cut_effective_at=self.cut_effective_at + ms)

    @property
    def _period_s(self) -> float:
        assert self.ceiling_per_s is not None
        return max(_PERIOD_S, _PERIOD_CALLS / self.ceiling_per_s)

    @property
    def _risen_s(self) -> float:
        """How long the rate takes to rise to twice the ceiling."""
        return float(self._period_s * (1 + (1 / _RISE) ** (1 / 3)))

    @property
    def _is_searching(self) -> bool:
        return self.ceiling_per_s is None or self.limited_s > self._risen_s

    def _next_ceiling(self, taken: int, elapsed_s: float) -> float:
        rate = self.per_s
        upper_bound = (taken + 1) / elapsed_s  # if the server's bucket was empty at the last cut
        at_once = self.limited_s < max(_AT_ONCE_S, _AT_ONCE_CALLS / rate)
        if at_once and upper_bound < rate / 2:
            if taken >= _ENOUGH_TO_MEASURE:
                return upper_bound
            return max(upper_bound, rate * (_DEEPEST_CUT if taken else _CUT_WITHOUT_EVIDENCE))
        lower_bound = min(taken / elapsed_s, rate)
        if taken < _ENOUGH_TO_MEASURE:
            lower_bound, share = max(lower_bound, rate / 2), _GUESSED
        elif self.limited_s < elapsed_s * _MOSTLY_PAUSED:
            share = 0.0  # a fixed window, used up in a moment: only its whole length shows the rate
        else:
            share = _MEASURED
        return lower_bound + (rate - lower_bound) * share


def _doubled(per_s: float, times: float) -> float:
    return float(min(per_s * 2 ** min(times, 60.0), _FASTEST_PER_S))


NOTHING_LEARNED = LearnedRate()
