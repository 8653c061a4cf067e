"""The results of a run as they come: `async for result in pipeline.stream(data_pool)`.

A loop that is left says nothing: the iterator is only dropped, and in a script the event loop ends
soon after, which would abandon calls that are paid for. So the run has a thread and an event loop
of its own, to which dropping the iterator is the order to finish what is in flight.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import ExitStack
from functools import partial
from typing import Any

from batchgen.api.blocking import Apart
from batchgen.api.request import Result
from batchgen.api.words import ErrorsInPython, StoppedError
from batchgen.shutdown import Stop, stop_on_signal, uninterrupted

_MOST_WAITING = 500  # results that nobody has taken
_LOOK_EVERY_S = 0.2

Give = Callable[[Result], Awaitable[bool]]
Work = Callable[[Give], Coroutine[Any, Any, None]]


class Stream(AsyncIterator[Result]):
    """Each result once, as it comes. A loop that is left has the calls in flight finished, and
    `aclose` waits for that. Another loop begins another run."""

    def __init__(self, begin: Callable[[Stop], Awaitable[Work]]) -> None:
        """`begin` is awaited on the loop of the consumer, the work is done on the other one."""
        self._begin = begin
        self._stop = Stop()
        self._pipe: _Pipe | None = None
        self._run: Apart[None] | None = None
        self._signals = ExitStack()

    def __aiter__(self) -> AsyncIterator[Result]:
        if self._pipe is not None and self._pipe.is_left:
            self._pipe = None
        return _Loop(self)

    async def __anext__(self) -> Result:
        with ErrorsInPython():
            return await self._next()

    async def _next(self) -> Result:
        pipe = self._pipe or await self._start()
        if pipe.is_left:
            raise StopAsyncIteration
        assert self._run is not None
        try:
            result = await pipe.take()
        except asyncio.CancelledError:
            pipe.is_left = True
            self._run.call(self._run.cancel)
            await self._end()
            raise
        if result is None:
            pipe.is_left = True
            await self._end()
            self._run.result()
            raise StopAsyncIteration
        return result

    async def aclose(self) -> None:
        """Ask for no more, and wait for the calls in flight."""
        self.leave()
        if self._run is not None:
            await self._end()

    def __del__(self) -> None:
        self.leave()

    def leave(self) -> None:
        """Nobody takes more: the calls in flight are finished meanwhile."""
        if self._run is not None and self._pipe is not None and not self._pipe.is_left:
            self._pipe.is_left = True
            self._pipe.on_its_loop(partial(_let_go, self._run, self._signals))
            self._run.call(self._stop.drain.set)

    async def _start(self) -> "_Pipe":
        if self._run is not None:
            await self._end()
        self._stop = Stop()
        work = await self._begin(self._stop)
        pipe = self._pipe = _Pipe(asyncio.get_running_loop())
        run = self._run = Apart(_unless_left(work, pipe), daemon=False)
        next_stage = self._stop.next_stage
        self._signals.enter_context(stop_on_signal(Stop(), lambda: run.call(next_stage)))
        return pipe

    async def _end(self) -> None:
        assert self._run is not None
        await uninterrupted(asyncio.to_thread(self._run.join))
        self._signals.close()


class _Loop(AsyncIterator[Result]):
    """What a loop over a stream holds, and drops when it is left; the stream may have a name that
    lives longer."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def __anext__(self) -> Result:
        return await self._stream.__anext__()

    def __del__(self) -> None:
        self._stream.leave()


def _let_go(run: Apart[None], signals: ExitStack) -> None:
    """The loop waits for its executor before it is closed, and so for the run."""
    signals.close()
    asyncio.get_running_loop().run_in_executor(None, run.join)


async def _unless_left(work: Work, pipe: "_Pipe") -> None:
    try:
        await work(pipe.give)
    except StoppedError:
        if not pipe.is_left:
            raise
    finally:
        pipe.close()


class _Pipe:
    """Results on their way from one event loop to the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting = asyncio.Queue[Result | None]()
        self.is_left = False

    async def give(self, result: Result) -> bool:
        """On the loop of the run. False: nobody takes results any more."""
        while self._waiting.qsize() >= _MOST_WAITING and not self._is_over():  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_EVERY_S)
        if self._is_over():
            return False
        self._put(result)
        return True

    def close(self) -> None:
        self._put(None)

    async def take(self) -> Result | None:
        """On the loop of the consumer; None: there are no more."""
        return await self._waiting.get()

    def _is_over(self) -> bool:
        return self.is_left or self._loop.is_closed()

    def _put(self, result: Result | None) -> None:
        self.on_its_loop(lambda: self._waiting.put_nowait(result))

    def on_its_loop(self, act: Callable[[], object]) -> None:
        """Do it on the loop of the consumer, unless that has ended."""
        try:
            self._loop.call_soon_threadsafe(act)
        except RuntimeError:
            self.is_left = True
