"""One worker among the others: what they want of it, and what it reports to them.

It extends its lease with a heartbeat, in which it also takes over from workers that died, and it
joins again when it was taken for dead itself. Orders come with every exchange or, where there is
none, once a second; the worker's report is written in the same transactions when it has changed.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from batchgen.clock import clock_ms
from batchgen.limits import Limits, Share
from batchgen.store import Exchange, Orders, Seat
from batchgen.worker.demand import Demand
from batchgen.worker.report import WorkerReport
from batchgen.worker.servers import Servers
from batchgen.worker.spec import WorkSpec
from batchgen.worker.store_retries import StoreRetries

_LOOK_FOR_ORDERS_EVERY_MS = 1000
_REPORT_EVERY_MS = 2000
_HEARTBEATS_IN_A_LEASE = 6


class Membership:
    """The membership of one worker. It applies orders to the servers and the demand; `limits` are
    those of the newest orders, by server."""

    def __init__(
        self,
        seat: Seat,
        spec: WorkSpec,
        servers: Servers,
        demand: Demand,
        store_retries: StoreRetries,
        *,
        report: Callable[[], WorkerReport],
        warn: Callable[[str], None],
    ) -> None:
        now = clock_ms()
        self._seat = seat
        self._spec = spec
        self._servers = servers
        self._demand = demand
        self._store_retries = store_retries
        self._report = report
        self._warn = warn
        self._heartbeat_every_ms = int(spec.lease_s * 1000 / _HEARTBEATS_IN_A_LEASE)
        self._heartbeat_at = now + self._heartbeat_every_ms
        self._orders_at = now + _LOOK_FOR_ORDERS_EVERY_MS  # if no exchange brings them before
        self._orders = seat.first_orders
        self._orders_changed = asyncio.Event()
        self._report_at = 0
        self._last_report: WorkerReport | None = None
        self._warned_of_danger = False
        self.limits = self._limits()
        self._share_with_others()

    @property
    def due_at(self) -> int:
        """When `keep_up` has something to do."""
        return min(self._heartbeat_at, self._orders_at)

    async def keep_up(self) -> None:
        """Send a heartbeat, and look for orders, as far as either is due."""
        if clock_ms() >= self._heartbeat_at:
            await self._heartbeat()
        if clock_ms() >= self._orders_at:
            await self._look_for_orders()

    def heartbeat_by(self, at: int) -> None:
        """Send a heartbeat at `at`, if not before: other workers have the items that are left, and
        it finds out whether they live."""
        self._heartbeat_at = min(self._heartbeat_at, at)

    async def new_orders(self) -> Orders:
        """The newest orders, once they are others than those that were returned before."""
        await self._orders_changed.wait()
        self._orders_changed.clear()
        return self._orders

    async def observe(self, done: Exchange) -> None:
        """Follow what an exchange brought: orders, or that this worker was taken for dead."""
        attempts = [attempt for outcome in done.lost for attempt in outcome.attempts]
        late = sum(attempt.outcome != "unknown" for attempt in attempts)
        if late:
            self._warn(
                f"{late} replies came after this worker had been taken for dead; "
                "they are kept as attempts, but others do that work now"
            )
        if not self._warned_of_danger and (warning := self._seat.warning):
            self._warned_of_danger = True
            self._warn(warning)
        if done.orders is None:
            await self._join_again()
        else:
            self._take(done.orders)
            self._follow(done.shares)

    def changed_report(self) -> str | None:
        """What the worker reports, when that has changed and the last report is some seconds old,
        or at once when it says why nothing moves. It goes with what is written anyway, or else
        alone."""
        now, last, report = clock_ms(), self._last_report, self._report()
        is_due = now >= self._report_at and report != last
        if last is not None and not is_due and not report.is_urgent_after(last):
            return None
        self._last_report, self._report_at = report, now + _REPORT_EVERY_MS
        return report.to_json()

    async def _heartbeat(self) -> None:
        self._heartbeat_at = clock_ms() + self._heartbeat_every_ms
        if not await self._store_retries.run(self._seat.heartbeat):
            await self._join_again()
        self._share_with_others()

    async def _look_for_orders(self) -> None:
        self._orders_at = clock_ms() + _LOOK_FOR_ORDERS_EVERY_MS
        told = self._demand.told(clock_ms())
        look = partial(self._seat.orders, self.changed_report(), told)
        orders, shares = await self._store_retries.run(look)
        if orders is not None:  # else the next heartbeat joins again
            self._take(orders)
            self._follow(shares)

    async def _join_again(self) -> None:
        self._warn("this worker was taken for dead (was it suspended?); it joins again")
        await self._store_retries.run(self._seat.join)
        for server in self._servers:
            server.pacer.sharing.begin_anew(self._seat.first_shares.get(server.key))
        self._last_report = None
        self._demand.look_now()

    def _take(self, orders: Orders) -> None:
        self._orders_at = clock_ms() + _LOOK_FOR_ORDERS_EVERY_MS
        if orders == self._orders:
            return
        if self._orders.paused and not orders.paused:
            for server in self._servers:
                server.pacer.forget_trouble()
        self._orders = orders
        self._servers.slots = orders.slots
        self._demand.paused = orders.paused
        self._demand.look_now()
        self.limits = self._limits()
        self._orders_changed.set()

    def _follow(self, shares: Mapping[str, Share]) -> None:
        now = clock_ms()
        for key, share in shares.items():
            self._servers[key].pacer.sharing.follow(share, now)

    def _limits(self) -> dict[str, Limits]:
        """By server, as the newest orders want it."""
        orders = self._orders
        return {
            server.key: self._spec.limits_of(server.spec).overruled(orders.rpm, orders.tpm)
            for server in self._servers
        }

    def _share_with_others(self) -> None:
        for server in self._servers:
            server.pacer.server.workers = self._seat.live_workers
