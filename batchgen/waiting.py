"""Waiting: by a clock that nobody sets, and for what must not be left half done."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def clock_ms() -> int:
    """For waits within the process: milliseconds of a clock that nobody sets back or forward."""
    return time.monotonic_ns() // 1_000_000


async def to_its_end(coro: Coroutine[Any, Any, T]) -> T:
    """Await `coro`, which is never cancelled. Who is cancelled while it waits, once or again and
    again, gets the CancelledError when `coro` has ended, and then not what came of it."""
    task = asyncio.ensure_future(coro)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        task.exception()  # seen: nobody is left to raise it to
        raise cancelled
    return task.result()
