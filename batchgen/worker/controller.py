"""How many calls at once a server takes, found from which are taken and which are refused. Pure.

A refusal is whatever says "not now": 429; 503 and its like, or a refused connection, while other
calls are under way. One `Controller` a server and worker; time is passed in (of `clock_ms`).

    level    how many calls were under way beside a call as it went out, the refused left out
    taken    answered, or under way for far longer than a refusal takes
    proven   below this level calls are taken: the newest few at it were
    strays   the share of refusals that comes whatever is sent. It is learned while fewer calls are
             sent than where refusals were too many, as those that a limit makes end there

    a stray                A refusal at a proven level costs nothing but its own call.
    above what is proven   Two refusals, or more where strays are many, and hardly a call taken: the
                           limit is found. It falls to what is under way beside. One will do where
                           so many calls were too many before.
    too many for strays    (CUSUM, the usual test for a change.) The limit has become lower, or is
                           one of the rate: it falls by a fifth, and to what is under way beside.
    a burst                Of what was sent since the first refusal nothing is taken, for as long as
                           it takes others to end, or of a dozen: everybody has to pause. The calls
                           come back by doubling; the limit stays.

The limit rises by one for each call that is taken while all of it is in use; when that was too
much, for every second one, every fourth, and so on to every 64th: so often a cap is asked for
more. When it was not too much, twice as fast. At the start the calls rise fourfold with each round.

Where several workers ask the server, each finds on its share of what all of them have found, which
may be none at all (sharing.py). What one of them tries may cost another one its call. So a refusal
lets a slot rest until a call is taken, or for a second; and two in a row of what fills the share
are enough, though it was proven.
"""

from collections import deque
from enum import Enum
from math import inf, log

from msgspec import Struct

_START_CALLS, _START_RISE, _RISE = 4.0, 3, 1
# A call that has been under way for so long is at work, or waits in the server's queue.
_AT_WORK_MS = 1000
_SURELY_TAKEN = 3  # times as long as a refusal took
_SHORTEST_REFUSAL_MS = 30
_CALLS_TO_PROVE = 3
_CALLS_TO_LAST = 2
_AT_ONCE_MS = 20  # calls that go out so near each other go out at about the same time
# Above what is proven: strays in a row that are too unlikely, and as many of all calls.
_UNLIKELY, _TOO_MANY = 0.03, 0.3
_CUT, _CUT_ENOUGH_TO_LEARN = 0.8, 0.85
_MOST_FAILED_RISES, _FAILED_RISES_OF_OTHERS, _FAILED_BEFORE = 6, 3, 2
# The share of strays, and that of refusals above a limit: what CUSUM tells apart.
_STRAYS_AT_FIRST, _FEWEST_STRAYS, _MOST_STRAYS, _ABOVE_LIMIT = 0.04, 0.02, 0.3, 0.5
_CALLS_TO_LEARN, _CALLS_TO_FORGET = 100, 2000
_REST_MS = 1000
_TELLING = 8.0  # a logarithm: strays alone do so once in some thousands of calls
_TELLING_AT_ONCE = 4 * _TELLING  # about twelve calls, in a moment


class Call(Struct, eq=False):
    """A call that went out; what it holds is its controller's matter."""

    number: int
    sent_at: int
    level: int = 0
    model: str = ""
    has_ended: bool = False
    is_taken: bool = False
    has_risen: bool = False


class Refusal(Enum):
    """What a refusal is.

    stray   it says nothing of other calls
    limit   more calls are sent than the server takes
    burst   nobody is taken
    same    it is of a burst that is known
    """

    STRAY = "stray"
    LIMIT = "limit"
    BURST = "burst"
    SAME = "same"


