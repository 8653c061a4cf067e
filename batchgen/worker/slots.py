"""The slots of a worker: each claims an item, works on it and hands in, until there is no more.

Stopping: `drain` claims no more and finishes what is in flight, for `grace_s` at most; `now`
abandons it: each call in flight is kept as one with unknown outcome, and its item goes back.
"""

import asyncio
import signal
import traceback

from batchgen.clock import clock_ms
from batchgen.descriptors import allow_calls
from batchgen.errors import ConfigError, UsageError
from batchgen.items import Item, Outcome, Release
from batchgen.shutdown import Stop, uninterrupted
from batchgen.store import Orders
from batchgen.worker.committer import Committer
from batchgen.worker.item import ItemRun, Stages
from batchgen.worker.membership import Membership
from batchgen.worker.permits import CODE_SLOTS, Permits
from batchgen.worker.spec import WorkSpec
from batchgen.worker.stats import RunLog, Stats

_LOOK_FOR_STALL_S = 10.0


class Slots:
    """They raise what the committer or a watch raised, StoreError among it, and ConfigError when an
    item's recipe cannot be used."""

    def __init__(
        self,
        stages: Stages,
        spec: WorkSpec,
        committer: Committer,
        membership: Membership,
        permits: Permits,
        stats: Stats,
        log: RunLog,
        *,
        runs_code: bool = False,
    ) -> None:
        self._more_slots = CODE_SLOTS if runs_code else 0
        self._stages = stages
        self._spec = spec
        self._committer = committer
        self._membership = membership
        self._permits = permits
        self._stats = stats
        self._log = log
        self._tasks: list[asyncio.Task[None]] = []
        self._unusable_config: ConfigError | None = None

    async def run(self, stop: Stop) -> None:
        """Until nothing is left, or `stop`. One that is cancelled, however often, first writes what
        it has."""
        committing = asyncio.create_task(self._committer.run(), name="committer")
        self._ensure_slots(self._spec.concurrency)
        watches = [
            asyncio.create_task(self._watch(stop), name="watch"),
            asyncio.create_task(self._watch_for_orders(stop), name="watch for orders"),
            asyncio.create_task(self._watch_for_stall(), name="watch for stall"),
        ]
        working = asyncio.create_task(_all_done(self._tasks), name="slots")
        watching = asyncio.create_task(_all_done(watches), name="watches")
        parts = [working, watching, committing]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await uninterrupted(self._end([*watches, watching, working], committing))
        for part in parts:
            if not part.cancelled():
                part.result()
        if self._unusable_config:
            raise self._unusable_config

    def _ensure_slots(self, slots: int) -> None:
        """So many tasks at least, and those for rows that functions end; those that are too many
        wait for the committer to give them something."""
        for number in range(len(self._tasks), slots + self._more_slots):
            self._tasks.append(asyncio.create_task(self._slot(), name=f"slot {number}"))

    async def _end(self, watches: list[asyncio.Task[None]], committing: asyncio.Task[None]) -> None:
        await _cancel([*self._tasks, *watches])
        self._committer.close()
        self._stages.parser.close()
        try:
            await committing
        except Exception:
            await self._committer.write_rest()
            raise

    async def _watch(self, stop: Stop) -> None:
        await stop.drain.wait()
        self._committer.drain()
        try:
            async with asyncio.timeout(self._spec.grace_s):
                await stop.now.wait()
        except TimeoutError:
            self._log.warn(f"still in flight after {self._spec.grace_s:g} s: abandoned")
        for slot in self._tasks:
            slot.cancel()

    async def _watch_for_orders(self, stop: Stop) -> None:
        while True:
            self._follow(await self._membership.new_orders(), stop)

    def _follow(self, orders: Orders, stop: Stop) -> None:
        """Do what was ordered, as far as it is for the slots to do."""
        self._stats.paused = orders.paused
        self._allow_calls(orders.slots)
        self._ensure_slots(orders.slots)
        if orders.stop is not None and not stop.drain.is_set():
            self._log.warn("stopping, as it was told from elsewhere")
            stop.signum = stop.signum or signal.SIGTERM
            stop.drain.set()
        if orders.stop == "now":
            stop.now.set()

    def _allow_calls(self, slots: int) -> None:
        try:
            allow_calls(slots)
        except UsageError as exc:  # a call that finds no open file left waits and costs nothing
            self._log.warn(str(exc))

    async def _watch_for_stall(self) -> None:
        """Replies tell of a stall; but a server may ask for a wait longer than `stall_s`."""
        while True:
            await asyncio.sleep(min(self._spec.stall_s, _LOOK_FOR_STALL_S))
            now = clock_ms()
            for server in self._stages.servers:
                if server.pacer.waits(now) and not self._stats.paused:
                    self._stages.judge.give_up_if_stalled(server, now)

    async def _slot(self) -> None:
        while (item := await self._committer.next_item()) is not None:
            self._stats.in_flight = self._permits.in_flight
            await self._work_on(item)  # and keeps nothing of it: an answer may be megabytes

    async def _work_on(self, item: Item) -> None:
        run = ItemRun(item, self._stages)
        try:
            outcome = await run.work()
        except asyncio.CancelledError:
            if (lost := run.abandoned()) is not None:
                self._hand_in(lost)
            raise
        except ConfigError as exc:
            self._unusable_config = exc
            self._committer.drain()
            self._hand_in(run.given_back())
        except Exception as exc:  # a bug costs one item, not the run
            self._hand_in(run.broken(exc))
            self._log.bug(f"item {item.id}: {exc}", traceback.format_exc())
        else:
            self._hand_in(outcome)

    def _hand_in(self, outcome: Outcome) -> None:
        self._committer.hand_in(outcome)
        self._stats.in_flight = self._permits.in_flight
        for attempt in outcome.attempts:
            self._log.attempt(outcome.item, attempt, outcome.decision)
        if not (outcome.attempts or isinstance(outcome.decision, Release)):
            self._log.parsed(outcome.item, outcome.decision)


async def _all_done(tasks: list[asyncio.Task[None]]) -> None:
    """Until all have ended, those too that join meanwhile; raises what the first one raised, unless
    it was cancelled."""
    while left := [task for task in tasks if not task.done()]:
        done, _ = await asyncio.wait(left, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            if not task.cancelled():
                task.result()


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
