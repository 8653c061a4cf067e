"""How many calls a worker may have in flight at one server: all its slots, fewer, or none for a
while.

One `Pacer` a worker and server; time is passed in (of `clock_ms`). How many may go out in a minute,
of all workers together, is not its matter (limits/buckets.py). It joins what holds them back:

    refusals   The controller finds how many calls at once the server takes (controller.py). When
               it takes none, the worker pauses once, for as long as the server asks, or for 1, 2,
               4... 60 s when it does not say, and at most for a quarter of the time that it has
               lasted, or 5 s. With `--adaptive` a 429 leaves the slots: it cuts the rate. A 429
               of an item or model that is refused while others are served concerns that alone
               (refused_items.py, model_refusals.py).
    announced  The server says that it has no room for more calls now (announced.py).
    down       Nobody gets through (blame.py), whatever comes instead. Then one call now and then
               is sent to see: after 1, 2, 3 s, and then after a twentieth of the time that it has
               lasted, up to 30 s. A server that has answered nobody yet, and is there but says 5xx,
               may be dead: these pauses double up to a twelfth of `stall_s`.

A worker that has had no success for `stall_s`, whatever came instead, is stalled, and halts
(stall.py). When a server announces that it has no room for longer than that, it is asked once all
the same: if it answers, what it announces is not true, and counts no more; if it refuses, the
worker halts.
"""

from math import ceil
from typing import TypeGuard

from batchgen.items import Answer, Failure, Item, Reason, Trouble
from batchgen.limits.announced import ServerAllowance
from batchgen.llm.decide import Blame, wait_s
from batchgen.store.trial import MOST_FIRST_CALLS
from batchgen.worker.blame import BlameForNoService, LateCharge
from batchgen.worker.controller import Call, Controller, Refusal
from batchgen.worker.model_refusals import ModelRefusals
from batchgen.worker.refusals_seen import RefusalsSeen
from batchgen.worker.refused_items import RefusedItems
from batchgen.worker.sharing import Sharing
from batchgen.worker.stall import StallWatch, is_429, is_success

_START_CALLS = 4
_START_MS = 1500
_AT_WORK_MS = 8000
_ALL_CALLS = 1_000_000
_LONGEST_PAUSE_S, _SHORTEST_LONG_PAUSE_S, _PAUSE_SHARE = 60.0, 5.0, 1 / 4
_LONGEST_PROBE_WAIT_S, _SHORTEST_LONG_PROBE_WAIT_S, _PROBE_WAIT_SHARE = 30.0, 3.0, 1 / 20
# Of a server that has answered nobody: few enough that the calls until `stall_s` stay few.
_FIRST_PROBE_WAITS = 12
_NOT_NOW = (Trouble.UNAVAILABLE, Trouble.TOO_LATE, Trouble.UNREACHABLE)
_NO_SERVICE = (Reason.CONNECTION, Reason.SERVER, Reason.TIMEOUT)
# Where a refused call was the only one, the next one of these waits for a moment.
_REST_MS = 100


