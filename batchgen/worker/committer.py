"""The committer: the one task of a worker that writes, and through which every slot goes.

A slot hands in what it finished and waits for its next item; the committer takes everything that
has gathered, makes one `exchange` of it, and answers the slots after the commit. The next exchange
starts when the last one is over and anything waits, without a timer: at low load an answer is
committed alone and at once, at high load hundreds share a commit.

Whatever else a worker writes goes through this task too: reservations of a budget, tries that are
charged late, and its membership.
"""

import asyncio
import traceback
from collections.abc import Mapping
from functools import partial

from msgspec.structs import replace

from batchgen.clock import clock_ms, now_ms
from batchgen.errors import Remedy, StoreError, StoreRefusedError
from batchgen.items import Item, KeepAnswer, Outcome
from batchgen.store import ClaimRequest, Condemned, Exchange, Grant, Reservation, Seat
from batchgen.worker.demand import LOOK_EVERY_MS, Demand
from batchgen.worker.fallback import with_failed_item, with_unknown_calls
from batchgen.worker.halts import nobody_answered, too_many_failed
from batchgen.worker.membership import Membership
from batchgen.worker.permits import Permits
from batchgen.worker.servers import Servers
from batchgen.worker.spec import WorkSpec
from batchgen.worker.stats import Halt, HaltKind, RunLog, Stats
from batchgen.worker.store_retries import StoreRetries
from batchgen.worker.waiting import Asked, FreeSlots


