"""The time that a call may take."""

import asyncio

_READ_WHAT_HAS_ARRIVED_S = 0.1
# How long a stream whose last event has come may take to end: then its connection is of use again.
_END_OF_STREAM_S = 1.0
# How often it may take `timeout_s` in all, and what it may take however short that is.
_MOST_TIMES, _MOST_S = 10, 3600.0


class TimeLimit:
    """Cancels the task that made it when its time is over. It costs less CPU than
    `asyncio.timeout`, and an answer that has arrived by then is still read, as when the machine was
    suspended."""

    def __init__(self, timeout_s: float) -> None:
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._over = False
        now = self._loop.time()
        self._due = now + timeout_s
        self._end = now + max(_MOST_TIMES * timeout_s, _MOST_S)
        self._timer = self._loop.call_at(self._due, self._read_what_has_arrived)

    def begin_again(self, nothing_follows: bool) -> None:
        """The time begins again, but not without end; a stream of which nothing follows must soon
        have ended."""
        if nothing_follows:
            self.lift()
            self._due = self._loop.time() + _END_OF_STREAM_S
            self._timer = self._loop.call_at(self._due, self._read_what_has_arrived)
        else:  # a timer for each event would cost more than the rest of it
            self._due = min(self._loop.time() + self._timeout_s, self._end)

    def lift(self) -> None:
        self._timer.cancel()

    def is_why_it_was_cancelled(self) -> bool:
        """To be asked once, when the task was cancelled. False when somebody else cancelled too."""
        return self._over and self._task is not None and self._task.uncancel() == 0

    def _read_what_has_arrived(self) -> None:
        if not self._has_begun_again():
            self._timer = self._loop.call_later(_READ_WHAT_HAS_ARRIVED_S, self._cancel)

    def _has_begun_again(self) -> bool:
        if self._loop.time() >= self._due:
            return False
        self._timer = self._loop.call_at(self._due, self._read_what_has_arrived)
        return True

    def _cancel(self) -> None:
        if self._has_begun_again():
            return
        self._over = True
        if self._task is not None:
            self._task.cancel()
