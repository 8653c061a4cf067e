"""Stopping on a signal: the first one drains, the second one stops now.

`Stop` has the two stages as events. asyncio calls the handlers on the event loop, between two of
its steps, so they can set events without races. After the second signal the handlers are gone, and
a third one ends the process at once, in case something hangs. A loop that does not turn, as the
user's code keeps it, hears none: there the third is a KeyboardInterrupt.

`uninterrupted` runs what must not be left half done when it is cancelled, `unless` what may be
given up when one is stopped.
"""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

# SIGHUP means that the terminal is gone: a closed laptop, a broken ssh connection.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_MOST_UNHEARD = 2


class Stop:
    """The stages of stopping. `drain`: claim no more, and finish what is in flight. `now`:
    abandon that too. `signum` is the first signal that came, or None.
    """

    def __init__(self) -> None:
        self.drain = asyncio.Event()
        self.now = asyncio.Event()
        self.signum: int | None = None

    def next_stage(self) -> None:
        if self.drain.is_set():
            self.now.set()
        self.drain.set()


@contextmanager
def stop_on_signal(stop: Stop, announce: Callable[[], None]) -> Iterator[None]:
    """Inside the block, each signal moves `stop` to its next stage and calls `announce`; in every
    such block, where there are several at once. Afterwards signals do what they did before.

    A signal that is ignored (nohup) stays ignored. Only the main thread gets signals; in another
    thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def hear(signum: int) -> None:
        stop.signum = stop.signum or signum
        stop.next_stage()
        announce()

    listener = _Listener(stop, hear)
    _signals.add(listener)
    try:
        yield
    finally:
        _signals.remove(listener)


class _Listener(NamedTuple):
    stop: Stop
    hear: Callable[[int], None]


class _Signals:
    """Passes the main thread's signals on to all that listen."""

    def __init__(self) -> None:
        self._listeners: list[_Listener] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._unheard = 0  # signals that came, and that the loop has not passed on yet

    def add(self, listener: _Listener) -> None:
        if self._loop is not None and self._loop.is_closed():
            self._listeners.clear()  # of work that nobody has ended
        if not self._listeners:
            self._loop = asyncio.get_running_loop()
            handlers = {signum: signal.getsignal(signum) for signum in _SIGNALS}
            self._before = {s: was for s, was in handlers.items() if was is not signal.SIG_IGN}
            self._unheard = 0
            for signum in self._before:
                self._loop.add_signal_handler(signum, self._pass_on, signum)
                signal.signal(signum, self._count)  # the loop wakes up by itself
                signal.siginterrupt(signum, False)
        self._listeners.append(listener)

    def remove(self, listener: _Listener) -> None:
        if listener not in self._listeners:
            return
        self._listeners.remove(listener)
        if not self._listeners:
            self._uninstall()
            for signum, was in self._before.items():
                if was is not None:  # it was set by Python
                    signal.signal(signum, was)

    def _count(self, _signum: int, _frame: object) -> None:
        """Called in between the user's code, too."""
        self._unheard += 1
        if self._unheard > _MOST_UNHEARD:
            raise KeyboardInterrupt

    def _pass_on(self, signum: int) -> None:
        self._unheard = 0
        for listener in self._listeners:
            listener.hear(signum)
        if all(listener.stop.now.is_set() for listener in self._listeners):
            self._uninstall()

    def _uninstall(self) -> None:
        assert self._loop is not None
        for signum in self._before:
            self._loop.remove_signal_handler(signum)


_signals = _Signals()


@asynccontextmanager
async def once_stopped_now(stop: Stop, act: Callable[[], None]) -> AsyncIterator[None]:
    """Inside the block, `act` is called when `stop` comes to its second stage."""

    async def watch() -> None:
        await stop.now.wait()
        act()

    watching = asyncio.create_task(watch(), name="watch for the second signal")
    try:
        yield
    finally:
        watching.cancel()


@asynccontextmanager
async def patience(stop: Stop, grace_s: float) -> AsyncIterator[asyncio.Event]:
    """Inside the block, the event is set when what is in flight is to be abandoned: at the second
    stage of `stop`, or so long after the first."""
    is_over = asyncio.Event()

    async def watch() -> None:
        await stop.drain.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await stop.now.wait()
        is_over.set()

    watching = asyncio.create_task(watch(), name="watch for the end of patience")
    try:
        yield is_over
    finally:
        watching.cancel()


async def uninterrupted(coro: Coroutine[Any, Any, T]) -> T:
    """Await `coro`, which is never cancelled. A caller that is cancelled while it waits, however
    often, gets the CancelledError when `coro` has ended, and not its result."""
    task = asyncio.ensure_future(coro)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        task.exception()  # marks it as retrieved: there is nobody to raise it to
        raise cancelled
    return task.result()


async def unless(event: asyncio.Event, coro: Coroutine[Any, Any, T]) -> T | None:
    """Await `coro`, which is cancelled when the event is set before; then None."""
    task = asyncio.ensure_future(coro)
    watching = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([task, watching], return_when=asyncio.FIRST_COMPLETED)
    finally:
        watching.cancel()
        if not task.done():
            task.cancel()
            await uninterrupted(asyncio.wait([task]))
    return None if task.cancelled() else task.result()