class Controller:
    """`slots`, the most that it allows, may be changed at any time. Each call is `sent`, and then
    `taken`, `refused` or, where that is not known, `left`. `under_way` are so many."""

    def __init__(self, slots: int, known: int | None = None) -> None:
        """`known`: how many calls at once the server takes, as others have found."""
        self.slots = slots
        self.under_way = 0
        self.strays = _STRAYS_AT_FIRST
        self._sent = 0
        self._unknown: deque[Call] = deque()  # whether they are taken; oldest first
        self._young: deque[Call] = deque()  # perhaps not at work yet
        self.is_shared = known == 0
        self._limit: float = inf if known is None else known
        self._limit_that_held = self._limit  # some call was taken since it fell to that
        self._fell_after = 0  # this and others: the number of the newest call at that time
        self._failed_at = self._limit + 1
        self.failed_rises = 0 if known is None else _FAILED_RISES_OF_OTHERS
        self._full_until = 0
        self._claimed_until = 0
        self._ramp: float | None = _START_CALLS  # on its way to the limit
        self._ramp_rise = _START_RISE
        self._proven = 0
        self._taken_high: list[int] = []  # levels from `proven` on
        self._calls_to_prove = _CALLS_TO_PROVE
        self._proves_after = 0  # calls up to this number prove nothing any more
        self._refused_high = 0
        self._evidence = 0.0
        self._alarm_at = inf
        self._taken_since_alarm = 0
        self._row = 0.0  # the evidence of refusals since the first of which nothing was taken
        self._row_after = 0
        self._beside_row = 0  # of the calls under way as it began, those that still are
        self._ended_beside_row = 0  # and those that have ended since, which takes its time
        self._burst_after = 0
        self.is_back = False  # from a burst, and nothing was taken yet
        self._has_taken = False
        self._rests_until = 0

    @property
    def limit(self) -> int:
        """How many calls at once the server takes, as far as is known, of `slots`."""
        return max(self._least, int(min(self._limit, self.slots)))

    @property
    def takes(self) -> int | None:
        """The same, whatever the slots are, if it has refused more, or others have found it to."""
        return None if self._limit == inf else max(self._least, int(self._limit))

    @property
    def _least(self) -> int:
        return 0 if self.is_shared else 1

    @property
    def is_rising(self) -> bool:
        """Whether fewer are allowed than `limit`, for a while."""
        return self._ramp is not None

    @property
    def serves(self) -> bool:
        """Whether calls are under way, and some were taken since the last burst."""
        return self.under_way > 0 and self._has_taken and not self.is_back

    def allowed(self, now: int) -> int:
        """How many may be under way."""
        while self._young and self._young[0].sent_at + _AT_WORK_MS <= now:
            if not (call := self._young.popleft()).has_ended:
                self._rise(call)
        limit = self.limit if self._ramp is None else min(max(1, int(self._ramp)), self.limit)
        return min(limit, self.under_way) if now < self._rests_until else limit

    def next_rise_at(self, now: int) -> int | None:
        """When `allowed` may rise by itself."""
        if self.allowed(now) >= self.slots:
            return None
        while self._young and self._young[0].has_ended:
            self._young.popleft()
        times = [call.sent_at + _AT_WORK_MS for call in self._young][:1]
        return min(times + [self._rests_until] * (now < self._rests_until), default=None)

    def sent(self, now: int, model: str = "") -> Call:
        """A call goes out."""
        self._sent += 1
        call = Call(self._sent, now, self.under_way, model)
        self._unknown.append(call)
        self._young.append(call)
        self.under_way += 1
        if self.under_way >= self.allowed(now):
            self._full_until = call.number
        return call

    def all_claimed(self, not_sent: int) -> None:
        """All calls that are allowed are claimed, and so many of them are about to go out. On the
        way to the limit that is use: a quick server answers the first before the last is sent."""
        self._claimed_until = self._sent + not_sent

    def left(self, call: Call) -> None:
        """It is not under way any more."""
        self._end(call, was_at_work=True)

    def _end(self, call: Call, *, was_at_work: bool) -> None:
        if call.has_ended:
            return
        call.has_ended = True
        self.under_way -= 1
        if call.number <= self._row_after:
            self._beside_row -= 1
            self._ended_beside_row += was_at_work

    def taken(self, call: Call) -> None:
        """The server served it, whatever it said."""
        self.left(call)
        self._take(call)
        self._rise(call)
        self._rests_until = 0

    def refused(self, call: Call, now: int, *, may_fall: bool = True) -> Refusal:
        """The server refused it. Without `may_fall` the limit does not fall for that, and after a
        burst all come back at once: something else holds the calls back."""
        self._end(call, was_at_work=call.is_taken)
        if self.is_shared and self.takes is not None:
            self._rests_until = now + _REST_MS
        took_ms = max(now - call.sent_at, _SHORTEST_REFUSAL_MS)
        self._settle(now - _SURELY_TAKEN * took_ms)
        high, is_common = self._look_at_others(call)
        if call.number <= self._burst_after:
            return Refusal.SAME
        if is_common:
            self._evidence += self._told_by_refusal
            self._extend_row(call)
        is_above = call.level >= self._proven
        is_first = not (self._has_taken or self.under_way)
        is_row = self._tells_of_burst and not (is_above and self.under_way)
        if self.is_back or is_first or is_row:
            self.restart() if may_fall else self._begin_anew()
            return Refusal.BURST
        is_alarm = self._evidence >= (2 * _TELLING if is_above else _TELLING)
        if not is_alarm and not (is_above and self._tells_of_limit(call, high)):
            self._learn(0 if is_above else 1)
            if self.is_shared and not is_above and call.level >= self.limit - 1:
                self._doubt(call.level)
            return Refusal.STRAY
        if may_fall:
            self._fall(call, is_alarm=is_alarm)
        return Refusal.LIMIT

    def restart(self) -> None:
        """Nobody is served. What comes after that comes back by doubling, to the limit there was
        before: what fell since then fell for that."""
        self._ramp, self._ramp_rise = 1.0, _RISE
        self._limit = self._limit_that_held
        self.is_back = True
        self._begin_anew()
        self._prove_up_to(0)

    # What other workers that ask the same server have found

    def share(self, calls: int, of: int | None) -> None:
        """It is to have a share of so many calls, instead of `of` (None: of as many as it likes).
        What it has found meanwhile counts too."""
        if self._limit == inf:
            self._limit = self._limit_that_held = calls
            self._failed_at = calls + 1.0
        elif of is None or calls == of:
            return
        else:
            change = calls - of
            self._limit = max(0.0, self._limit + change)
            self._limit_that_held = max(0.0, self._limit_that_held + change)
            self._failed_at += change
            self._alarm_at += change
        self._proves_after = self._sent
        self._prove_up_to(min(self._proven, self.limit))

    def others_fell(self) -> None:
        """They have found that too many calls were sent."""
        self._evidence = self._row = 0.0
        self._proves_after = self._sent
        self._prove_up_to(self._proven)

    def _doubt(self, level: int) -> None:
        """Whether such calls are still taken, or the server has no more room for all of its share,
        as another worker has taken it."""
        self._prove_up_to(level)
        self._refused_high = 1
        self._calls_to_prove = 1

    def _begin_anew(self) -> None:
        """What was sent until now tells no more."""
        self._burst_after = self._sent
        self._evidence = self._row = 0.0

    # What a call that was taken tells

    def _settle(self, sent_until: int) -> None:
        """Calls that went out so long ago, and are still under way, are taken."""
        while self._unknown and (
            self._unknown[0].has_ended or self._unknown[0].sent_at <= sent_until
        ):
            call = self._unknown.popleft()
            if not call.has_ended:
                self._take(call)

    def _take(self, call: Call) -> None:
        if call.is_taken:
            return
        call.is_taken = self._has_taken = True
        self._evidence = max(0.0, self._evidence - log((1 - self.strays) / (1 - _ABOVE_LIMIT)))
        if call.number > self._burst_after:
            self.is_back = False
        if call.number > self._row_after:
            self._row = 0.0
        if call.number > self._fell_after:
            self._limit_that_held = self._limit
        self._taken_since_alarm += 1
        if self._taken_since_alarm >= _CALLS_TO_FORGET:
            self._alarm_at = inf
        self._learn(0)
        self._prove(call)

    def _prove(self, call: Call) -> None:
        if call.level < self._proven or call.number <= self._proves_after:
            return
        self._taken_high.append(call.level)
        if len(self._taken_high) < self._calls_to_prove:
            return
        self._prove_up_to(min(self._taken_high) + 1)
        if self._proven >= min(self._failed_at, self.slots):
            self._failed_at = inf
            self.failed_rises //= 2

    def _prove_up_to(self, level: int) -> None:
        self._proven = level
        self._calls_to_prove = _CALLS_TO_PROVE
        self._taken_high.clear()
        self._refused_high = 0

    def _rise(self, call: Call) -> None:
        """If all that is allowed was in use since it went out, more is."""
        full_until = max(self._full_until, self._claimed_until if self.is_rising else 0)
        if not self._burst_after < call.number <= full_until or call.has_risen:
            return
        call.has_risen = True
        if self._ramp is not None:
            self._ramp += self._ramp_rise
            if self._ramp >= self.limit:
                self._ramp = None
        elif self._limit < self.slots:
            self._limit += 0.5**self.failed_rises

    # What a refusal tells

    @property
    def _told_by_refusal(self) -> float:
        return log(_ABOVE_LIMIT / self.strays)

    @property
    def _tells_of_burst(self) -> bool:
        """Where a rate is used up, some calls are refused in a moment as well, but not for as long
        as it takes others to end."""
        has_lasted = self._beside_row == 0 or self._ended_beside_row >= _CALLS_TO_LAST
        return self._row >= (_TELLING if has_lasted else _TELLING_AT_ONCE)

    def _tells_of_limit(self, call: Call, high: int) -> bool:
        """Of calls above what is proven `high` are under way. Where so many were too many before,
        again and again, that says as much as another refusal."""
        self._refused_high += 1
        refused, calls = self._refused_high, self._refused_high + high + len(self._taken_high)
        failed_before = self.failed_rises >= _FAILED_BEFORE and call.level > self._failed_at - 2
        is_no_stray = self.strays ** (refused + failed_before) <= _UNLIKELY
        return is_no_stray and refused >= _TOO_MANY * calls

    def _look_at_others(self, refused: Call) -> tuple[int, bool]:
        """How many calls are under way above what is proven; and whether many of those that went
        out at about the same time are refused. Where hundreds go out at once, all refusals come
        before it is known of the others that they are taken. Corrects the levels of those that
        went out while this one seemed to be under way."""
        high, alike_refused, alike_others = 0, 1, 0
        for call in self._unknown:
            call.level -= call.number > refused.number
            high += call.level >= self._proven and not call.has_ended
            if call is not refused and 0 <= refused.sent_at - call.sent_at <= _AT_ONCE_MS:
                is_refused = call.has_ended and not call.is_taken
                alike_refused += is_refused
                alike_others += not is_refused
        return high, alike_refused >= _TOO_MANY * (alike_refused + alike_others)

    def _extend_row(self, call: Call) -> None:
        """Unless one that went out before it, and since the row began, is under way: it would have
        been refused before."""
        if not self._row:
            self._row, self._row_after = self._told_by_refusal, self._sent
            self._beside_row, self._ended_beside_row = self.under_way, 0
        elif call.number > self._row_after:
            between = range(self._row_after + 1, call.number)
            if all(one.has_ended for one in self._unknown if one.number in between):
                self._row += self._told_by_refusal

    def _fall(self, call: Call, *, is_alarm: bool) -> None:
        """To what was under way beside it, as it went out or, if that is more, now."""
        before = min(self._limit, self.slots)
        self._limit = max(self._least, min(before - 1, max(call.level, self.under_way)))
        if is_alarm:
            is_above = call.level >= self._proven
            self._limit = max(call.level if is_above else 1.0, min(self._limit, _CUT * before))
            self._alarm_at, self._taken_since_alarm, self._evidence = before, 0, 0.0
        self._prove_up_to(min(self._proven, int(self._limit)))
        if call.number > self._fell_after:  # else it is of the same fall
            self._failed_at = before
            self.failed_rises = min(self.failed_rises + 1, _MOST_FAILED_RISES)
        self._fell_after = self._sent

    def _learn(self, refused: int) -> None:
        if self._limit <= _CUT_ENOUGH_TO_LEARN * self._alarm_at:
            share = self.strays + (refused - self.strays) / _CALLS_TO_LEARN
            self.strays = min(max(share, _FEWEST_STRAYS), _MOST_STRAYS)
