"""The thread on which a connection lives: one function after another, each to its end.

A server that stands still (a machine that was suspended, a disk that hangs) ends nothing, and no
timeout of the network sees it. So who has no more time has the connection cut, and where that does
not help, as there is none yet, leaves the thread alone with what it does.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from batchgen.errors import Remedy, StoreAwayError
from batchgen.shutdown import uninterrupted

HURRIED_S = 5.0  # so long who has no time waits for an answer
_CUT_S = 1.0  # so long it takes at most to hear that the connection is lost

T = TypeVar("T")


class Thread:
    """It is a daemon: a second Ctrl-C ends the event loop wherever it is, and then nobody ends the
    thread, for which the exit must not wait.

    `impatient` is set while somebody waits for the end, whichever it is. `cut` is what makes a
    function hear that its connection is lost.
    """

    def __init__(self, name: str) -> None:
        self.impatient = threading.Event()
        self.cut: Callable[[], None] = lambda: None
        self._name = name
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._waited_for: set[asyncio.Future[Any]] = set()
        self._since_s: float | None = None  # of the monotonic clock; none: nothing is under way
        self._is_hurried = False
        self._is_left = False
        threading.Thread(target=self._work, name="postgres", daemon=True).start()

    async def run(self, function: Callable[[], T]) -> T:
        """Its result, also when cancelled: then `impatient` is set while it goes on, and when that
        takes long, what it waits for is cut off."""
        if self._is_left:
            raise self._no_answer()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waited_for.add(future)
        self._calls.put(lambda: _settle(loop, future, function))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self.impatient.set()
            try:
                await uninterrupted(self._end_of(future))
            finally:
                if not self._is_hurried:
                    self.impatient.clear()
            if future.done() and not future.cancelled():
                future.exception()  # marks it as retrieved: there is nobody to raise it to
            raise
        finally:
            self._waited_for.discard(future)

    def hurry(self) -> None:
        """From now on a function that takes long is cut off, and raises StoreAwayError: nobody has
        time any more."""
        if not self._is_hurried:
            self._is_hurried = True
            self.impatient.set()
            asyncio.get_running_loop().call_later(HURRIED_S, self._look)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Nobody waits for it."""
        self._calls.put(lambda: _quietly(function))

    async def close(self, last: Callable[[], object]) -> None:
        """`last` is the last function of the thread. Nobody waits for it where the thread was left
        alone: it comes when what is under way has ended."""
        self.hurry()
        try:
            if self._is_left:
                self.call_soon(last)
            else:
                with suppress(StoreAwayError):
                    await self.run(lambda: _quietly(last))
        finally:
            self._is_left = True
            self._calls.put(None)

    def _look(self) -> None:
        if self._is_left:
            return
        again_s, again = HURRIED_S, self._look
        if self._since_s is not None and time.monotonic() - self._since_s >= HURRIED_S:
            self.cut()
            again_s, again = _CUT_S, self._leave
        asyncio.get_running_loop().call_later(again_s, again)

    async def _end_of(self, future: "asyncio.Future[Any]") -> None:
        try:
            await asyncio.wait([future], timeout=HURRIED_S)
            if not future.done():
                self.cut()
                await asyncio.wait([future])
        except asyncio.CancelledError:  # the loop ends, by a second Ctrl-C
            self._leave()
            raise

    def _leave(self) -> None:
        self._is_left = True
        for future in self._waited_for:
            if not future.done():
                future.set_exception(self._no_answer())

    def _no_answer(self) -> StoreAwayError:
        return StoreAwayError(
            f"{self._name}: no answer from the database, and no time to wait for it. What was "
            "being written may be there, or not: nobody knows until it goes on. See that it does.",
            Remedy.RUN_AGAIN,
        )

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            self._since_s = time.monotonic()
            call()
            self._since_s = None


def _settle(
    loop: asyncio.AbstractEventLoop, future: "asyncio.Future[Any]", function: Callable[[], Any]
) -> None:
    try:
        result, problem = function(), None
    except BaseException as exc:
        result, problem = None, exc

    def settle() -> None:
        if future.done():  # it was left alone
            return
        if problem is not None:
            future.set_exception(problem)
        else:
            future.set_result(result)

    with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
        loop.call_soon_threadsafe(settle)


def _quietly(last: Callable[[], object]) -> None:
    try:
        last()
    except Exception:  # noqa: S110  what was committed is safe, and nobody waits for it
        pass
