"""The committer: the one task of a worker that writes, and through which every slot goes.

A slot hands in what it finished and waits for its next item; the committer takes everything that
has gathered, makes one `exchange` of it, and answers the slots after the commit. The next exchange
starts when the last one is over and anything waits, without a timer: at low load an answer is
committed alone and at once, at high load hundreds share a commit.

Whatever else a worker writes goes through this task too: reservations of a budget, tries that are
charged late, and its membership.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from batchgen.clock import clock_ms, now_ms
from batchgen.errors import StoreError
from batchgen.items import Beside, Item, KeepAnswer, Outcome
from batchgen.store import Budget, ClaimRequest, Exchange, Grant, Reservation, Seat
from batchgen.worker.demand import LOOK_EVERY_MS, Demand
from batchgen.worker.membership import Membership
from batchgen.worker.patience import Patience
from batchgen.worker.permits import Permits
from batchgen.worker.stats import Stats

_Handed = tuple[Outcome, asyncio.Future[int | None]]


class Committer:
    def __init__(
        self,
        seat: Seat,
        demand: Demand,
        membership: Membership,
        permits: Permits,
        patience: Patience,
        *,
        budget: Budget | None,
        stats: Stats,
        warn: Callable[[str], None],
    ) -> None:
        self._seat = seat
        self._demand = demand
        self._membership = membership
        self._permits = permits
        self._patience = patience
        self._budget = budget
        self._stats = stats
        self._warn = warn
        self._wake = asyncio.Event()
        self._handed_in: list[_Handed] = []
        self._late_charges: list[Item] = []
        self._reservations: list[tuple[Reservation, asyncio.Future[Grant]]] = []
        self._free_slots: deque[asyncio.Future[Item | None]] = deque()
        self._closed = False
        self._warned_of_danger = False

    def hand_in(self, outcome: Outcome) -> asyncio.Future[int | None]:
        """Queue an outcome for the next exchange. The future resolves when it is durable: to its
        attempt's sequence number, or None when no call was made. Unless the item stays running,
        its permit is free at once."""
        future = asyncio.get_running_loop().create_future()
        self._handed_in.append((outcome, future))
        if outcome.attempt is not None:
            self._demand.call_was_settled()
        if not isinstance(outcome.decision, KeepAnswer | Beside):
            self.give_back_permit()
        self._wake.set()
        return future

    def next_item(self) -> asyncio.Future[Item | None]:
        """An item for a free slot, when there is one; None when there will be no more."""
        future = asyncio.get_running_loop().create_future()
        if self._demand.draining:
            future.set_result(None)
        else:
            self._free_slots.append(future)
            self._wake.set()
        return future

    def reserve(self, reservation: Reservation) -> asyncio.Future[Grant]:
        """Whether the call may be sent, once it is durable that it may cost so much."""
        future = asyncio.get_running_loop().create_future()
        self._reservations.append((reservation, future))
        self._wake.set()
        return future

    def charge_late(self, item: Item) -> None:
        """Its last call, handed in without being charged, was its own fault after all."""
        self._late_charges.append(item)
        self._wake.set()

    async def second_call_permit(self) -> None:
        """Until a second call may go out, which has its permit until `give_back_permit`. It comes
        before any item that could be claimed. Not while draining or paused."""
        asked = self._permits.wait_for_second_call()
        self._wake.set()
        try:
            await asked
        except asyncio.CancelledError:
            if not asked.cancelled():  # it had just got it
                self.give_back_permit()
            raise

    def give_back_permit(self) -> None:
        """A call of this worker has ended."""
        self._permits.give_back()
        self._demand.look_now()

    def drain(self) -> None:
        """Claim no more, and let the free slots go."""
        self._demand.draining = True
        while (slot := self._free_slot()) is not None:
            slot.set_result(None)
        self._wake.set()

    def halt(self, why: str) -> None:
        """Claim no more: no request would work."""
        if self._stats.halted is None:
            self._stats.halted = why
            self.drain()

    def close(self) -> None:
        """Write what is handed in, and end `run`."""
        self._closed = True
        self._wake.set()

    async def run(self) -> None:
        """Until closed. Raises StoreError when the database cannot be written for so long that
        `patience` is at its end."""
        while True:
            await self._wait()
            if self._demand.second_calls(clock_ms()):
                self._permits.grant_second_calls(clock_ms())
            await self._exchange()
            await self._charge()
            await self._reserve()
            await self._membership.keep_up()
            if self._closed and not self._handed_in:
                return

    async def write_rest(self) -> None:
        """Once `run` has failed: write what was handed in, since it is paid for. If that cannot be
        either, leave as one that died: whoever takes over keeps the calls as unknown ones."""
        try:
            await self._seat.exchange([outcome for outcome, _ in self._handed_in], ClaimRequest())
        except StoreError:
            self._seat.abandon()

    async def _wait(self) -> None:
        """Until something is handed in, a claim may succeed, or the membership is due."""
        while not (self._has_work() or self._demand.claims(len(self._free_slots), clock_ms())):
            self._wake.clear()
            now = clock_ms()
            look_at, due_at = self._demand.next_look_at(now), self._membership.due_at
            pause_s = (due_at if look_at is None else min(look_at, due_at)) - now
            if pause_s <= 0:
                break
            try:
                async with asyncio.timeout(pause_s / 1000):
                    await self._wake.wait()
            except TimeoutError:
                pass
        # One turn of the loop: slots that are ready to hand something in join this commit.
        await asyncio.sleep(0)

    def _has_work(self) -> bool:
        return bool(
            self._handed_in
            or self._late_charges
            or self._reservations
            or self._closed
            or self._demand.second_calls(clock_ms())
        )

    async def _exchange(self) -> None:
        handed_in, self._handed_in = self._handed_in, []
        want = self._demand.request(len(self._free_slots), self._membership.limits, clock_ms())
        if handed_in or want.slots:
            done = await self._write(handed_in, want)
            await self._follow_up(done, want)

    async def _write(self, handed_in: list[_Handed], want: ClaimRequest) -> Exchange:
        outcomes = [outcome for outcome, _ in handed_in]
        self._demand.learn_tokens(outcomes, self._membership.limits)
        exchange = partial(self._seat.exchange, outcomes, want, self._membership.changed_report())
        try:
            done = await self._patience.run(exchange, has_answers=bool(outcomes))
        except StoreError:
            self._handed_in = handed_in + self._handed_in
            raise
        for (_, future), seq in zip(handed_in, done.attempt_seqs, strict=True):
            if not future.done():
                future.set_result(seq)
        return done

    async def _follow_up(self, done: Exchange, want: ClaimRequest) -> None:
        self._warn_of(done)
        await self._membership.hear(done.orders)
        self._give_out(done.items)
        if want.slots:
            self._stats.limited_to_rpm = done.limited_to_rpm
        if len(done.items) < want.slots:
            self._plan_next_look(done)

    def _warn_of(self, done: Exchange) -> None:
        if done.lost:
            self._warn(
                f"{len(done.lost)} answers came after this worker had been taken for dead; "
                "they are kept as attempts, but others have the items now"
            )
        if not self._warned_of_danger and (warning := self._seat.warning):
            self._warned_of_danger = True
            self._warn(warning)

    def _give_out(self, items: list[Item]) -> None:
        for item in items:
            self._permits.take()
            slot = self._free_slot()
            if slot is not None:
                slot.set_result(item)
        self._demand.claimed(len(items))
        if self._demand.is_used_up:
            self.drain()

    def _free_slot(self) -> asyncio.Future[Item | None] | None:
        """None when there is none, or all were cancelled: then the item that was claimed for it
        goes back as the worker leaves."""
        while self._free_slots:
            slot = self._free_slots.popleft()
            if not slot.done():
                return slot
        return None

    def _plan_next_look(self, done: Exchange) -> None:
        """Fewer items came than were wanted."""
        if self._handed_in:
            return  # slots finished meanwhile, so the next exchange knows more
        if self._demand.is_met(done):
            self.drain()
            return
        now = clock_ms()
        due_in_ms = None if done.next_at is None else done.next_at - now_ms()
        self._demand.found_too_few(due_in_ms, now)
        self._membership.beat_by(now + LOOK_EVERY_MS)

    async def _charge(self) -> None:
        if self._late_charges:
            items, self._late_charges = self._late_charges, []
            await self._patience.run(partial(self._seat.charge, items))

    async def _reserve(self) -> None:
        if not self._reservations:
            return
        asked, self._reservations = self._reservations, []
        assert self._budget is not None
        wanted = [reservation for reservation, _ in asked]
        reserve = partial(self._seat.reserve, wanted, self._budget)
        grants = await self._patience.run(reserve)
        for (_, future), grant in zip(asked, grants, strict=True):
            if grant is Grant.WAIT:
                self._demand.budget_was_short(clock_ms())
            if not future.done():
                future.set_result(grant)