class Committer:
    """The committer of one worker."""

    def __init__(
        self,
        seat: Seat,
        demand: Demand,
        membership: Membership,
        permits: Permits,
        store_retries: StoreRetries,
        servers: Servers,
        spec: WorkSpec,
        stats: Stats,
        log: RunLog,
    ) -> None:
        self._seat = seat
        self._demand = demand
        self._membership = membership
        self._permits = permits
        self._store_retries = store_retries
        self._servers = servers
        self._budget = spec.budget
        self._max_failures = spec.max_failures
        self._stats = stats
        self._log = log
        self._wake = asyncio.Event()
        self._outcomes = Asked[Outcome, int | None]()
        self._reservations = Asked[Reservation, Grant]()
        self._late_charges: list[Item] = []
        self._second_calls: set[int] = set()  # of which items they were begun
        self._free_slots = FreeSlots()
        self._closed = False

    def hand_in(self, outcome: Outcome) -> asyncio.Future[int | None]:
        """Queue an outcome for the next exchange. The future resolves when it is durable: to its
        attempt's sequence number, or None when no call was made. Unless the item stays running,
        its permit is free at once."""
        if outcome.attempts:
            self._demand.call_was_settled()
        if not isinstance(outcome.decision, KeepAnswer):
            if outcome.item.probe:
                self._servers[outcome.item.server].trials.probes(-1)
            self._permits.end(outcome.item)
            self._demand.look_now()
        self._wake.set()
        return self._outcomes.add(outcome)

    def next_item(self) -> asyncio.Future[Item | None]:
        """An item for a free slot, when there is one; None when there will be no more."""
        slot = self._free_slots.add()
        if self._demand.draining:
            self._free_slots.release()
        self._wake.set()
        return slot

    def reserve(self, reservation: Reservation) -> asyncio.Future[Grant]:
        """Whether the call may be sent, once it is durable that it may cost so much."""
        self._wake.set()
        return self._reservations.add(reservation)

    def charge_late(self, item: Item) -> None:
        """Use up one more try of an item that was handed in without: the fault was its own."""
        self._late_charges.append(item)
        self._wake.set()

    async def second_call_permit(self, item: Item) -> str | None:
        """Until a second call for the item may go out, and to which server: then it is durable that
        there are two, and it has a permit there until `give_back_permit`. It comes before any item
        that could be claimed. Not while draining or paused. None: the item is another worker's by
        now."""
        may_go_out = self._permits.wait_for_second_call(item)
        self._wake.set()
        try:
            return await may_go_out
        except asyncio.CancelledError:
            if not may_go_out.cancelled() and (server := may_go_out.result()):  # it had just got it
                self.give_back_permit(server)
            raise

    def give_back_permit(self, server: str) -> None:
        """A call of this worker has ended."""
        self._permits.give_back(server)
        self._demand.look_now()

    def drain(self) -> None:
        """Claim no more, and let the free slots go."""
        self._demand.draining = True
        self._free_slots.release()
        self._wake.set()

    def halt(self, halt: Halt) -> None:
        """Claim no more: no request would work."""
        if self._stats.halted is None:
            self._stats.halted = halt
            self.drain()

    def close(self) -> None:
        """Write what is handed in, and end `run`."""
        self._closed = True
        self._wake.set()

    async def conclude_trial(self) -> None:
        """All that was to be asked has been, and is written. What nobody has been answered to is
        halted for, too, when it was little."""
        want = self._demand.request(0, self._membership.limits, clock_ms())
        conclude = partial(self._seat.conclude_trials, want)
        self._give_up(await self._store_retries.run(conclude))

    async def run(self) -> None:
        """Until closed. Raises StoreError when the database could not be written for too
        long; an outcome that it refuses fails its item, and the others go on."""
        while True:
            await self._wait()
            await self._begin_second_calls()
            await self._exchange()
            await self._charge()
            await self._reserve()
            await self._membership.keep_up()
            if self._closed and not self._outcomes:
                return

    async def write_rest(self) -> None:
        """Once `run` has failed: write what was handed in, since it is paid for. If that cannot be
        either, leave as one that died: whoever takes over keeps the calls as unknown ones."""
        outcomes = self._outcomes.asks()
        try:
            await self._seat.exchange(outcomes, ClaimRequest())
        except Exception as exc:
            if _is_refusal(exc):
                await self._write_rest_apart(outcomes)
                return
            self._seat.abandon()
            if lost := sum(len(outcome.attempts) for outcome in outcomes):
                calls = f"{lost} call has" if lost == 1 else f"{lost} calls have"
                self._log.warn(
                    f"{calls} ended that could not be written: what came of them is lost, and is "
                    "asked again"
                )

    async def _write_rest_apart(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            try:
                await self._write_alone(outcome, ClaimRequest())
            except Exception:
                self._seat.abandon()

    async def _wait(self) -> None:
        """Until something is to be written, a claim may succeed, or the membership is due."""
        while not (
            self._has_work() or self._demand.is_worth_a_claim(len(self._free_slots), clock_ms())
        ):
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
            self._outcomes
            or self._late_charges
            or self._reservations
            or self._closed
            or self._demand.second_calls(clock_ms())
        )

    async def _begin_second_calls(self) -> None:
        if not self._demand.second_calls(clock_ms()):
            return
        calls = self._permits.take_for_second_calls(clock_ms())
        items = [replace(item, server=server) for item, server, _ in calls]
        begin = partial(self._seat.begin_second_calls, items, self._membership.limits)
        ours = await self._store_retries.run(begin)
        self._second_calls |= ours
        for item, server, may_go_out in calls:
            has_ended = may_go_out.done()  # its first call has, meanwhile
            if not has_ended:
                may_go_out.set_result(server if item.id in ours else None)
            if has_ended or item.id not in ours:
                self.give_back_permit(server)

    async def _exchange(self) -> None:
        limits = self._membership.limits
        wants_all = 0 < self._permits.for_claims(clock_ms()) <= len(self._free_slots)
        want = self._demand.request(len(self._free_slots), limits, clock_ms())
        outcomes = [self._with_unsent(outcome) for outcome in self._outcomes.asks()]
        if not (outcomes or want.slots):
            return
        self._demand.learn_tokens(outcomes, limits)
        exchange = partial(self._seat.exchange, outcomes, want, self._membership.changed_report())
        try:
            done = await self._store_retries.run(exchange, has_answers=bool(outcomes))
        except Exception as exc:
            if not (outcomes and _is_refusal(exc)):
                raise
            await self._write_apart(outcomes)
            return
        await self._observe(done)
        self._give_out(done.items)
        if wants_all and len(done.items) >= want.slots:
            self._servers.all_claimed()
        if want.calls:
            self._observe_limited(done)
        if len(done.items) < want.slots:
            self._plan_next_look(want, done)

    def _observe_limited(self, done: Exchange) -> None:
        """What limits hold claims to: of all servers together."""
        limited = [one for one in done.limited.values() if one.limited_to_rpm is not None]
        are_all = len(limited) == sum(server.left_out is None for server in self._servers)
        rpm = sum(one.limited_to_rpm or 0.0 for one in limited)
        self._stats.limited_to_rpm = rpm if limited and are_all else None
        self._stats.limited_by = limited[0].limited_by if limited and are_all else None
        paused = [one.next_at for one in done.limited.values() if one.limited_to_rpm is None]
        self._stats.paused_until = min(filter(None, paused), default=None)
        is_held = done.on_trial or limited
        self._stats.next_item_at = None if is_held else done.next_at

    def _with_unsent(self, outcome: Outcome) -> Outcome:
        """Where a second call was begun but never went out, as the first ended or was abandoned."""
        if outcome.item.id not in self._second_calls:
            return outcome
        self._second_calls.discard(outcome.item.id)
        return replace(outcome, second_call_unsent=len(outcome.attempts) < 2)

    async def _write_apart(self, outcomes: list[Outcome]) -> None:
        """Each in a transaction of its own, as one of them is refused. One that is refused whatever
        is left out of it ends the worker, once the others are written."""
        refused: Exception | None = None
        for outcome in outcomes:
            claims_nothing = self._demand.request(0, self._membership.limits, clock_ms())
            try:
                done = await self._write_alone(outcome, claims_nothing)
            except Exception as exc:
                if not _is_refusal(exc):
                    raise
                self._outcomes.pass_over_first()
                refused = exc
                continue
            await self._observe(done)
        if refused is not None:
            raise refused

    async def _observe(self, done: Exchange) -> None:
        self._outcomes.answer(done.attempt_seqs)
        for server in self._servers:
            server.trials.observe(done)
        for one in done.acquitted:
            self._log.acquitted(one)
        self._give_up(done.condemned)
        if done.failed is not None:
            words = too_many_failed(done.failed, str(self._max_failures))
            self.halt(Halt(words, Remedy.ALLOW_MORE_FAILURES, HaltKind.FAILURES))
        await self._membership.observe(done)

    def _give_up(self, condemned: Mapping[str, Condemned]) -> None:
        for key, why in condemned.items():
            server = self._servers[key]
            self._servers.give_up(server, nobody_answered(why, server.spec), clock_ms())

    async def _write_alone(self, outcome: Outcome, claims_nothing: ClaimRequest) -> Exchange:
        """As much of it as the database takes: first without what it gives back to the limits. When
        that is nothing, its claim is left to who takes over from the dead, for whom its calls are
        unknown ones."""
        try:
            return await self._write(outcome, claims_nothing)
        except Exception as exc:
            if not _is_refusal(exc):
                raise
        for reduced in (with_failed_item, with_unknown_calls):
            try:
                return await self._write(outcome, ClaimRequest())
            except Exception as exc:
                if not _is_refusal(exc):
                    raise
                self._log.bug(f"item {outcome.item.id}: {exc}", traceback.format_exc())
                outcome = reduced(outcome, exc)
        try:
            return await self._write(outcome, ClaimRequest())
        except Exception:
            self._seat.abandon()
            raise

    async def _write(self, outcome: Outcome, claims_nothing: ClaimRequest) -> Exchange:
        exchange = partial(self._seat.exchange, [outcome], claims_nothing)
        return await self._store_retries.run(exchange, has_answers=True)

    def _give_out(self, items: list[Item]) -> None:
        for item in items:
            if item.probe:
                self._servers[item.server].trials.probes(+1)
            self._stats.waits_for_more = False
        self._permits.take(items)
        self._free_slots.give(items)
        self._demand.claimed(len(items))
        if self._demand.is_used_up:
            self.drain()

    def _plan_next_look(self, want: ClaimRequest, done: Exchange) -> None:
        """Fewer items came than were wanted."""
        now = clock_ms()
        code = sum(item.runs_code for item in done.items)
        if code < want.slots - want.calls:
            self._demand.found_too_little_code(now)
        if self._outcomes:
            return  # slots finished meanwhile, so the next exchange knows more
        if self._demand.is_met(done):
            self.drain()
            return
        self._stats.waits_for_more = done.open == 0
        if len(done.items) - code < want.calls:
            due_in_ms = None if done.next_at is None else done.next_at - now_ms()
            self._demand.found_too_few(due_in_ms, now)
        self._membership.heartbeat_by(now + LOOK_EVERY_MS)

    async def _charge(self) -> None:
        if self._late_charges:
            items, self._late_charges = self._late_charges, []
            await self._store_retries.run(partial(self._seat.charge, items))

    async def _reserve(self) -> None:
        if not self._reservations:
            return
        wanted = self._reservations.asks()
        try:
            await self._reserve_together(wanted)
        except Exception as exc:
            if not _is_refusal(exc):
                raise
            for one in wanted:
                await self._reserve_alone(one)

    async def _reserve_together(self, wanted: list[Reservation]) -> None:
        assert self._budget is not None
        reserve = partial(self._seat.reserve, wanted, self._budget)
        grants = await self._store_retries.run(reserve)
        if Grant.WAIT in grants:
            self._demand.budget_was_short(clock_ms())
        self._reservations.answer(grants)

    async def _reserve_alone(self, one: Reservation) -> None:
        """When it is refused, its item meets the error, and the others do not."""
        try:
            await self._reserve_together([one])
        except Exception as exc:
            if not _is_refusal(exc):
                raise
            grant = self._reservations.pass_over_first()
            if not grant.done():
                grant.set_exception(exc)


def _is_refusal(exc: Exception) -> bool:
    """Whether something in what was to be written is to blame, and not the database or its disk."""
    return isinstance(exc, StoreRefusedError) or not isinstance(exc, StoreError)
