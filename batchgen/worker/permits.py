"""How many calls are in flight, and whether one more may go out.

A claim takes a permit when a slot gets it, and gives it back when its outcome is handed in. With
`--hedge` an item's second call needs one too. Second calls that wait come before items that could
be claimed; one whose first call has ended meanwhile waits no more.
"""

import asyncio
from collections import deque

from batchgen.items import Item
from batchgen.worker.pacer import Pacer

_SecondCall = tuple[Item, asyncio.Future[bool]]


class Permits:
    """The permits of one worker; time is passed in (of `clock_ms`). `in_flight` are taken."""

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer
        self._waiting: deque[_SecondCall] = deque()
        self.in_flight = 0

    def take(self, calls: int = 1) -> None:
        self.in_flight += calls

    def give_back(self) -> None:
        self.in_flight -= 1

    def for_claims(self, now: int) -> int:
        """How many items may be claimed; below one when there is no room for any."""
        return self._pacer.allowed(now) - self.in_flight - len(self._waiting)

    def for_second_calls(self, now: int) -> int:
        """How many of the second calls that wait may go out."""
        if not self._waiting:
            return 0
        self._waiting = deque(call for call in self._waiting if not call[1].done())
        return max(0, min(self._pacer.allowed(now) - self.in_flight, len(self._waiting)))

    def wait_for_second_call(self, item: Item) -> asyncio.Future[bool]:
        """Wait in the queue; the future resolves to whether the item's second call may go out."""
        may_go_out = asyncio.get_running_loop().create_future()
        self._waiting.append((item, may_go_out))
        return may_go_out

    def take_for_second_calls(self, now: int) -> list[_SecondCall]:
        """The second calls that may go out now. Their permits are taken; the caller resolves their
        futures."""
        calls = [self._waiting.popleft() for _ in range(self.for_second_calls(now))]
        self.take(len(calls))
        return calls
