"""One worker's share of the calls that a server takes at once, among all that ask it. Pure: time is
passed in (of `clock_ms`).

What its controller finds is told to the others with what is written anyway, and what it is told
goes to its controller. When the others have found that too many calls were sent, what the
controller saw before tells no more. Where no call of its own was taken, but those of others were,
it makes do with one, and then with none for a while: whether the server takes fewer in all is found
by those that get them instead.
"""

from batchgen.limits import Share, Told
from batchgen.worker.controller import Controller

# How often to look whether others have found something, before this worker has.
_LOOK_EVERY_MS = 1000
# The others tell of their newest answers now and then.
_SERVED_LATELY_MS = 3000
_RETREAT_MS = 20_000


class Sharing:
    """Of one controller. Tell it when a call is `served`, and when a `burst` is seen."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._told_rises = self._tells_rises = controller.failed_rises
        self._all_calls: int | None = None
        self._look_at = 0
        self._served_at: int | None = None
        self._others_served_at: int | None = None
        self._burst_at: int | None = None  # the first of those since when no call was served
        self._retreats_until = 0

    def served(self, now: int) -> None:
        self._served_at = now
        self._burst_at = None

    def burst(self, now: int) -> None:
        if self._burst_at is None:
            self._burst_at = now

    def others_are_served(self, now: int) -> bool:
        """Whether some other worker was lately."""
        served_at = self._others_served_at
        return served_at is not None and now - served_at < _SERVED_LATELY_MS

    def tells(self, in_flight: int, needs: int, now: int) -> Told | None:
        """What to tell the others; None: nothing new, nor is it time to ask."""
        controller = self._controller
        if controller.takes is None and now < self._look_at:
            return None
        self._look_at = now + _LOOK_EVERY_MS
        self._tells_rises = controller.failed_rises
        if controller.is_back:
            needs = min(needs, 0 if now < self._retreats_until else 1)
        has_changed = self._tells_rises != self._told_rises
        return Told(
            controller.takes, in_flight, needs,
            served_ms=None if self._served_at is None else now - self._served_at,
            failed_rises=self._tells_rises if has_changed else None,
            all_calls=self._all_calls,
        )  # fmt: skip

    def begin_anew(self, calls: int | None) -> None:
        """The worker has joined again, with such a share."""
        if calls is not None:
            self._controller.share(calls, self._controller.takes)
        self._all_calls = None

    def follow(self, share: Share, now: int) -> None:
        """What it was told."""
        controller = self._controller
        controller.is_shared = share.is_shared
        controller.share(share.calls, share.takes)
        if controller.failed_rises == self._tells_rises:
            controller.failed_rises = share.failed_rises
        self._told_rises = share.failed_rises
        self._all_calls = share.all_calls
        if share.has_fallen:
            controller.others_fell()
        if share.served_ms is not None:
            self._others_served_at = now - share.served_ms
            if self._burst_at is not None and self._others_served_at > self._burst_at:
                self._burst_at = None
                if share.calls <= 1:
                    self._retreats_until = now + _RETREAT_MS
