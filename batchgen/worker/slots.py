"""The slots of a worker: each claims an item, works on it and hands in, until there is no more.

Stopping: `drain` claims no more and finishes what is in flight, for `grace_s` at most; `now` leaves
it: each call under way is kept as one with unknown outcome, and its item goes back.
"""

import asyncio
import signal
import traceback
from functools import partial

from batchgen.clock import clock_ms, now_ms
from batchgen.errors import StoreError
from batchgen.items import Attempt, Done, Fail, Outcome, Reason, Release, Retry
from batchgen.shutdown import Stop, uninterrupted
from batchgen.store import Orders
from batchgen.worker.claims import Claim, Claims
from batchgen.worker.committer import Committer
from batchgen.worker.options import RunLog, Stats
from batchgen.worker.pacer import Pacer
from batchgen.worker.spec import WorkSpec

_LOOK_FOR_STALL_S = 10.0


class Slots:
    def __init__(
        self,
        claims: Claims,
        spec: WorkSpec,
        committer: Committer,
        pacer: Pacer,
        stats: Stats,
        log: RunLog,
    ) -> None:
        self._claims = claims
        self._spec = spec
        self._committer = committer
        self._pacer = pacer
        self._stats = stats
        self._log = log
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self, stop: Stop) -> None:
        """Until nothing is left, or `stop`. One that is cancelled, however often, first writes what
        it has."""
        committing = asyncio.create_task(self._committer.run(), name="committer")
        self._have(self._spec.slots)
        self._committer.obey = partial(self._obey, stop)
        self._committer.held = self._note_limit
        watches = [
            asyncio.create_task(self._watch(stop), name="watch"),
            asyncio.create_task(self._watch_for_stall(), name="watch for stall"),
        ]
        working = asyncio.create_task(_all_done(self._tasks), name="slots")
        try:
            await asyncio.wait([working, committing], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await uninterrupted(self._end([*watches, working], committing))
        if not working.cancelled():
            working.result()
        if self._claims.unusable_config:
            raise self._claims.unusable_config

    def _have(self, slots: int) -> None:
        """So many tasks at least; those that are too many wait for the committer to give them
        something."""
        for number in range(len(self._tasks), slots):
            self._tasks.append(asyncio.create_task(self._slot(), name=f"slot {number}"))

    def _note_limit(self, per_minute: float | None) -> None:
        self._stats.limited_to_rpm = per_minute

    def _obey(self, stop: Stop, orders: Orders) -> None:
        """Do what another terminal wants, as far as it is for the slots to do."""
        self._stats.paused = orders.paused
        self._have(orders.slots)
        if orders.stop is not None and not stop.drain.is_set():
            self._log.warn("stopping, as another terminal says (batchgen stop)")
            stop.signum = stop.signum or signal.SIGTERM
            stop.drain.set()
        if orders.stop == "now":
            stop.now.set()

    async def _end(self, watches: list[asyncio.Task[None]], committing: asyncio.Task[None]) -> None:
        await _cancel([*self._tasks, *watches])
        self._committer.close()
        self._claims.close()
        try:
            await committing
        except StoreError:
            await self._committer.write_rest()
            raise

    async def _watch(self, stop: Stop) -> None:
        await stop.drain.wait()
        self._committer.drain()
        try:
            async with asyncio.timeout(self._spec.grace_s):
                await stop.now.wait()
        except TimeoutError:
            self._log.warn(f"still in flight after {self._spec.grace_s:g} s: left")
        for slot in self._tasks:
            slot.cancel()

    async def _watch_for_stall(self) -> None:
        """Replies tell of a stall; but a server may ask for a wait longer than `stall_s`."""
        while True:
            await asyncio.sleep(min(self._spec.stall_s, _LOOK_FOR_STALL_S))
            now = clock_ms()
            if now < self._pacer.paused_until and not self._committer.paused:
                self._claims.halt_if_stalled(now)

    async def _slot(self) -> None:
        while (item := await self._committer.next_item()) is not None:
            claim = Claim(item)
            self._stats.in_flight = self._committer.in_flight
            try:
                outcome = await self._claims.work_on(claim)
            except asyncio.CancelledError:
                # Otherwise no call is under way, and leaving gives the item back as it is.
                if claim.calling:
                    self._hand_in(Outcome(item, Attempt(finished_at=now_ms()), Release()))
                raise
            except Exception as exc:  # a bug costs one item, not the run
                self._log.bug(f"item {item.id}: {exc}", traceback.format_exc())
                outcome = Outcome(claim.item, claim.attempt, Fail(Reason.REJECTED, _bug(exc)))
            self._hand_in(outcome)

    def _hand_in(self, outcome: Outcome) -> None:
        self._committer.hand_in(outcome)
        self._committer.finished()
        self._stats.in_flight = self._committer.in_flight
        self._stats.paused_until = self._pacer.paused_until
        match outcome.decision:
            case Done():
                self._stats.done += 1
            case Fail(reason=reason):
                self._stats.failed += 1
                self._stats.reasons[reason] += 1
            case Release() if outcome.attempt is None:
                pass  # nothing was sent
            case Retry():
                self._stats.retried += 1
            case _:
                pass  # given back
        if outcome.attempt is not None:
            self._log.attempt(outcome.item, outcome.attempt, outcome.decision)
        elif not isinstance(outcome.decision, Release):
            self._log.parsed(outcome.item, outcome.decision)


def _bug(exc: Exception) -> str:
    return f"internal error, please report it: {type(exc).__name__}: {exc}"


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
