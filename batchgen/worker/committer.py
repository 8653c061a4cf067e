"""The committer: the one task of a worker that writes, and through which every slot goes.

A slot hands in what it finished and waits for its next item; the committer takes everything that
has gathered, makes one `store.exchange` of it, and answers the slots after the commit. The next
exchange starts when the last one is over and anything waits, without a timer: at low load an answer
is committed alone and at once, at high load hundreds share a commit.

It also keeps the lease, asks the pacer how many calls may go out, and knows when all is done:
nothing pending or running is left in scope, whoever has it, or as many are done as were wanted.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from batchgen.clock import clock_ms, now_ms
from batchgen.errors import StoreBusyError, StoreError, StoreFullError
from batchgen.items import Item, Outcome
from batchgen.limits import UNKNOWN_CALL, TokenMeter
from batchgen.store import ClaimRequest, Exchange, Grant, Orders, Reservation, Seat
from batchgen.worker.pacer import Pacer
from batchgen.worker.report import WorkerReport
from batchgen.worker.spec import WorkSpec

T = TypeVar("T")

# How often to look for work that others add or give back.
_POLL_MS = 1000
_TELL_EVERY_MS = 2000
_TRY_AGAIN_S = 2.0
# Calls that go out in one turn of the event loop: more would hold it up, a thousand for 0.15 s.
_CLAIMS_A_TIME = 100


class Committer:
    def __init__(
        self,
        worker: Seat,
        pacer: Pacer,
        spec: WorkSpec,
        meter: TokenMeter,
        *,
        warn: Callable[[str], None],
    ) -> None:
        """`limits` may be replaced at any time: each exchange goes by the newest. `obey` is told
        the orders of other terminals when they change, `held` what a limit holds claims to, and
        `report` says what the worker tells of itself."""
        self._worker = worker
        self._pacer = pacer
        self._spec = spec
        self._meter = meter
        self._beat_every_ms = int(spec.lease_s * 1000 / 6)
        self._warn = warn
        self._wake = asyncio.Event()
        self._outcomes: list[tuple[Outcome, asyncio.Future[int | None]]] = []
        self._charges: list[Item] = []
        self._reservations: list[tuple[Reservation, asyncio.Future[Grant]]] = []
        self._budget_look_at = 0  # when there may be more of it
        self._budget_is_tight = False
        self._idle: deque[asyncio.Future[Item | None]] = deque()
        self._second_turns: deque[asyncio.Future[None]] = deque()
        self._beat_at = clock_ms() + self._beat_every_ms
        self._look_at: int | None = 0  # when claiming may succeed; None: only a wake-up tells
        self._orders_at = clock_ms() + _POLL_MS  # if no exchange brings them before
        self._orders = worker.first_orders
        self._told: WorkerReport | None = None
        self._tell_at = 0
        self._claims_left = spec.max_items
        self._draining = False
        self._closed = False
        self._warned_of_danger = False
        self.obey: Callable[[Orders], None] = lambda _: None
        self.report: Callable[[], WorkerReport] = WorkerReport
        self.held: Callable[[float | None], None] = lambda _: None
        self.paused = False
        self.limits = spec.limits
        pacer.server.workers = worker.live_workers
        self.limited_to_rpm: float | None = None  # the calls a minute that a limit holds claims to
        self.in_flight = 0

    def hand_in(self, outcome: Outcome) -> asyncio.Future[int | None]:
        """Queue an outcome for the next exchange. The future resolves when it is durable: to its
        attempt's sequence number, or None when no call was made."""
        future = asyncio.get_running_loop().create_future()
        self._outcomes.append((outcome, future))
        if outcome.attempt is not None:
            self._budget_look_at = 0
        self._wake.set()
        return future

    def reserve(self, reservation: Reservation) -> asyncio.Future[Grant]:
        """Whether the call may be sent, once it is durable that it may cost so much."""
        future = asyncio.get_running_loop().create_future()
        self._reservations.append((reservation, future))
        self._wake.set()
        return future

    def charge(self, item: Item) -> None:
        """Its last call, handed in without being charged, was its own fault after all."""
        self._charges.append(item)
        self._wake.set()

    def next_item(self) -> asyncio.Future[Item | None]:
        """An item for a free slot, when there is one; None when there will be no more."""
        future = asyncio.get_running_loop().create_future()
        if self._draining:
            future.set_result(None)
        else:
            self._idle.append(future)
            self._wake.set()
        return future

    async def room(self) -> None:
        """Until there is a free slot for a second call, which has it until `finished`; before any
        item that could be claimed for it. Not while draining or paused."""
        future = asyncio.get_running_loop().create_future()
        self._second_turns.append(future)
        self._wake.set()
        try:
            await future
        except asyncio.CancelledError:
            if not future.cancelled():  # it had just got the slot
                self.finished()
            raise

    def finished(self) -> None:
        """A claim of this worker has ended (its outcome is handed in), or a second call."""
        self.in_flight -= 1
        self._look_at = 0

    def drain(self) -> None:
        """Claim no more, and let the free slots go."""
        self._draining = True
        for future in self._idle:
            if not future.done():
                future.set_result(None)
        self._idle.clear()
        self._wake.set()

    def close(self) -> None:
        """Write what is handed in, and end `run`."""
        self._closed = True
        self._wake.set()

    async def run(self) -> None:
        """Until closed. Raises StoreError when the database cannot be written for `patience_s`."""
        while True:
            await self._wait()
            self._give_second_turns()
            outcomes, self._outcomes = self._outcomes, []
            want = self._want()
            if outcomes or want.slots:
                try:
                    await self._exchange(outcomes, want)
                except StoreError:
                    self._outcomes = outcomes + self._outcomes
                    raise
            if self._charges:
                charges, self._charges = self._charges, []
                await self._patiently(partial(self._worker.charge, charges))
            if self._reservations:
                await self._reserve()
            if clock_ms() >= self._beat_at:
                await self._beat()
            if clock_ms() >= self._orders_at:
                await self._look_for_orders()
            if self._closed and not self._outcomes:
                return

    async def write_rest(self) -> None:
        """Once `run` has failed: write what was handed in, since it is paid for. If that cannot be
        either, leave as one that died: whoever takes over keeps the calls as unknown ones."""
        try:
            await self._worker.exchange([outcome for outcome, _ in self._outcomes], ClaimRequest())
        except StoreError:
            self._worker.abandon()

    async def _wait(self) -> None:
        """Until something is handed in, a claim may succeed, or the lease wants a beat."""
        while not (
            self._outcomes
            or self._charges
            or self._reservations
            or self._closed
            or self._room_for_second_calls()
            or self._want().slots
        ):
            self._wake.clear()
            pause_s = max(0, self._next_look() - clock_ms()) / 1000
            if pause_s == 0:
                break
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
        # One turn of the loop: slots that are ready to hand something in join this commit.
        await asyncio.sleep(0)

    def _next_look(self) -> int:
        now = clock_ms()
        always = (self._beat_at, self._orders_at)
        times = [
            *(*always, self._look_at, self._budget_look_at),
            self._pacer.next_change_at(now),
            self._pacer.server.next_at(self._meter.mean, now),
        ]
        return min(at for at in times if at is not None and (at > clock_ms() or at in always))

    def _room_for_second_calls(self) -> int:
        waiting = [turn for turn in self._second_turns if not turn.done()]  # others' call has ended
        self._second_turns = deque(waiting)
        holds = self._draining or self.paused
        room = 0 if holds else self._pacer.allowed(clock_ms()) - self.in_flight
        return max(0, min(room, len(self._second_turns)))

    def _give_second_turns(self) -> None:
        while self._room_for_second_calls():
            self._second_turns.popleft().set_result(None)
            self.in_flight += 1

    def _want(self) -> ClaimRequest:
        """What to claim now: as many items as there are free slots and calls allowed."""
        now = clock_ms()
        slots = 0
        looks = self._look_at is not None and now >= max(self._look_at, self._budget_look_at)
        if looks and not self._draining and not self.paused:
            allowed = self._pacer.allowed(now) - self.in_flight - len(self._second_turns)
            most = 1 if self._budget_is_tight else _CLAIMS_A_TIME  # the rest would come back
            room = self._pacer.server.calls_left(self._meter.mean, now)
            slots = max(0, int(min(len(self._idle), allowed, most, room)))
            if self._claims_left is not None:
                slots = min(slots, self._claims_left)
        pause_ms = max(0, self._pacer.limited_until - now)
        limits = self.limits.below(self._pacer.server.requests_per_minute)
        counts_tokens = limits.tokens_per_minute is not None
        call_tokens = self._meter.estimate if counts_tokens else UNKNOWN_CALL
        return ClaimRequest(
            slots, self._spec.experiments, limits, self._spec.until,
            call_tokens=call_tokens, pause_ms=pause_ms,
        )  # fmt: skip

    async def _exchange(
        self, handed_in: list[tuple[Outcome, asyncio.Future[int | None]]], want: ClaimRequest
    ) -> None:
        outcomes = [outcome for outcome, _ in handed_in]
        if self.limits.tokens_per_minute is not None or self._pacer.server.counts_tokens:
            self._learn_tokens(outcomes)
        report = self._news()
        done = await self._patiently(
            lambda: self._worker.exchange(outcomes, want, report), len(outcomes)
        )
        for (_, future), seq in zip(handed_in, done.attempt_seqs, strict=True):
            if not future.done():
                future.set_result(seq)
        if done.lost:
            self._warn(
                f"{len(done.lost)} answers came after this worker had been taken for dead; "
                "they are kept as attempts, but others have the items now"
            )
        if not self._warned_of_danger and (warning := self._worker.warning):
            self._warned_of_danger = True
            self._warn(warning)
        if done.orders is None:
            await self._join_again()
        else:
            self._take_orders(done.orders)
        self._give_out(done.items)
        if want.slots:
            self.limited_to_rpm = done.limited_to_rpm
            self.held(done.limited_to_rpm)
        if len(done.items) < want.slots:
            self._plan_next_look(done)

    def _learn_tokens(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.attempt is not None:
                usage = outcome.attempt.usage
                if usage.prompt_tokens is not None and usage.completion_tokens is not None:
                    item_bytes = len(outcome.item.input_json.encode())
                    self._meter.observe(item_bytes, usage.prompt_tokens + usage.completion_tokens)

    async def _reserve(self) -> None:
        asked, self._reservations = self._reservations, []
        budget = self._spec.budget
        assert budget is not None
        wanted = [reservation for reservation, _ in asked]
        grants = await self._patiently(partial(self._worker.reserve, wanted, budget))
        for (_, future), grant in zip(asked, grants, strict=True):
            if grant is Grant.WAIT:
                self._budget_look_at = clock_ms() + _POLL_MS
                self._budget_is_tight = True
            if not future.done():
                future.set_result(grant)

    async def _patiently(self, transaction: Callable[[], Awaitable[T]], answers: int = 0) -> T:
        """Answers are paid for, and so are the calls under way: a full disk or a locked file gets
        `patience_s` before they are lost."""
        give_up_at = time.monotonic() + self._spec.patience_s
        told = False
        while True:
            try:
                return await transaction()
            except StoreBusyError as exc:
                problem: StoreError = exc
            except StoreFullError as exc:
                if not answers and not self.in_flight:
                    raise
                problem = exc
            if time.monotonic() > give_up_at:
                raise problem
            if not told:
                patience = f"Trying again for {self._spec.patience_s:g} s"
                self._warn(f"{problem} {patience}; answers wait in memory.")
                told = True
            await asyncio.sleep(_TRY_AGAIN_S)

    def _give_out(self, items: list[Item]) -> None:
        if self._claims_left is not None:
            self._claims_left -= len(items)
        for item in items:
            self.in_flight += 1
            future = self._free_slot()
            if future is not None:
                future.set_result(item)
        if self._claims_left == 0:
            self.drain()

    def _free_slot(self) -> asyncio.Future[Item | None] | None:
        """None when all slots were cancelled meanwhile: the item goes back as the worker leaves."""
        while self._idle:
            future = self._idle.popleft()
            if not future.done():
                return future
        return None

    def _plan_next_look(self, done: Exchange) -> None:
        """Fewer items than wanted: look again when one comes due, or soon, for others' sake."""
        if self._outcomes:
            return  # slots finished meanwhile, so the next exchange knows more
        nothing_left = done.open == 0 and not self._spec.wait_for_more and not done.expelled
        if nothing_left or done.enough:
            self.drain()
            return
        now = clock_ms()
        poll_at = now + _POLL_MS
        due_in_ms = _POLL_MS if done.next_at is None else done.next_at - now_ms()
        self._look_at = min(poll_at, now + max(due_in_ms, 1))
        # Others may have what is left: a beat finds out whether they live.
        self._beat_at = min(self._beat_at, poll_at)

    def _news(self) -> str | None:
        """What the worker reports, when that has changed and the last report is some seconds old,
        or at once when it says why nothing moves. It goes with what is written anyway, or else
        alone."""
        now, last, report = clock_ms(), self._told, self.report()
        is_due = now >= self._tell_at and report != last
        if last is not None and not is_due and not report.is_urgent_after(last):
            return None
        self._told, self._tell_at = report, now + _TELL_EVERY_MS
        return report.to_json()

    async def _look_for_orders(self) -> None:
        self._orders_at = clock_ms() + _POLL_MS
        report = self._news()
        orders = await self._patiently(lambda: self._worker.orders(report))
        if orders is not None:  # else the next beat joins again
            self._take_orders(orders)

    def _take_orders(self, orders: Orders) -> None:
        self._orders_at = clock_ms() + _POLL_MS
        if orders == self._orders:
            return
        self._orders = orders
        if self.paused and not orders.paused:
            self._pacer.forget_trouble()
        self.paused = orders.paused
        self._pacer.slots = orders.slots
        self.limits = self._spec.limits.overruled(
            orders.requests_per_minute, orders.tokens_per_minute
        )
        self._look_at = 0
        self.obey(orders)

    async def _beat(self) -> None:
        self._beat_at = clock_ms() + self._beat_every_ms
        if not await self._patiently(self._worker.beat):
            await self._join_again()
        self._pacer.server.workers = self._worker.live_workers

    async def _join_again(self) -> None:
        self._warn("this worker was taken for dead (was it suspended?); it joins again")
        await self._patiently(self._worker.join)
        self._told = None
        self._look_at = 0
