"""The sender's place among the workers: its lease, and the orders of other terminals, beside all
else that it does."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from batchgen.batches.place import Ground
from batchgen.clock import clock_ms
from batchgen.store import Orders, Seat
from batchgen.worker.report import WorkerReport

_LOOK_EVERY_S = 1.0
_RENEWALS = 6  # of a lease, in its time


class Keeper:
    """Of one run. `is_paused`: nothing is to be sent; `changed` is set when that changes."""

    def __init__(self, ground: Ground, seat: Seat) -> None:
        self._ground = ground
        self._seat = seat
        self._last: WorkerReport | None = None
        self._renew_at = 0
        self.is_paused = False
        self.is_expelled = False
        self.changed = asyncio.Event()

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """While inside, it keeps the place. Raises what the store raises."""
        keeping = asyncio.create_task(self._keep(), name="keep the sender's place")
        main = asyncio.current_task()
        assert main is not None
        keeping.add_done_callback(lambda done: None if done.cancelled() else main.cancel())
        try:
            yield
        except asyncio.CancelledError:
            if keeping.done() and not keeping.cancelled() and (exc := keeping.exception()):
                main.uncancel()
                raise exc from None
            raise
        finally:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([keeping])

    async def _keep(self) -> None:
        while True:
            orders, _ = await self._seat.orders(self._changed_report())
            if orders is None or not await self._renew():
                self.is_expelled = True
                self.changed.set()
            else:
                self._follow(orders)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def join_again(self) -> None:
        self._ground.warn("this process was taken for dead (was it suspended?); it joins again")
        await self._seat.join()
        self.is_expelled = False
        self._last = None

    async def _renew(self) -> bool:
        if clock_ms() < self._renew_at:
            return True
        self._renew_at = clock_ms() + int(1000 * self._ground.spec.lease_s / _RENEWALS)
        return await self._seat.heartbeat()

    def _follow(self, orders: Orders) -> None:
        stop, stats = self._ground.context.stop, self._ground.context.stats
        if self.is_paused != orders.paused:
            self.is_paused = stats.paused = orders.paused
            self.changed.set()
        if orders.stop is not None and not stop.drain.is_set():
            self._ground.warn("stopping, as it was told from another terminal")
            stop.signum = stop.signum or signal.SIGTERM
            stop.drain.set()
        if orders.stop == "now":
            stop.now.set()

    def _changed_report(self) -> str | None:
        stats = self._ground.context.stats
        report = WorkerReport(
            paused=stats.paused, halted=stats.halted.why if stats.halted else None,
            trouble=stats.trouble, calls=stats.calls,
            max_cost_usd=self._ground.spec.max_cost_usd,
        )  # fmt: skip
        if report == self._last:
            return None
        self._last = report
        return report.to_json()
