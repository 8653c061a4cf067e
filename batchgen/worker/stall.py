"""For how long nothing has succeeded, whatever came instead. Pure: time is passed in."""

from batchgen.items import Answer, Failure, Reason

# Longer than an item waits for its next try: then the worker had nothing to ask.
_IDLE_MS = 120_000


class StallWatch:
    """Of one worker and server."""

    def __init__(self, stall_s: float, now: int) -> None:
        self._stall_ms = int(stall_s * 1000)
        self._trouble_since: int | None = None
        self._only_429 = False
        self._replied_at = now
        self.was_answered = False

    def observe(self, verdict: Answer | Failure, sent_at: int, paused_until: int, now: int) -> None:
        """A reply came; not while the worker had nothing to ask."""
        was_idle = sent_at > max(self._replied_at, paused_until) + _IDLE_MS
        self._replied_at = now
        if is_success(verdict):
            self._trouble_since = None
            self.was_answered = True
            return
        if self._trouble_since is None or was_idle:
            self._trouble_since, self._only_429 = now, True
        self._only_429 = self._only_429 and is_429(verdict)

    def forget(self) -> None:
        """Somebody else held the calls back meanwhile."""
        self._trouble_since = None

    @property
    def is_in_trouble(self) -> bool:
        """Whether the newest reply was no success, nor a 429."""
        return self._trouble_since is not None and not self._only_429

    def is_long(self, at: int | None, now: int) -> bool:
        """Whether it is longer until `at` than may be waited."""
        return at is not None and at - now > self._stall_ms

    def stalled(self, now: int, *, paused_until: int, down: bool) -> str | None:
        """Why the worker should give up, in words, or None."""
        since = self._trouble_since
        if since is None and now < paused_until:
            since = self._replied_at  # answers to calls that were under way when the pause began
        if since is None or now - since < self._stall_ms:
            return None
        what = "nothing was answered"
        if down:
            what = "the server was down"
        elif self._only_429:
            what = "the server answered only 429"
        return f"{what} for {self._stall_ms / 1000:g} s (work.stall_s)."


def is_success(verdict: Answer | Failure) -> bool:
    return isinstance(verdict, Answer) or verdict.reason is Reason.REFUSAL


def is_429(verdict: Answer | Failure) -> bool:
    return isinstance(verdict, Failure) and verdict.reason is Reason.RATE_LIMIT
