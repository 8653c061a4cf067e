"""Async work in a thread with an event loop of its own: for code that is not async, and for a loop
that may end before the work does.

Where an event loop runs already, as in a notebook, `run_sync` gets such a thread. A thread gets no
signals, so the one that waits passes them on: the first Ctrl-C lets the calls in flight finish, the
second abandons them, the third waits no longer.
"""

import asyncio
import contextvars
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_INTERRUPTS = 2  # that the work is told of
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_blocking(work: Coroutine[Any, Any, T], interrupt: Callable[[], object] | None = None) -> T:
    """What the work returns. `interrupt` asks it to stop; None: it is cancelled."""
    if not in_async_code():
        try:
            return asyncio.run(work)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None  # without the frames of asyncio
    apart = Apart(work, daemon=True)
    with _passing_on_signals(lambda: apart.call(interrupt or apart.cancel)):
        apart.join()
    return apart.result()


def in_async_code() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@contextmanager
def _passing_on_signals(interrupt: Callable[[], object]) -> Iterator[None]:
    """Inside, signals that would end the process do so only after the work was told of them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told = count(1)

    def hear(_signum: int, _frame: object) -> None:
        if next(told) > _INTERRUPTS:
            raise KeyboardInterrupt
        interrupt()

    before = {signum: signal.signal(signum, hear) for signum in _SIGNALS}
    try:
        yield
    finally:
        for signum, was in before.items():
            signal.signal(signum, was)


class Apart(Generic[T]):
    """Work that runs in a thread with an event loop of its own, from now on. A process waits for it
    before it ends, unless it is a `daemon`."""

    def __init__(self, work: Coroutine[Any, Any, T], *, daemon: bool) -> None:
        self._work = work
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[T] | None = None
        self._returned: list[T] = []
        self._raised: BaseException | None = None
        context = contextvars.copy_context()  # what is printed goes to the cell that is waiting
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name="batchgen-run", daemon=daemon
        )
        self._thread.start()

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join()

    def result(self) -> T:
        """What it returned or raised, once it has ended."""
        if isinstance(self._raised, asyncio.CancelledError):
            raise KeyboardInterrupt
        if self._raised is not None:
            raise self._raised
        return self._returned[0]

    def call(self, act: Callable[[], object]) -> None:
        """Do something on its loop, unless it has ended."""
        loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(act)
            except RuntimeError:
                pass  # the loop was closed at this moment

    def cancel(self) -> None:
        """To be called on its loop."""
        if self._task is not None:
            self._task.cancel()

    def _run(self) -> None:
        try:
            self._returned.append(asyncio.run(self._main()))
        except BaseException as exc:  # it belongs to the thread that waits
            self._raised = exc

    async def _main(self) -> T:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.ensure_future(self._work)
        return await self._task
