"""Those who wait for the committer: slots for their next item, and other tasks for an answer."""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from batchgen.items import Item

Ask = TypeVar("Ask")
Result = TypeVar("Result")


class Asked(Generic[Ask, Result]):
    """What was asked for and not answered yet, in its order."""

    def __init__(self) -> None:
        self._asked: list[tuple[Ask, asyncio.Future[Result]]] = []

    def __len__(self) -> int:
        return len(self._asked)

    def add(self, ask: Ask) -> asyncio.Future[Result]:
        """The future resolves to the result."""
        future = asyncio.get_running_loop().create_future()
        self._asked.append((ask, future))
        return future

    def asks(self) -> list[Ask]:
        return [ask for ask, _ in self._asked]

    def answer(self, results: Sequence[Result]) -> None:
        """Give the first ones their results. Whoever was cancelled waits no more."""
        answered, self._asked = self._asked[: len(results)], self._asked[len(results) :]
        for (_, future), result in zip(answered, results, strict=True):
            if not future.done():
                future.set_result(result)

    def pass_over_first(self) -> asyncio.Future[Result]:
        """The first one is not answered here; whoever has the future may."""
        _, future = self._asked.pop(0)
        return future


class FreeSlots:
    """Slots that wait for an item; they are given None when there will be no more."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[Item | None]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self) -> asyncio.Future[Item | None]:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return future

    def give(self, items: Iterable[Item]) -> None:
        """An item to each. Where a slot was cancelled meanwhile, and no other is free, the item
        goes back as the worker leaves."""
        for item in items:
            if (slot := self._next()) is not None:
                slot.set_result(item)

    def release(self) -> None:
        while (slot := self._next()) is not None:
            slot.set_result(None)

    def _next(self) -> asyncio.Future[Item | None] | None:
        while self._waiting:
            slot = self._waiting.popleft()
            if not slot.done():
                return slot
        return None
