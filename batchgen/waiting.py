"""Waiting for what must not be left half done."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


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
