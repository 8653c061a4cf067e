"""How many calls are in flight, and whether one more may go out; and how many rows of the user's
functions are, which make no call.

A claim takes a permit at its server when a slot gets it, and gives it back when its outcome is
handed in. With `--hedge` an item's second call needs one too, at another server where there is one.
Second calls that wait come before items that could be claimed; one whose first call has ended
meanwhile waits no more.
"""

import asyncio
from collections import deque
from collections.abc import Iterable

from batchgen.items import Item
from batchgen.worker.servers import Servers

# Rows that functions end: as many as keep all threads busy while others are written.
CODE_SLOTS = 16
_SecondCall = tuple[Item, "asyncio.Future[str | None]"]


class Permits:
    """The permits of one worker; time is passed in (of `clock_ms`)."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._waiting: deque[_SecondCall] = deque()
        self._code_running = 0

    @property
    def in_flight(self) -> int:
        return self._servers.in_flight

    def take(self, items: Iterable[Item]) -> None:
        for item in items:
            if item.runs_code:
                self._code_running += 1
            else:
                self._servers.take(item.server)

    def end(self, item: Item) -> None:
        """What became of a claim is handed in."""
        if item.runs_code:
            self._code_running -= 1
        else:
            self.give_back(item.server)

    def give_back(self, server: str) -> None:
        self._servers.give_back(server)

    def for_claims(self, now: int) -> int:
        """How many items may be claimed; below one when there is no room for any."""
        return self._servers.room(now) - len(self._waiting)

    @property
    def for_code(self) -> int:
        """How many rows of functions may be claimed."""
        return CODE_SLOTS - self._code_running

    def for_second_calls(self, now: int) -> int:
        """How many of the second calls that wait may go out."""
        if not self._waiting:
            return 0
        self._waiting = deque(call for call in self._waiting if not call[1].done())
        able = sum(
            self._servers.elsewhere(item.server, now) is not None for item, _ in self._waiting
        )
        return min(self._servers.room(now), able)

    def wait_for_second_call(self, item: Item) -> "asyncio.Future[str | None]":
        """Wait in the queue; the future resolves to the server that the item's second call may go
        to, or None."""
        may_go_out = asyncio.get_running_loop().create_future()
        self._waiting.append((item, may_go_out))
        return may_go_out

    def take_for_second_calls(
        self, now: int
    ) -> list[tuple[Item, str, "asyncio.Future[str | None]"]]:
        """The second calls that may go out now, and where to. Their permits are taken; the caller
        resolves their futures."""
        calls, waiting = [], self._waiting
        self._waiting = deque()
        for item, may_go_out in waiting:
            server = None if may_go_out.done() else self._servers.elsewhere(item.server, now)
            if server is None:
                self._waiting.append((item, may_go_out))
                continue
            self._servers.take(server.key)
            calls.append((item, server.key, may_go_out))
        return calls
