"""A thread of its own that reads the database, so that the event loop waits for no disk."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

from batchgen.database_address import DatabaseAddress
from batchgen.store import ReadStore, read_now, read_store

T = TypeVar("T")
_Job = Callable[[ReadStore], Coroutine[Any, Any, Any]]

_PATIENCE_S = 0.5  # with what it does as it is to end; the process ends without it then


class Reader:
    """One read after the other, in the order in which they are asked for. Use `open_reader`."""

    def __init__(self, address: DatabaseAddress, name: str) -> None:
        self._address = address
        self._queue: SimpleQueue[tuple[_Job, Future[Any]] | None] = SimpleQueue()
        self._opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    async def read(self, job: Callable[[ReadStore], Coroutine[Any, Any, T]]) -> T:
        """What `job(store)` comes to, which asks the store and waits for nothing else. One that is
        cancelled before its turn is not run; once it runs it is not cut off."""
        future: Future[T] = Future()
        self._queue.put((job, future))
        return await asyncio.wrap_future(future)

    async def start(self) -> None:
        self._thread.start()
        await asyncio.wrap_future(self._opened)

    async def close(self) -> None:
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, _PATIENCE_S)

    def _run(self) -> None:
        try:
            with read_store(self._address) as store:
                self._opened.set_result(None)
                while next_one := self._queue.get():
                    _run_job(store, *next_one)
        except BaseException as exc:
            if not self._opened.done():
                self._opened.set_exception(exc)
            # Else it could not be closed as it should; nothing that was read is wrong by that.


def _run_job(store: ReadStore, job: _Job, future: Future[Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(read_now(job(store)))
    except BaseException as exc:
        future.set_exception(exc)


@asynccontextmanager
async def open_reader(address: DatabaseAddress, name: str) -> AsyncIterator[Reader]:
    """Raises as `read_store`."""
    reader = Reader(address, name)
    await reader.start()
    try:
        yield reader
    finally:
        await reader.close()
