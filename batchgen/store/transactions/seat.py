"""One worker's side of the store: its lease, its lock, its exchanges, and who is dead."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from batchgen.clock import clock_ms, now_ms
from batchgen.errors import Remedy, StoreBusyError
from batchgen.items import Item, Outcome
from batchgen.limits import Limits, Share, Told
from batchgen.shutdown import uninterrupted
from batchgen.store.calls_ahead import CallsAhead, WantedAhead
from batchgen.store.claim_place import ClaimPlace
from batchgen.store.records import WorkerKind, WorkerRow
from batchgen.store.server_wants import AskedServer
from batchgen.store.transaction import Transaction
from batchgen.store.transactions import budget as budgets
from batchgen.store.transactions import capacities, queue, steering
from batchgen.store.transactions.ahead import take_calls_ahead
from batchgen.store.transactions.finish import give_back
from batchgen.store.transactions.living import workers
from batchgen.store.transactions.suspects import forget_trials_of_other_runs
from batchgen.store.values import (
    Budget,
    ClaimRequest,
    Condemned,
    Exchange,
    Grant,
    Orders,
    Reservation,
)

if TYPE_CHECKING:
    from batchgen.store.database import Database, SeatLock

# Less is how a clock is kept right, little by little.
_CLOCK_JUMP_MS = 2000
# A lease is renewed six times in its time: this part of it, twice in a row, leaves it running.
_HELD_UP = 4


class Seat:
    """One worker's side of the store: its lease, its lock, and its exchanges."""

    def __init__(
        self, database: "Database", slots: int, lease_ms: int, max_crashes: int,
        servers: Sequence[AskedServer], run: str, kind: WorkerKind,
    ) -> None:  # fmt: skip
        self._db = database
        self._kind = kind
        self._run = run
        self._servers = servers
        self._orders = Orders(slots)
        self._lease_ms = lease_ms
        self._max_crashes = max_crashes
        self._lock: SeatLock | None = None
        self._clock_offset_ms = _clock_offset_ms()
        self._lease_until_s = 0.0  # of the monotonic clock, as is the next
        self._leases_count_at_s = 0.0
        self._place = ClaimPlace()
        self._ahead = None if database.takes_turns else CallsAhead()
        self._joined = False
        self._abandoned = False
        self.id = 0
        self.live_workers = 1  # the workers that lived at the last heartbeat, this one included
        # By server: how many calls at once it takes of this worker, as others have found.
        self.first_shares: dict[str, int] = {}

    @property
    def first_orders(self) -> Orders:
        """As it was started."""
        return Orders(self._orders.slots)

    async def join(self) -> None:
        """Become a worker, and take over from those that died."""

        def transaction(db: Transaction) -> None:
            alive = [row for row in workers(db) if self._is_alive(row)]
            asked = {server for row in alive for server in row.servers}
            for one in self._servers:
                if one.key not in asked:
                    forget_trials_of_other_runs(db, one.key, self._run, now_ms())
            slots = self._orders.slots
            self.id = queue.join(
                db,
                self._db.members.machine(),
                os.getpid(),
                slots,
                now_ms(),
                self._lease_ms,
                self._servers,
                self._kind,
            )
            self.first_shares = capacities.first_shares(
                db, self.id, slots, self._servers, alive, now_ms()
            )
            steering.change_orders(db, {self.id: self._orders})  # of its previous registration
            # Inside the transaction: nobody can see the row before the lock is held.
            self._lock = self._db.members.lock_of(self.id)
            if not self._lock.acquire():
                raise StoreBusyError(
                    f"{self._db.name}: a process still works on the database that was at this "
                    f"place before ({self._lock.holder()}). End it.",
                    Remedy.RUN_AGAIN,
                )
            queue.shift_retry_times(db, now_ms())

        async def write() -> None:
            await self._db.write(transaction)
            self._joined = True
            self._db.counts_for(self.id)

        self._joined = False  # when it was taken for dead; its lock was of that registration
        self._ahead = self._ahead and CallsAhead()  # and so were these
        self._release_lock()
        await uninterrupted(write())  # or one that is cancelled would not know that it has joined
        await self.heartbeat()

    async def heartbeat(self) -> bool:
        """Extend the lease and take over what dead workers had. False: we were taken for dead."""
        await self._db.compare_clocks()
        jumped_ms = self._watch_the_clock()

        def transaction(db: Transaction) -> tuple[bool, int]:
            others = [row for row in workers(db) if row.id != self.id]
            # After the first rows are there, as it may have been a long wait for the gate.
            lapsed = time.monotonic() >= self._lease_until_s
            if jumped_ms or lapsed:
                self._distrust_leases()
            self._distrust_leases_if_held_up()
            queue.shift_retry_times(db, now_ms(), -jumped_ms)
            self._lease_until_s = time.monotonic() + self._lease_ms / 1000
            dead = sum(map(self._is_dead, others))
            self.live_workers = 1 + len(others) - dead
            return queue.heartbeat(db, self.id, now_ms() + self._lease_ms), dead

        is_member, dead = await self._db.write_beside(transaction)
        if dead:  # alone: what they had in hand may be under way to the database
            await self._db.write(self._take_over_from_dead)
        return is_member

    async def exchange(
        self,
        outcomes: Sequence[Outcome],
        want: ClaimRequest,
        report: str | None = None,
    ) -> Exchange:
        """Write what slots finished and claim what they do next: durable when it returns. `report`
        is what the worker reports (JSON), if that is new."""
        ahead = self._ahead
        if ahead is not None:
            await self._take(ahead.wanted(want.servers, want.calls, outcomes, clock_ms()))

        after = self._place.after(clock_ms())

        def transaction(db: Transaction) -> Exchange:
            # Inside, as it may have been a long wait for the gate: limits count by the time.
            done = queue.exchange(db, self.id, outcomes, want, now_ms(), ahead, after)
            if report is not None and done.orders is not None:
                steering.save_report(db, self.id, report)
            return done

        done = await self._db.write_beside(transaction)
        self._orders = done.orders or self._orders
        self._place.go_on(done.items)
        if ahead is not None and ahead.were_claimed(outcomes, done.items):
            await self._take(ahead.unused())
        return done

    async def _take(self, wanted: Mapping[str, WantedAhead]) -> None:
        """Calls ahead; also bring some back, and tell of others."""
        if not wanted or self._ahead is None:
            return
        asked_at, epoch_ms = clock_ms(), now_ms() - clock_ms()
        take = take_calls_ahead
        allowed = await self._db.write_beside(take, self.id, wanted, now_ms)
        self._ahead.were_allowed(wanted, allowed, asked_at, epoch_ms)

    async def orders(
        self, report: str | None = None, told: Mapping[str, Told] | None = None
    ) -> tuple[Orders | None, Mapping[str, Share]]:
        """What others want of this worker; None: it was taken for dead. `report` is what it
        reports (JSON), if that is new. By server, what it has `told` the others, and its shares."""
        told = told or {}

        def look(db: Transaction) -> tuple[Orders | None, Mapping[str, Share] | None]:
            orders = steering.orders_of(db, self.id)
            return orders, capacities.told_as_before(db, self.id, told, now_ms()) if orders else {}

        def write(db: Transaction) -> tuple[Orders | None, Mapping[str, Share]]:
            if (orders := steering.orders_of(db, self.id)) is None:
                return None, {}
            if report is not None:
                steering.save_report(db, self.id, report)
            return orders, capacities.tell(db, self.id, told, now_ms())

        orders, shares = await self._db.read(look) if report is None else (None, None)
        found = (orders, shares) if shares is not None else await self._db.write_beside(write)
        self._orders = found[0] or self._orders
        return found

    async def begin_second_calls(
        self, items: Sequence[Item], limits: Mapping[str, Limits]
    ) -> set[int]:
        """The numbers of those items that are still this worker's: for each of them a second call
        may be sent, and until its outcome is written a crash leaves two calls as unknown ones. It
        takes its share of its server's `limits`. Durable on return; each outcome then has both
        attempts."""

        ahead = self._ahead

        def transaction(db: Transaction) -> set[int]:
            return queue.begin_second_calls(db, items, {} if ahead else limits, now_ms())

        ours = await self._db.write_beside(transaction)
        if ahead is not None:
            ahead.send_second_calls((item for item in items if item.id in ours), limits)
        return ours

    async def reserve(self, wanted: Sequence[Reservation], budget: Budget) -> list[Grant]:
        """Reserve the most that these calls can cost, as far as the budget goes; an answer each."""
        return await self._db.write_beside(budgets.reserve, self.id, wanted, budget)

    async def charge(self, items: Sequence[Item]) -> None:
        """One more try used up by each."""
        await self._db.write_beside(queue.charge, items)

    async def give_back(self) -> int:
        """All that it has claimed goes back, untouched; how many rows these were."""

        def transaction(db: Transaction) -> int:
            return give_back(
                db, self.id, crashed=False, sends=self._kind is WorkerKind.SENDER,
                max_crashes=self._max_crashes, now=now_ms(),
            )  # fmt: skip

        return await self._db.write(transaction)

    async def conclude_trials(self, want: ClaimRequest) -> dict[str, Condemned]:
        """When this worker has asked all that it was to ask: by server, of those that no other
        asks, why nobody was answered. Of one that is not there somebody was, or those that were not
        failed by themselves."""
        return await self._db.write(queue.conclude_trials, self.id, want, now_ms())

    @property
    def warning(self) -> str | None:
        """What endangers the database and was seen since it was opened; None: nothing was."""
        return self._db.danger

    def abandon(self) -> None:
        """The database could not be written: leave its claims to who takes over from the dead."""
        self._abandoned = True

    async def leave(self) -> None:
        """Give back what is still claimed, untouched, and be gone. When that cannot be written,
        whoever takes over keeps an unknown call for each claim, as after a crash."""

        def transaction(db: Transaction) -> None:
            queue.remove_worker(
                db, self.id, crashed=False, max_crashes=self._max_crashes, now=now_ms(),
                kind=self._kind,
            )  # fmt: skip
            # Before the commit: whoever is killed in between leaves a row without a lock, which the
            # next worker removes, and not a lock file without a row, which nobody would.
            self._release_lock()

        try:
            if self._joined and not self._abandoned:
                await self._db.write(transaction)
                self._joined = False
                self._db.counts_for(0)
        finally:
            self._release_lock(keep_file=self._joined)  # without it nobody could tell that it left

    def _release_lock(self, *, keep_file: bool = False) -> None:
        if self._lock:
            self._lock.release(keep_file=keep_file)
            self._lock = None

    def _watch_the_clock(self) -> int:
        """How far it jumped since the last heartbeat: set by hand, or a laptop that slept."""
        jumped_ms = _clock_offset_ms() - self._clock_offset_ms
        self._clock_offset_ms += jumped_ms
        return jumped_ms if abs(jumped_ms) > _CLOCK_JUMP_MS else 0

    def _distrust_leases(self) -> None:
        """After a jump of the clock, when somebody kept the gate for long (our own lease ran out
        too, or we are new and cannot know), or when the server was away, the leases of all look run
        out, though everybody lives: until they had time for a heartbeat, leases tell nothing."""
        self._leases_count_at_s = time.monotonic() + self._lease_ms / 1000

    def _distrust_leases_if_held_up(self) -> None:
        """Who waits to be alone holds up all others, who waited before it; and some are renewed
        sooner than others afterwards."""
        if self._db.held_up_s() > self._lease_ms / 1000 / _HELD_UP:
            self._distrust_leases()

    def _is_alive(self, row: WorkerRow) -> bool:
        return not self._db.members.is_dead(row, leases_count=False)

    def _is_dead(self, row: WorkerRow) -> bool:
        leases_count = time.monotonic() >= self._leases_count_at_s
        return self._db.members.is_dead(row, leases_count=leases_count)

    def _take_over_from_dead(self, db: Transaction) -> None:
        """As far as nobody else has meanwhile."""
        others = [row for row in workers(db) if row.id != self.id]
        self._distrust_leases_if_held_up()  # by now: the rows come when the others have ended
        dead = [row for row in others if self._is_dead(row)]
        _take_over(self._db, db, dead, self._max_crashes)


def _clock_offset_ms() -> int:
    """The clock of the wall against one that nobody sets, and that stops while a laptop sleeps."""
    return now_ms() - time.monotonic_ns() // 1_000_000


async def take_over_from_dead(database: "Database") -> None:
    """What workers had that died goes back, as if a new worker took over. It fails no item: whether
    one is to be blamed is for a worker to say."""

    is_dead, asked_at = database.members.is_dead, now_ms()

    def transaction(db: Transaction) -> None:
        # Leases that ran out since then may have done so because all waited for this one.
        rows = workers(db)
        dead = [row for row in rows if is_dead(row, leases_count=row.lease_until < asked_at)]
        _take_over(database, db, dead, sys.maxsize)

    await database.write(transaction)


def _take_over(
    database: "Database", db: Transaction, dead: Sequence[WorkerRow], max_crashes: int
) -> None:
    for row in dead:
        queue.remove_worker(
            db, row.id, crashed=True, max_crashes=max_crashes, now=now_ms(), kind=row.kind
        )
        database.members.lock_of(row.id).remove()
