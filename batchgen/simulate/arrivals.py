"""Waiting for what arrives at the simulated model, which is how tests keep step with a client."""

import asyncio
from collections.abc import Callable


class Arrivals:
    def __init__(self) -> None:
        self._watchers: list[asyncio.Future[None]] = []

    def wake(self) -> None:
        """Something has arrived, and is counted."""
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)

    async def wait_for(self, n: int, counted: Callable[[], int], timeout_s: float) -> None:
        """Until `counted` says `n`. Raises TimeoutError."""
        try:
            async with asyncio.timeout(timeout_s):
                while counted() < n:
                    watcher = asyncio.get_running_loop().create_future()
                    self._watchers.append(watcher)
                    await watcher
        except TimeoutError:
            text = f"{counted()} of {n} calls arrived in {timeout_s:g} s"
            raise TimeoutError(text) from None
