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
    down       Nobody gets through: the server cannot be reached, or one item after another is
               cut off or refused with 502, 503, 504 or 529. Pause 1, 2, 4... 30 seconds, then send
               one call to see. A call that times out says nothing about that. Whether the first
               few are the server's fault or their items' is seen only after them: `observe` leaves
               it open, and `take_late_charges` returns those that were their items' after all.

A worker that has had nothing but 429 and outages for `stall_s` is stalled, and halts.
"""

from math import ceil

from batchgen.items import Answer, Failure, Item, Reason, Trouble
from batchgen.limits.announced import ServerAllowance
from batchgen.llm.decide import Blame, wait_s

_START_CALLS = 4
_START_MS = 1500
_LONGEST_PROBE_WAIT_S = 30.0
_ITEMS_TO_BLAME_THE_SERVER = 3
# As DataDesigner and inspect_ai do: enough to end a burst, little enough not to starve.
_CUT_PER_BURST = 0.8
_GROWTH_PER_ROUND = 0.05


# An item that is to be charged for a call handed in uncharged, and what the call brought.
LateCharge = tuple[Item, Failure]


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
        self._trouble_since: int | None = None
        self._paused_at = -1
        self.paused_until = 0
        self.limited_until = 0  # the same, but for an outage
        self._bursts = 0
        self._share = 1.0
        self._failed_probes = 0
        self._without_service: dict[int, LateCharge | None] = {}  # None: it has paid
        self._late_charges: list[LateCharge] = []
        self.down = False
        self.server = ServerAllowance()

    def allowed(self, now: int) -> int:
        """How many calls may be in flight at this moment."""
        if now < self.paused_until:
            return 0
        if self.down:
            return 1
        if not self._got_reply and now - self._started_at < _START_MS:
            return min(self.slots, _START_CALLS)
        return max(1, int(self.slots * self._share))

    def call_sent(self, now: int) -> int:
        """A call goes out; returns its number. What the start allows counts from the first one."""
        if not self.server.calls:
            self._started_at = now
        return self.server.sent()

    def next_change_at(self, now: int) -> int | None:
        """When `allowed` may rise by itself."""
        if now < self.paused_until:
            return self.paused_until
        if not self._got_reply and now - self._started_at < _START_MS:
            return self._started_at + _START_MS
        return None

    def observe(self, verdict: Answer | Failure, item: Item, sent_at: int, now: int) -> Blame:
        """Learn from what a call that went out at `sent_at` brought, and say whose fault it was."""
        if isinstance(verdict, Failure) and (
            verdict.reason is Reason.CONNECTION or verdict.trouble is Trouble.UNAVAILABLE
        ):
            return self._observe_no_service(verdict, item, sent_at, now)
        tells_nothing = isinstance(verdict, Failure) and verdict.reason is Reason.TIMEOUT
        if tells_nothing and (self.down or self._without_service):
            return Blame.SERVER if self.down else Blame.ITEM
        self._got_reply = True
        self.down = False
        self._failed_probes = 0
        self._late_charges += filter(None, self._without_service.values())
        self._without_service.clear()
        if isinstance(verdict, Failure) and verdict.reason is Reason.RATE_LIMIT:
            self._observe_rate_limit(verdict, sent_at, now)
            return Blame.SERVER
        self._trouble_since = None
        self._bursts = 0
        round_of_answers = max(1.0, self.slots * self._share)
        self._share = min(1.0, self._share + _GROWTH_PER_ROUND / round_of_answers)
        return Blame.ITEM

    def take_late_charges(self) -> list[LateCharge]:
        """The items whose fault was undecided and turned out to be their own; each is returned
        once."""
        charges, self._late_charges = self._late_charges, []
        return charges

    def forget_trouble(self) -> None:
        """Somebody else held the calls back meanwhile: that is no stall."""
        self._trouble_since = None

    def stalled(self, now: int) -> str | None:
        """Why the worker should give up, in words, or None."""
        if self._trouble_since is None or now - self._trouble_since < self._stall_ms:
            return None
        what = "the server was down" if self.down else "the server answered only 429"
        return f"{what} for {self._stall_ms / 1000:g} s (work.stall_s)."

    def _observe_rate_limit(self, failure: Failure, sent_at: int, now: int) -> None:
        same_burst = sent_at <= self._paused_at
        if not same_burst:
            self._bursts += 1
            self._paused_at = now
            if self._cuts_slots:
                self._share = max(self._share * _CUT_PER_BURST, 1 / self.slots)
        self._note_trouble(now)
        asked_s = failure.retry_after_s
        if asked_s is None:
            asked_s = 0.0 if same_burst else wait_s(self._bursts - 1, self._first_wait_s)
        self._pause(now, asked_s)
        self.limited_until = max(self.limited_until, now + ceil(asked_s * 1000))

    def _observe_no_service(self, failure: Failure, item: Item, sent_at: int, now: int) -> Blame:
        if failure.trouble is Trouble.STALE_CONNECTION:
            return Blame.SERVER
        self._got_reply = self._got_reply or failure.trouble is Trouble.UNAVAILABLE
        again = item.id in self._without_service
        earlier = self._without_service.pop(item.id, None)
        self._without_service[item.id] = None if again else (item, failure)
        unreachable = failure.trouble is Trouble.UNREACHABLE
        if unreachable or len(self._without_service) >= _ITEMS_TO_BLAME_THE_SERVER:
            self.down = True
        if not self.down and again:  # and nobody was served in between: it pays for both
            self._late_charges += filter(None, [earlier])
            return Blame.ITEM
        if not self.down:
            return Blame.UNDECIDED
        self._without_service.clear()
        if sent_at > self._paused_at:
            self._paused_at = now
            self._note_trouble(now)
            probe_in_s = wait_s(self._failed_probes, self._first_wait_s, _LONGEST_PROBE_WAIT_S)
            self._pause(now, max(probe_in_s, failure.retry_after_s or 0.0))
            self._failed_probes += 1
        return Blame.SERVER

    def _note_trouble(self, now: int) -> None:
        if self._trouble_since is None:
            self._trouble_since = now

    def _pause(self, now: int, seconds: float) -> None:
        self.paused_until = max(self.paused_until, now + ceil(seconds * 1000))
