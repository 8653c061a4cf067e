"""Transactions are tried again while the disk is full or the file is locked: the answers in them
are paid for, and so are the calls in flight."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from batchgen.errors import StoreAwayError, StoreBusyError, StoreError, StoreFullError
from batchgen.worker.permits import Permits

T = TypeVar("T")

_TRY_AGAIN_S = 2.0


class StoreRetries:
    """`warn` is called once for a transaction, as it begins to be tried again."""

    def __init__(self, permits: Permits, store_retry_s: float, warn: Callable[[str], None]) -> None:
        self._permits = permits
        self._store_retry_s = store_retry_s
        self._warn = warn

    async def run(self, transaction: Callable[[], Awaitable[T]], *, has_answers: bool = False) -> T:
        """Its result; it is tried again for `store_retry_s` while the file is locked or the disk is
        full. Raises StoreError then; and at once when the disk is full and there is nothing to
        lose: it writes no answer (`has_answers`), and no call is in flight. A server that is away
        has been waited for already."""
        give_up_at = time.monotonic() + self._store_retry_s
        warned = False
        while True:
            try:
                return await transaction()
            except StoreAwayError:
                raise
            except StoreBusyError as exc:
                problem: StoreError = exc
            except StoreFullError as exc:
                if not has_answers and not self._permits.in_flight:
                    raise
                problem = exc
            if time.monotonic() > give_up_at:
                raise problem
            if not warned:
                self._warn(
                    f"{problem} Trying again for {self._store_retry_s:g} s; answers wait in memory."
                )
                warned = True
            await asyncio.sleep(_TRY_AGAIN_S)
