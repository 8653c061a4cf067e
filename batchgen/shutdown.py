"""Stopping on a signal: the first one drains, the second one stops now.

`Stop` has the two stages as events. asyncio calls the handlers on the event loop, between two of
its steps, so they can set events without races. After the second signal the handlers are gone, and
a third one ends the process at once, in case something hangs.

`uninterrupted` runs what must not be left half done when it is cancelled.
"""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

# SIGHUP means that the terminal is gone: a closed laptop, a broken ssh connection.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
    """Inside the block, each signal moves `stop` to its next stage and calls `announce`.

    A signal that is ignored (nohup) stays ignored. Only the main thread gets signals; in another
    thread this does nothing.
    """
    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def uninstall() -> None:
        for signum in _SIGNALS:
            loop.remove_signal_handler(signum)

    def handle(signum: int) -> None:
        stop.signum = stop.signum or signum
        stop.next_stage()
        if stop.now.is_set():
            uninstall()
        announce()

    for signum in _SIGNALS:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            loop.add_signal_handler(signum, handle, signum)
    try:
        yield
    finally:
        uninstall()


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