class Pacer:
    """`slots` may be changed at any time; `known` is how many calls at once the server takes, as
    others have found."""

    def __init__(
        self, slots: int, stall_s: float, now: int, *,
        first_wait_s: float = 1.0, cuts_slots: bool = True, known: int | None = None,
    ) -> None:  # fmt: skip
        self.controller = Controller(slots, known)
        self.sharing = Sharing(self.controller)
        self.server = ServerAllowance()
        self.paused_until = 0
        self.limited_until = 0  # the same, but for an outage
        self._first_wait_s = first_wait_s
        self._longest_first_wait_s = max(_LONGEST_PROBE_WAIT_S, stall_s / _FIRST_PROBE_WAITS)
        # Longer ones are the server's to ask for.
        self._longest_pause_s = min(_LONGEST_PAUSE_S, stall_s)
        self._cuts_slots = cuts_slots
        self._started_at = now
        self._got_reply = False
        self._tried_against_announced = False
        self._refused_as_announced = False
        self._paused_at = -1
        self._rests_until = 0
        self.asked_until = 0  # some item waits so long, as the server has refused it
        self._trouble_began_at = now  # the bursts or probes that are counted
        self._bursts = 0
        self._failed_probes = 0
        self._stall = StallWatch(stall_s, now)
        self._blame = BlameForNoService()
        self._refused = RefusedItems()
        self.refusals = RefusalsSeen()
        self._models = ModelRefusals()

    @property
    def slots(self) -> int:
        return self.controller.slots

    @slots.setter
    def slots(self, slots: int) -> None:
        self.controller.slots = slots

    def allowed(self, now: int) -> int:
        """How many calls may be in flight at this moment."""
        if now < max(self.paused_until, self._rests_until):
            return 0
        allowed = self.controller.allowed(now)
        return min(1, allowed) if self.down else allowed

    @property
    def all_paused_until(self) -> int:
        """Until when no worker is to send. With `--adaptive` a burst is one of a rate that all
        share; else it may be that the others have taken all that the server takes at once."""
        return 0 if self._cuts_slots else self.limited_until

    @property
    def down(self) -> bool:
        """Whether the server answers nobody."""
        return self._blame.down

    @property
    def probes(self) -> int | None:
        """How many calls have been sent in vain to see whether the server answers again; None: it
        is not down."""
        return self._failed_probes if self.down else None

    def first_calls(self, now: int) -> int:
        """How many calls of a recipe that nobody has been answered to may be in flight, of all
        workers together. Who takes so long is at work: a refusal would have come."""
        is_starting = not self._got_reply and now - self._started_at < _START_MS
        if is_starting or self._stall.is_in_trouble:
            return _START_CALLS
        is_at_work = not self._got_reply and now - self._started_at >= _AT_WORK_MS
        return _ALL_CALLS if is_at_work and self.server.calls else MOST_FIRST_CALLS

    def room_at_server(self, call_tokens: float, in_flight: int, now: int) -> float:
        """How many more calls the server would take, by what it announces; when that is none for
        longer than `stall_s`, one call is sent to see. `in_flight` are claimed: those of them that
        were not sent yet take from it too."""
        not_sent = max(0, in_flight - self.controller.under_way)
        room = self.server.calls_left(call_tokens, now) - not_sent
        may_try = room < 1 and in_flight == 0 and not self._tried_against_announced
        if may_try and self._stall.is_long(self.server.full_at(call_tokens, now), now):
            return 1
        return room

    def call_sent(self, now: int, model: str = "") -> Call:
        """A call goes out, for `model`. What the start allows counts from the first one."""
        if not self.server.calls:
            self._started_at = now
        self._tried_against_announced = self._stall.is_long(self.server.full_at(1.0, now), now)
        self.server.sent()
        return self.controller.sent(now, model)

    def call_ended(self, call: Call) -> None:
        """It has its reply, or was abandoned."""
        self.controller.left(call)

    def next_change_at(self, now: int) -> int | None:
        """When `allowed` may rise by itself."""
        if now < (held_until := max(self.paused_until, self._rests_until)):
            return held_until
        return None if self.down else self.controller.next_rise_at(now)

    def observe(
        self, verdict: Answer | Failure, item: Item, call: Call, now: int, *,
        is_last_try: bool = False,
    ) -> Blame:  # fmt: skip
        """Learn from what a call brought, and say whose fault it was."""
        self.controller.left(call)
        self._stall.observe(verdict, call.sent_at, self.paused_until, now)
        self._observe_announced(verdict, now)
        if self._is_refusal(verdict, now):
            return self._observe_refusal(verdict, item, call, now)
        if _is_no_service(verdict):
            return self._observe_no_service(verdict, item, call, now, is_last_try=is_last_try)
        self._served(call)
        self.refusals.served()
        self.controller.taken(call)
        self.sharing.served(now)
        self._refused.served(item.id)
        self._models.taken(call.model)
        if call.sent_at > self._paused_at:
            self._bursts = 0
        return Blame.ITEM

    def refusals_in_a_row(self, item: Item, call: Call) -> int:
        """How often the item was refused since it was last served; or its model, if that has a
        limit of its own."""
        of_item = self._refused.in_a_row(item.id)
        is_of_model = self._models.is_its_own(call.model)
        return max(of_item, self._models.in_a_row(call.model)) if is_of_model else of_item

    def take_late_charges(self) -> list[LateCharge]:
        """The items whose fault was undecided and turned out to be their own; each is returned
        once."""
        return self._blame.take_late_charges()

    def forget_trouble(self) -> None:
        """Somebody else held the calls back meanwhile: that is no stall."""
        self._stall.forget()

    def waits(self, now: int) -> bool:
        """Whether the server has asked that a call wait: of all, or of some item."""
        return now < max(self.paused_until, self.asked_until)

    def wants_long_wait(self, now: int) -> str | None:
        """Why no worker is to wait for the server, in words, or None."""
        if self._refused_as_announced:
            return (
                "the server says that nothing is left for longer than work.stall_s, and means it."
            )
        if not self.controller.under_way and self._stall.is_long(self.limited_until, now):
            wait_min = (self.limited_until - now) / 60_000
            return (
                f"the server wants no calls for {wait_min:.0f} min, longer than work.stall_s: run "
                "the same command again then, or raise it."
            )
        return None

    def stalled(self, now: int) -> str | None:
        """Why the worker should give up, in words, or None."""
        return self.wants_long_wait(now) or self._stall.stalled(
            now, paused_until=self.paused_until, down=self.down
        )

    def _observe_announced(self, verdict: Answer | Failure, now: int) -> None:
        """Whether the call that was sent against what the server announces was served."""
        if not self._tried_against_announced:
            return
        if is_success(verdict):
            self._tried_against_announced = False
            self.server.disbelieve()
        elif is_429(verdict):
            self._refused_as_announced = self._stall.is_long(self.server.next_at(1.0, now), now)

    def _is_refusal(self, verdict: Answer | Failure, now: int) -> TypeGuard[Failure]:
        """What else than a 429 says so only while others are served: else the server is down."""
        if not isinstance(verdict, Failure):
            return False
        if verdict.reason is Reason.RATE_LIMIT:
            return True
        if verdict.trouble not in _NOT_NOW or self.down:
            return False
        others = verdict.trouble is not Trouble.UNREACHABLE and self.sharing.others_are_served(now)
        return self.controller.serves or others

    def _observe_refusal(self, failure: Failure, item: Item, call: Call, now: int) -> Blame:
        is_limited = failure.reason is Reason.RATE_LIMIT
        if is_limited:
            self._served(call)
            self._models.refused(call.model)
            if self._models.is_its_own(call.model):
                return self._refused_for_its_model(failure, item, call)
        refusal = self.controller.refused(call, now, may_fall=self._cuts_slots or not is_limited)
        is_alone = not self.controller.under_way
        self.refusals.refused(failure, by_limit=refusal is not Refusal.STRAY)
        self.asked_until = max(self.asked_until, now + ceil(1000 * (failure.retry_after_s or 0)))
        self._refused.refused(item.id, may_be_its_own=refusal is Refusal.STRAY or is_alone)
        if refusal is Refusal.BURST:
            self.sharing.burst(now)
            self._pause_for_burst(failure, now)
        elif refusal is Refusal.SAME and failure.retry_after_s:
            self._pause_for_limit(failure.retry_after_s, now)
        elif is_alone:
            self._rests_until = now + _REST_MS
        if is_limited:
            others = Blame.STRAY if refusal is Refusal.STRAY else Blame.LIMIT
            return Blame.ITEM if self._refused.is_at_fault(item.id) else others
        if refusal is Refusal.STRAY:
            return self._blame.not_served(failure, item, now, tells=False)
        return Blame.LIMIT

    def _refused_for_its_model(self, failure: Failure, item: Item, call: Call) -> Blame:
        serves = self._models.serves(call.model)
        self.refusals.refused(failure, by_limit=False)
        self._refused.refused(item.id, may_be_its_own=not serves)
        return Blame.ITEM if self._refused.is_at_fault(item.id) else Blame.LIMIT

    def _observe_no_service(
        self, failure: Failure, item: Item, call: Call, now: int, *, is_last_try: bool
    ) -> Blame:
        if failure.trouble is Trouble.STALE_CONNECTION:
            return Blame.SERVER
        self._got_reply = self._got_reply or failure.reason is Reason.SERVER
        was_down = self.down
        blame = self._blame.not_served(failure, item, now, is_last_try=is_last_try)
        if self.down and not was_down:
            self.controller.restart()
            self._trouble_began_at = now
        if self.down:
            self.sharing.burst(now)
        if self.down and blame is Blame.SERVER and call.sent_at > self._paused_at:
            self._paused_at = now
            self._pause(now, max(self._probe_in_s(failure, now), failure.retry_after_s or 0.0))
            self._failed_probes += 1
        return blame

    def _served(self, call: Call) -> None:
        self._got_reply = True
        self._failed_probes = 0
        self._blame.served(call.sent_at)

    def _pause_for_burst(self, failure: Failure, now: int) -> None:
        if not self._bursts:
            self._trouble_began_at = now
        lasted_s = (now - self._trouble_began_at) / 1000
        longest_s = max(_SHORTEST_LONG_PAUSE_S, lasted_s * _PAUSE_SHARE)
        longest_s = min(longest_s, self._longest_pause_s)
        pause_s = failure.retry_after_s or wait_s(self._bursts, self._first_wait_s, longest_s)
        self._bursts += 1
        self._paused_at = now
        self._pause_for_limit(pause_s, now)

    def _pause_for_limit(self, seconds: float, now: int) -> None:
        self._pause(now, seconds)
        self.limited_until = max(self.limited_until, now + ceil(seconds * 1000))

    def _probe_in_s(self, failure: Failure, now: int) -> float:
        may_be_dead = failure.reason is Reason.SERVER and failure.trouble is None
        if may_be_dead and not self._stall.was_answered:
            longest_s = self._longest_first_wait_s
        else:
            lasted_s = (now - self._trouble_began_at) / 1000
            longest_s = max(_SHORTEST_LONG_PROBE_WAIT_S, lasted_s * _PROBE_WAIT_SHARE)
            longest_s = min(longest_s, _LONGEST_PROBE_WAIT_S)
        return wait_s(self._failed_probes, self._first_wait_s, longest_s)

    def _pause(self, now: int, seconds: float) -> None:
        self.paused_until = max(self.paused_until, now + ceil(seconds * 1000))


def _is_no_service(verdict: Answer | Failure) -> TypeGuard[Failure]:
    if isinstance(verdict, Answer):
        return False
    return verdict.reason in _NO_SERVICE or verdict.trouble is Trouble.NOWHERE
