"""How many calls a worker may have in flight: all its slots, fewer, or none for a while.

One `Pacer` a worker; time is passed in (of `clock_ms`). How many may go out in a minute, of all
workers together, is not its matter (buckets.py). It knows four reasons to hold back:

    start      The first calls go out few, until something came back or a moment has passed: a
               wrong key costs a handful of calls, not one a slot.
    limited    A burst of 429 pauses the whole worker once, for as long as the server asks, or for
               1, 2, 4... seconds when it does not say, and takes a fifth of its slots out of use.
               They come back slowly, a twentieth of all for each round of answers. Replies to
               calls that went out before the pause belong to the same burst. With `--adaptive`
               the slots stay: the rate is cut, for all workers, and both limits would apply.
    announced  The server says that it has no room for more calls now (announced.py).
    down       Nobody gets through (blame.py). Pause 1, 2, 4... 30 seconds, then send one call to
               see. A server that has answered nobody yet, and is there but says 5xx, may be dead:
               these pauses go on to double. A call that times out says nothing about that.

A worker that has had no success for `stall_s`, whatever came instead, is stalled, and halts. When a
server announces that it has no room for longer than that, it is asked once all the same: if it
answers, what it announces is not true, and counts no more; if it refuses, the worker halts.
"""

from math import ceil, inf
from typing import TypeGuard

from batchgen.items import Answer, Failure, Item, Reason, Trouble
from batchgen.limits.announced import ServerAllowance
from batchgen.llm.decide import Blame, wait_s
from batchgen.store.trial import MOST_FIRST_CALLS
from batchgen.worker.blame import BlameForNoService, LateCharge

_START_CALLS = 4
_START_MS = 1500
_AT_WORK_MS = 8000
_ALL_CALLS = 1_000_000
_LONGEST_PROBE_WAIT_S = 30.0
# Longer than an item waits for its next try: then the worker had nothing to ask.
_IDLE_MS = 120_000
# As DataDesigner and inspect_ai do: enough to end a burst, little enough not to starve.
_CUT_PER_BURST = 0.8
_GROWTH_PER_ROUND = 0.05


