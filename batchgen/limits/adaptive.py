"""The rate that `--adaptive` finds: how many calls a second the server takes. Pure arithmetic.

    start    The rate begins at one call a second. It doubles with each second in which it limited
             the calls, until too many are refused.
    strays   Some servers refuse a share of the calls whatever is sent. So a 429 counts only where
             the newest calls have more of them than strays explain (strays.py).
    burst    Too many 429s cut the rate. All of one burst cut it once: those of calls that went out
             before the cut could take effect, whichever worker reports them. The server's limit
             lies between the rate that it has accepted since the previous cut and the rate that it
             refused. A server whose bucket holds much (a minute's worth, say) is near the lower
             end: it refuses again right after a cut. One whose bucket holds no more than a second's
             worth is near the upper end.
    test     Where those refusals may have been strays all the same, the rate stays for some calls
             where the limit could not be: if as many are refused there, strays they are, and the
             rate goes back.
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
from math import log2, sqrt

from msgspec import Struct
from msgspec.structs import replace

from batchgen.limits.strays import MOST_STRAYS, NO_STRAYS_KNOWN, Strays, are_too_many

_START_PER_S = 1.0
_DOUBLING_S, _DOUBLING_CALLS = 1.0, 5
_FASTEST_PER_S = 100_000.0  # more than any worker can send
_FIRST_CUT_SHARE, _CUT_SHARE, _RISE = 0.5, 0.08, 0.08
_PERIOD_S, _PERIOD_CALLS = 20.0, 60
# Workers learn of a cut at their next exchange; what they had claimed before goes out until then.
_CUT_EFFECTIVE_AFTER_MS = 200
_CLAIMED_TOGETHER_MS = 100
_AT_ONCE_S, _AT_ONCE_CALLS = 1.0, 5
_ENOUGH_TO_MEASURE = 15
_TAKES_NOTHING_S = 1.0
_DEEPEST_CUT, _CUT_WITHOUT_EVIDENCE = 1 / 8, 1 / 2
_LEAST_PER_S = 1 / 60
_REST_S, _LONG_REST_S = 600.0, 3600.0
# Where in the bracket the ceiling is put, by how much there was to measure.
_MEASURED, _GUESSED = 0.6, 0.75
_MOSTLY_PAUSED = 1 / 4
_MOST_SURELY_REFUSED = 0.9
# How many refusals beyond the strays' are too many: the less, the likelier a limit is at that rate.
_NEAR_CEILING, _BELOW_CEILING, _IN_SEARCH = 0.2, 1.3, 2.3
_SLOW_PER_S = 2.0  # there a cycle lasts a minute: too long to tell by several
_BELOW = 1 / 2  # of the first half of a cycle, in which the rate rises to the ceiling
_FEWEST_TO_TEST, _TEST_BELOW = 3, 0.9
_TEST_REFUSALS, _FEWEST_TEST_CALLS, _MOST_TEST_CALLS, _TEST_S = 6, 40, 80, 2.0
_AS_MANY = 0.6


class LearnedRate(Struct, frozen=True):
    """What is known of the server's limit.

    ceiling_per_s     about as many calls a second as the server takes; None before the first cut
    cut_share         how far below the ceiling the last cut set the rate, as a share of it
    limited_s         for how long the rate has limited the calls since that cut
    cut_at            when the cut was made; epoch ms, as all times here
    cut_effective_at  until then calls may have gone out that did not know of it
    taken_since_cut   calls that were sent since then and not refused
    tested_share      the share of refusals of which it is being tested whether they are strays; 0:
                      that of none is
    strays            the refusals that come whatever the rate is, and those of the newest calls
    """

    ceiling_per_s: float | None = None
    cut_share: float = 0.0
    limited_s: float = 0.0
    cut_at: int = 0
    cut_effective_at: int = -1
    taken_since_cut: int = 0
    tested_share: float = 0.0
    strays: Strays = NO_STRAYS_KNOWN

    @property
    def per_s(self) -> float:
        """The rate: calls a second."""
        if self.ceiling_per_s is None:
            return _doubled(_START_PER_S, self.limited_s / _DOUBLING_S)
        if self.tested_share:
            below = _TEST_BELOW if self._was_searching else 1 - _CUT_SHARE
            return self.ceiling_per_s * (1 - self.tested_share) * below
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

    def sent(self, calls: int, now: int) -> "LearnedRate":
        """`calls` more were sent; fewer than zero when claimed ones came back unsent."""
        found = replace(self, taken_since_cut=max(0, self.taken_since_cut + calls))
        if calls <= 0 or now <= self.cut_effective_at:
            return found
        learns = self._is_below_ceiling and not self.tested_share
        found = replace(found, strays=self.strays.sent(calls, self.per_s, learns=learns))
        return found.tested(now) if found.is_test_over else found

    def refused(self, sent_at: Sequence[int], now: int, paused_until: int) -> "LearnedRate":
        """Calls sent at these times got a 429, and nothing goes out before `paused_until`."""
        since = sum(at > self.cut_at for at in sent_at)
        found = replace(self, taken_since_cut=max(0, self.taken_since_cut - since))
        new = sum(at > self.cut_effective_at for at in sent_at)
        if not new:
            return found
        found = replace(found, strays=self.strays.refused(new))
        if not found.are_too_many:
            return found
        effective_at = max(now + _CUT_EFFECTIVE_AFTER_MS, paused_until)
        return found.cut(now, effective_at, now - max(sent_at))

    def rested(self, seconds: float, now: int) -> "LearnedRate":
        """After so long without a look. It goes on as it was, and after some minutes a little below
        the ceiling. What is slower than the start is slower to be found untrue than to be found
        again, and after an hour not believed."""
        if self.ceiling_per_s is None or seconds < _REST_S:
            return self
        if seconds > _LONG_REST_S and self.ceiling_per_s < _START_PER_S:
            return LearnedRate(strays=self.strays.cut())
        ceiling = self.per_s / 2 if self._is_searching else self.ceiling_per_s
        return LearnedRate(ceiling, _CUT_SHARE, 0.0, now, now, strays=self.strays.cut())

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
        if self.ceiling_per_s is None:
            return True
        return not self.tested_share and self.limited_s > self._risen_s

    @property
    def _was_searching(self) -> bool:
        """When it was cut."""
        return self.cut_share == _FIRST_CUT_SHARE

    @property
    def _is_below_ceiling(self) -> bool:
        """Far enough for refusals to be strays."""
        is_below = self._is_searching or self.limited_s < _BELOW * self._period_s
        return bool(self.tested_share) or is_below

    @property
    def are_too_many(self) -> bool:
        """Whether the newest refusals are more than strays explain."""
        share, sigmas, least = self.strays.share, 3.0, _BELOW_CEILING
        if self.tested_share:  # it may be that of the strays
            share, sigmas = max(share, self.tested_share), 2.0
        elif self._is_searching:
            least = _IN_SEARCH
        elif not self._is_below_ceiling or self.per_s < _SLOW_PER_S:
            sigmas, least = 2.0, _NEAR_CEILING
        new = self.strays
        return are_too_many(new.recent_refused, new.recent_calls, share, least, sigmas=sigmas)

    def cut(self, now: int, effective_at: int, reply_ms: int) -> "LearnedRate":
        """A lower rate. `reply_ms`: how long the newest refusal took; calls that are younger may be
        refused yet."""
        tested = self._share_to_test
        cut = LearnedRate(
            self.per_s, _FIRST_CUT_SHARE, 0.0, now, effective_at,
            tested_share=tested, strays=self.strays.cut(),
        )  # fmt: skip
        if self._is_searching or (self.tested_share and self._was_searching and tested):
            return cut if tested else replace(cut, ceiling_per_s=self._most_by_share)
        wall_s = max(1, now - self.cut_at) / 1000
        unknown = self.per_s * (reply_ms + _CLAIMED_TOGETHER_MS) / 1000
        if wall_s > _TAKES_NOTHING_S and self.taken_since_cut < max(1, unknown):
            return replace(self, cut_effective_at=effective_at, strays=self.strays.cut())
        ceiling = max(_LEAST_PER_S, min(self._most_by_share, self._next_ceiling(wall_s)))
        return replace(cut, ceiling_per_s=ceiling, cut_share=_CUT_SHARE)

    @property
    def _share_to_test(self) -> float:
        """The newest refusals' share, if they may be strays; else 0."""
        new = self.strays
        if new.recent_refused < _FEWEST_TO_TEST:
            return 0.0
        if are_too_many(new.recent_refused, new.recent_calls, MOST_STRAYS, sigmas=2):
            return 0.0
        return min(new.recent_share, MOST_STRAYS)

    @property
    def is_test_over(self) -> bool:
        """Whether enough calls were sent to tell."""
        if not self.tested_share:
            return False
        calls = min(_TEST_REFUSALS / self.tested_share, _MOST_TEST_CALLS)
        return self.strays.recent_calls >= max(calls, _FEWEST_TEST_CALLS, _TEST_S * self.per_s)

    def tested(self, now: int) -> "LearnedRate":
        """What the test has shown."""
        assert self.ceiling_per_s is not None
        found = replace(self, tested_share=0.0)
        if _AS_MANY * self.tested_share <= self.strays.recent_share <= MOST_STRAYS:
            return replace(found, strays=self.strays.tested()).gone_back(now)
        if not self._was_searching:
            return replace(found, limited_s=0.0)
        taken = min(1.0, 1 - self.tested_share + self.strays.share)
        ceiling = self.ceiling_per_s * taken
        return replace(found, ceiling_per_s=ceiling, cut_share=_CUT_SHARE, limited_s=0.0)

    def gone_back(self, now: int) -> "LearnedRate":
        """To where it was when strays cut it."""
        assert self.ceiling_per_s is not None
        if self._was_searching:
            searched_s = log2(self.ceiling_per_s / _START_PER_S) * _DOUBLING_S
            return replace(self, ceiling_per_s=None, limited_s=max(0.0, searched_s))
        taken = self._period_s * self.ceiling_per_s * (1 - self.strays.share)
        cut_at = now - round(self._period_s * 1000)  # as if all of that time had gone well
        return replace(self, limited_s=self._period_s, taken_since_cut=round(taken), cut_at=cut_at)

    @property
    def _most_by_share(self) -> float:
        """The limit is not above that, by how many of the newest calls were surely refused."""
        new = self.strays
        if new.recent_calls < _ENOUGH_TO_MEASURE:
            return self.per_s
        surely = (new.recent_refused - sqrt(new.recent_refused)) / new.recent_calls - new.share
        return self.per_s * (1 - min(max(0.0, surely), _MOST_SURELY_REFUSED))

    def _next_ceiling(self, wall_s: float) -> float:
        rate, taken = self.per_s, self.taken_since_cut / (1 - self.strays.share)
        paused_ms = self.cut_effective_at - self.cut_at - _CUT_EFFECTIVE_AFTER_MS
        elapsed_s = max(0.001, min(wall_s, self.limited_s + max(0, paused_ms) / 1000))
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