class Pacer:
    """`slots` may be changed at any time."""

    def __init__(
        self, slots: int, stall_s: float, now: int, *,
        first_wait_s: float = 1.0, cuts_slots: bool = True,
    ) -> None:  # fmt: skip
        self.slots = slots
        self._first_wait_s = first_wait_s
        self._cuts_slots = cuts_slots
        self._stall_ms = int(stall_s * 1000)
        self._started_at = now
        self._got_reply = False
        self._was_answered = False
        self._trouble_since: int | None = None
        self._only_429 = False
        self._replied_at = now
        self._calls_in_flight = 0
        self._tried_against_announced = False
        self._refused_as_announced = False
        self._paused_at = -1
        self.paused_until = 0
        self.limited_until = 0  # the same, but for an outage
        self._bursts = 0
        self._share = 1.0
        self._failed_probes = 0
        self._blame = BlameForNoService()
        self.server = ServerAllowance()

    def allowed(self, now: int) -> int:
        """How many calls may be in flight at this moment."""
        if now < self.paused_until:
            return 0
        if self.down:
            return 1
        if self._is_starting(now):
            return min(self.slots, _START_CALLS)
        return max(1, int(self.slots * self._share))

    @property
    def down(self) -> bool:
        """Whether the server answers nobody."""
        return self._blame.down

    @property
    def probes(self) -> int | None:
        """How many calls have been sent in vain to see whether the server answers again; None: it
        is not down."""
        return self._failed_probes if self.down else None

    @property
    def usable_slots(self) -> int:
        """How many are left of all slots after bursts of 429, while there is no pause."""
        return max(1, int(self.slots * self._share))

    def first_calls(self, now: int) -> int:
        """How many calls of a recipe that nobody has been answered to may be in flight, of all
        workers together. Who takes so long is at work: a refusal would have come."""
        is_in_trouble = self._trouble_since is not None and not self._only_429
        if self._is_starting(now) or is_in_trouble:
            return _START_CALLS
        is_at_work = not self._got_reply and now - self._started_at >= _AT_WORK_MS
        return _ALL_CALLS if is_at_work and self.server.calls else MOST_FIRST_CALLS

    def room_at_server(self, call_tokens: float, in_flight: int, now: int) -> float:
        """How many more calls the server would take, by what it announces; when that is none for
        longer than `stall_s`, one call is sent to see. `in_flight` are claimed: those of them that
        were not sent yet take from it too."""
        not_sent = max(0, in_flight - self._calls_in_flight)
        room = self.server.calls_left(call_tokens, now) - not_sent
        may_try = room < 1 and in_flight == 0 and not self._tried_against_announced
        if may_try and self._is_long(self.server.full_at(call_tokens, now), now):
            return 1
        return room

    def call_sent(self, now: int) -> int:
        """A call goes out; returns its number. What the start allows counts from the first one."""
        if not self.server.calls:
            self._started_at = now
        self._tried_against_announced = self._is_long(self.server.full_at(1.0, now), now)
        self._calls_in_flight += 1
        return self.server.sent()

    def call_ended(self) -> None:
        """It has its reply, or was abandoned."""
        self._calls_in_flight -= 1

    def next_change_at(self, now: int) -> int | None:
        """When `allowed` may rise by itself."""
        if now < self.paused_until:
            return self.paused_until
        if self._is_starting(now):
            return self._started_at + _START_MS
        return None

    def observe(
        self, verdict: Answer | Failure, item: Item, sent_at: int, now: int, *,
        is_last_try: bool = False,
    ) -> Blame:  # fmt: skip
        """Learn from what a call that went out at `sent_at` brought, and say whose fault it was."""
        self._follow_success(verdict, sent_at, now)
        if _is_no_service(verdict):
            return self._observe_no_service(verdict, item, sent_at, now, is_last_try=is_last_try)
        tells_nothing = isinstance(verdict, Failure) and verdict.reason is Reason.TIMEOUT
        if tells_nothing and self._blame.is_open:
            return Blame.SERVER if self.down else Blame.ITEM
        self._got_reply = True
        self._failed_probes = 0
        self._blame.served(sent_at)
        if isinstance(verdict, Failure) and verdict.reason is Reason.RATE_LIMIT:
            self._observe_rate_limit(verdict, sent_at, now)
            return Blame.SERVER
        self._bursts = 0
        round_of_answers = max(1.0, self.slots * self._share)
        self._share = min(1.0, self._share + _GROWTH_PER_ROUND / round_of_answers)
        return Blame.ITEM

    def take_late_charges(self) -> list[LateCharge]:
        """The items whose fault was undecided and turned out to be their own; each is returned
        once."""
        return self._blame.take_late_charges()

    def forget_trouble(self) -> None:
        """Somebody else held the calls back meanwhile: that is no stall."""
        self._trouble_since = None

    def stalled(self, now: int) -> str | None:
        """Why the worker should give up, in words, or None."""
        if self._refused_as_announced:
            return (
                "the server says that nothing is left for longer than work.stall_s, and means it."
            )
        since = self._trouble_since
        if since is None and now < self.paused_until:
            since = self._replied_at  # answers to calls that were under way when the pause began
        if since is None or now - since < self._stall_ms:
            return None
        what = "nothing was answered"
        if self.down:
            what = "the server was down"
        elif self._only_429:
            what = "the server answered only 429"
        return f"{what} for {self._stall_ms / 1000:g} s (work.stall_s)."

    def _follow_success(self, verdict: Answer | Failure, sent_at: int, now: int) -> None:
        """For how long there has been none; not while the worker had nothing to ask."""
        was_idle = sent_at > max(self._replied_at, self.paused_until) + _IDLE_MS
        self._replied_at = now
        was_a_try = self._tried_against_announced
        if isinstance(verdict, Answer) or verdict.reason is Reason.REFUSAL:
            self._trouble_since = None
            self._was_answered = True
            if was_a_try:
                self._tried_against_announced = False
                self.server.disbelieve()
            return
        is_429 = verdict.reason is Reason.RATE_LIMIT
        if was_a_try and is_429:
            self._refused_as_announced = self._is_long(self.server.next_at(1.0, now), now)
        if self._trouble_since is None or was_idle:
            self._trouble_since, self._only_429 = now, True
        self._only_429 = self._only_429 and is_429

    def _observe_rate_limit(self, failure: Failure, sent_at: int, now: int) -> None:
        same_burst = sent_at <= self._paused_at
        if not same_burst:
            self._bursts += 1
            self._paused_at = now
            if self._cuts_slots:
                self._share = max(self._share * _CUT_PER_BURST, 1 / self.slots)
        asked_s = failure.retry_after_s
        if asked_s is None:
            asked_s = 0.0 if same_burst else wait_s(self._bursts - 1, self._first_wait_s)
        self._pause(now, asked_s)
        self.limited_until = max(self.limited_until, now + ceil(asked_s * 1000))

    def _observe_no_service(
        self, failure: Failure, item: Item, sent_at: int, now: int, *, is_last_try: bool
    ) -> Blame:
        if failure.trouble is Trouble.STALE_CONNECTION:
            return Blame.SERVER
        self._got_reply = self._got_reply or failure.reason is Reason.SERVER
        blame = self._blame.not_served(failure, item, now, is_last_try=is_last_try)
        if blame is Blame.SERVER and sent_at > self._paused_at:
            self._paused_at = now
            self._pause(now, max(self._probe_in_s(failure), failure.retry_after_s or 0.0))
            self._failed_probes += 1
        return blame

    def _probe_in_s(self, failure: Failure) -> float:
        may_be_dead = failure.reason is Reason.SERVER and failure.trouble is None
        longest_s = inf if may_be_dead and not self._was_answered else _LONGEST_PROBE_WAIT_S
        return wait_s(self._failed_probes, self._first_wait_s, longest_s)

    def _is_starting(self, now: int) -> bool:
        return not self._got_reply and now - self._started_at < _START_MS

    def _is_long(self, at: int | None, now: int) -> bool:
        return at is not None and at - now > self._stall_ms

    def _pause(self, now: int, seconds: float) -> None:
        self.paused_until = max(self.paused_until, now + ceil(seconds * 1000))


def _is_no_service(verdict: Answer | Failure) -> TypeGuard[Failure]:
    return isinstance(verdict, Failure) and verdict.reason in (Reason.CONNECTION, Reason.SERVER)
