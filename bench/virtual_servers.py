"""Servers that refuse, and workers that call them, in virtual time; instants are in ms.

What decides is the worker's real `Pacer`, or a rival of it. There is always something to ask, or so
many items; one that is refused is asked again when the worker's rules say. A refusal is known after
`REFUSED_AFTER_MS`; how long an answer takes is drawn, around a mean.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple, Protocol

from batchgen.items import Answer, Failure, Item, Reason, Retry, Trouble, Usage
from batchgen.limits import Parts, Share, Told
from batchgen.llm.decide import RetryPolicy, decide_on_failure
from batchgen.worker.pacer import Pacer

REFUSED_AFTER_MS = 20
# Workers that share a server look into their table with what they write, and once a second.
LOOK_EVERY_MS = 1000
SIGMA = 0.4


class Refused(NamedTuple):
    """`status` None: the connection was."""

    status: int | None = 429
    retry_after_s: float | None = None


LIMITED, UNAVAILABLE, UNREACHABLE = Refused(429), Refused(503), Refused(None)


class Server(Protocol):
    """`begin` a call: None when it is taken; then `end` follows. `best` answers a second are all
    that anybody with so many slots gets."""

    @property
    def latency_s(self) -> float: ...
    def begin(self, now: int, rng: random.Random, /) -> Refused | None: ...
    def end(self) -> None: ...
    def best(self, slots: int, /) -> float: ...


@dataclass
class Free:
    """It refuses a share of `strays`, whatever is sent."""

    strays: float = 0.0
    refusal: Refused = LIMITED
    latency_s: float = 1.0

    def begin(self, _now: int, rng: random.Random) -> Refused | None:
        return self.refusal if rng.random() < self.strays else None

    def end(self) -> None:
        pass

    def best(self, slots: int) -> float:
        return slots / self.latency_s


@dataclass
class Cap:
    """It takes so many at once: at the times of `at_once`, from then on so many."""

    at_once: dict[int, int]
    refusal: Refused = UNAVAILABLE
    latency_s: float = 1.0
    strays: float = 0.0
    busy: int = 0

    def begin(self, now: int, rng: random.Random) -> Refused | None:
        if self.busy >= self.room(now) or rng.random() < self.strays:
            return self.refusal
        self.busy += 1
        return None

    def room(self, now: int) -> int:
        return [room for at, room in self.at_once.items() if at <= now][-1]

    def end(self) -> None:
        self.busy -= 1

    def best(self, slots: int) -> float:
        return min(slots, *self.at_once.values()) / self.latency_s


@dataclass
class Bucket:
    """A rate limit; `says`: with the time until the next call is taken."""

    per_s: float
    size: float
    says: bool = False
    latency_s: float = 1.0
    level: float = field(init=False)
    at: int = 0

    def __post_init__(self) -> None:
        self.level = self.size

    def begin(self, now: int, _rng: random.Random) -> Refused | None:
        self.level = min(self.size, self.level + (now - self.at) / 1000 * self.per_s)
        self.at = now
        if self.level < 1:
            return Refused(429, (1 - self.level) / self.per_s if self.says else None)
        self.level -= 1
        return None

    def end(self) -> None:
        pass

    def best(self, slots: int) -> float:
        return min(self.per_s, slots / self.latency_s)


@dataclass
class Minutes:
    """So many in each minute of the clock."""

    per_minute: int
    says: bool = True
    latency_s: float = 1.0
    used: Counter[int] = field(default_factory=Counter)

    def begin(self, now: int, _rng: random.Random) -> Refused | None:
        minute = now // 60_000
        if self.used[minute] >= self.per_minute:
            return Refused(429, 60 - now % 60_000 / 1000 if self.says else None)
        self.used[minute] += 1
        return None

    def end(self) -> None:
        pass

    def best(self, _slots: int) -> float:
        return self.per_minute / 60


@dataclass
class Outage:
    """Another server, which answers nobody for a while."""

    server: Server
    start: int
    until: int
    refusal: Refused = UNREACHABLE

    @property
    def latency_s(self) -> float:
        return self.server.latency_s

    def begin(self, now: int, rng: random.Random) -> Refused | None:
        return self.refusal if self.start <= now < self.until else self.server.begin(now, rng)

    def end(self) -> None:
        self.server.end()

    def best(self, slots: int) -> float:
        return self.server.best(slots)


class Holder(Protocol):
    """What says how many calls may be under way, and of one that was `refused` when it may go out
    again."""

    def allowed(self, now: int) -> int: ...
    def next_change_at(self, now: int) -> int | None: ...
    def sent(self, now: int) -> Any: ...
    def taken(self, call: Any, item: int, now: int) -> None: ...
    def refused(self, call: Any, item: int, refused: Refused, now: int) -> int: ...
    def exchange(
        self, table: "WorkTable", worker: int, in_flight: int, needs: int, now: int, /
    ) -> None: ...


_ANSWER = Answer("Hello", "{}", "stop", "m-1", Usage())
_POLICY = RetryPolicy(max_attempts=1_000_000)


@dataclass
class Crew:
    """A worker with so many slots, from `joins_at` on. It drains at `leaves_at`, or dies then, with
    its calls: in time the others notice, `noticed_after` that."""

    slots: int = 50
    joins_at: int = 0
    leaves_at: int | None = None
    dies: bool = False
    noticed_after: int = 30_000


class WorkTable:
    """What the workers know of each other."""

    def __init__(self) -> None:
        self._in_flight: dict[int, int] = {}
        self._needs: dict[int, int] = {}
        self.parts: Parts | None = None

    def tell(self, worker: int, told: Told, now: int) -> Share | None:
        self._in_flight[worker], self._needs[worker] = told.in_flight, told.needs
        if self.parts is None:
            if told.takes is None:
                return None
            self.parts = Parts.found_by(worker, told, self._in_flight, self._needs)
        self.parts, share = self.parts.tell(worker, told, now)
        return share

    def leave(self, worker: int) -> None:
        self._in_flight.pop(worker, None)
        if self.parts is not None:
            of = {number: part for number, part in self.parts.of.items() if number != worker}
            self.parts = Parts(self.parts.cap, of)


class Ours:
    """The worker's `Pacer`; `known` is what others have found."""

    def __init__(self, slots: int, known: int | None = None) -> None:
        self.pacer = Pacer(slots, 1800, 0, known=known)
        self.allowed = self.pacer.allowed
        self.next_change_at = self.pacer.next_change_at
        self.sent = self.pacer.call_sent
        self._rng = random.Random(1)

    def taken(self, call: Any, item: int, now: int) -> None:
        self.pacer.observe(_ANSWER, _item(item), call, now)

    def refused(self, call: Any, item: int, refused: Refused, now: int) -> int:
        reason, trouble = Reason.SERVER, Trouble.UNAVAILABLE
        if refused.status is None:
            reason, trouble = Reason.CONNECTION, Trouble.UNREACHABLE
        failure = Failure(reason, "refused", retry_after_s=refused.retry_after_s, trouble=trouble)
        if refused.status == 429:
            failure = Failure(Reason.RATE_LIMIT, "429", retry_after_s=refused.retry_after_s)
        blame = self.pacer.observe(failure, _item(item), call, now)
        self.pacer.take_late_charges()
        decision = decide_on_failure(
            failure, _item(item), _POLICY, blame=blame, now=now, rng=self._rng,
            refusals=self.pacer.refusals_in_a_row(_item(item), call),
        )  # fmt: skip
        again_at = decision.available_at if isinstance(decision, Retry) else None
        return again_at or now

    def exchange(self, table: WorkTable, worker: int, in_flight: int, needs: int, now: int) -> None:
        told = self.pacer.sharing.tells(in_flight, needs, now)
        if told is not None and (share := table.tell(worker, told, now)) is not None:
            self.pacer.sharing.follow(share, now)


def _item(number: int) -> Item:
    return Item(number, 1, 1, 1, None, "{}")


@dataclass
class Run:
    """What a server saw: when it had answered calls (ms), and when it had refused some."""

    server: Server
    slots: int
    taken_at: list[int] = field(default_factory=list)
    refused_at: list[int] = field(default_factory=list)

    def per_s(self, start_s: float, end_s: float) -> float:
        """Answers a second."""
        found = sum(start_s * 1000 <= at < end_s * 1000 for at in self.taken_at)
        return found / (end_s - start_s)

    def share(self, start_s: float, end_s: float) -> float:
        """Of the best."""
        return self.per_s(start_s, end_s) / self.server.best(self.slots)

    def refused(self, start_s: float, end_s: float) -> float:
        """The share of the calls."""
        refused = sum(start_s * 1000 <= at < end_s * 1000 for at in self.refused_at)
        return refused / max(1.0, refused + self.per_s(start_s, end_s) * (end_s - start_s))


def run(
    server: Server, *, seconds: int, slots: int = 50, workers: int | Sequence[Crew] = 1,
    seed: int = 1, turnaround_ms: int = 0, holder: Callable[[int], Holder] = Ours,
    items: int | None = None,
) -> Run:  # fmt: skip
    """Workers with so many slots each, until all `items` are answered (None: there are always
    more). A slot that is free sends again after a transaction, which takes `turnaround_ms`."""
    crews = [Crew(slots)] * workers if isinstance(workers, int) else workers
    simulation = _Simulation(server, crews, holder, seed, turnaround_ms, items)
    simulation.work(seconds * 1000)
    return simulation.run


class _Sent(NamedTuple):
    """A call, as its holder knows it, and its item."""

    call: Any
    item: int


class _Worker:
    def __init__(self, number: int, crew: Crew, holder: Holder) -> None:
        self.number = number
        self.crew = crew
        self.holder = holder
        self.under_way = 0
        self.wakes_at = -1
        self.exchanges_at = -1

    def has_left(self, now: int) -> bool:
        return self.crew.leaves_at is not None and now >= self.crew.leaves_at

    def is_dead(self, now: int) -> bool:
        return self.crew.dies and self.has_left(now)


class _Simulation:
    def __init__(
        self, server: Server, crews: Sequence[Crew], holder: Callable[[int], Holder], seed: int,
        turnaround_ms: int, items: int | None,
    ) -> None:  # fmt: skip
        self._server = server
        self._left = items
        self._fresh = iter(count(1) if items is None else range(1, items + 1))
        self._next_fresh = next(self._fresh, None)
        self._due: list[tuple[int, int]] = []  # when refused items may go out again
        self._turnaround_ms = turnaround_ms
        self._rng = random.Random(seed)
        self._order = count()
        self._events: list[tuple[int, int, _Worker, _Sent | None, Refused | None]] = []
        self._workers = [
            _Worker(number, crew, holder(crew.slots)) for number, crew in enumerate(crews)
        ]
        self.table = WorkTable()
        self.run = Run(server, sum(crew.slots for crew in crews))

    def work(self, until: int) -> None:
        for worker in self._workers:
            self._push(worker.crew.joins_at, worker, None, None)
            worker.exchanges_at = worker.crew.joins_at
            if worker.crew.leaves_at is not None:
                self._push(worker.crew.leaves_at + worker.crew.noticed_after, worker, None, None)
        while self._events and self._events[0][0] < until and self._left != 0:
            now, _, worker, call, refused = heapq.heappop(self._events)
            if call is not None:
                self._hear(worker, call, refused, now)
            if now == worker.wakes_at:
                worker.wakes_at = -1
            if worker.is_dead(now):
                if now >= (worker.crew.leaves_at or 0) + worker.crew.noticed_after:
                    self.table.leave(worker.number)
            elif now >= worker.exchanges_at >= 0:
                worker.exchanges_at = -1
                self._exchange(worker, now)
            else:
                self._exchange_soon(worker, now + self._turnaround_ms)

    def _hear(self, worker: _Worker, sent: "_Sent", refused: Refused | None, now: int) -> None:
        worker.under_way -= 1
        if refused is None:
            self._server.end()
        if worker.is_dead(now):
            return
        if refused is None:
            self.run.taken_at.append(now)
            worker.holder.taken(sent.call, sent.item, now)
            self._left = None if self._left is None else self._left - 1
        else:
            self.run.refused_at.append(now)
            again_at = worker.holder.refused(sent.call, sent.item, refused, now)
            heapq.heappush(self._due, (again_at, sent.item))

    def _exchange_soon(self, worker: _Worker, at: int) -> None:
        if worker.exchanges_at >= 0:
            return
        worker.exchanges_at = at
        self._push(at, worker, None, None)

    def _exchange(self, worker: _Worker, now: int) -> None:
        """What has ended is told, and what may be sent is sent."""
        if worker.has_left(now):
            if not worker.under_way:
                self.table.leave(worker.number)
            return
        sent = self._send(worker, now)
        slots = worker.crew.slots
        worker.holder.exchange(self.table, worker.number, worker.under_way, slots, now)
        may_send = worker.under_way < min(worker.holder.allowed(now), slots)
        if sent or (may_send and self._has_item(now)):
            self._exchange_soon(worker, now + max(1, self._turnaround_ms))
        due_at = self._due[0][0] if may_send and self._due else None
        times = (worker.holder.next_change_at(now), now + LOOK_EVERY_MS, due_at)
        wakes_at = min(max(at, now + 1) for at in times if at is not None)
        if wakes_at != worker.wakes_at:
            worker.wakes_at = wakes_at
            self._push(wakes_at, worker, None, None)

    def _send(self, worker: _Worker, now: int) -> int:
        sent = 0
        while (
            worker.under_way < min(worker.holder.allowed(now), worker.crew.slots)
            and (item := self._take_item(now)) is not None
        ):
            worker.under_way += 1
            sent += 1
            call = _Sent(worker.holder.sent(now), item)
            refused = self._server.begin(now, self._rng)
            drawn = self._rng.lognormvariate(-(SIGMA**2) / 2, SIGMA)  # 1 in the mean
            takes = int(1000 * self._server.latency_s * drawn) if refused is None else 0
            self._push(now + max(takes, REFUSED_AFTER_MS), worker, call, refused)
        return sent

    def _has_item(self, now: int) -> bool:
        return self._next_fresh is not None or bool(self._due and self._due[0][0] <= now)

    def _take_item(self, now: int) -> int | None:
        """One whose time has come, before a fresh one."""
        if self._due and self._due[0][0] <= now:
            return heapq.heappop(self._due)[1]
        item, self._next_fresh = self._next_fresh, next(self._fresh, None)
        return item

    def _push(
        self, at: int, worker: _Worker, call: "_Sent | None", refused: Refused | None
    ) -> None:  # fmt: skip
        heapq.heappush(self._events, (at, next(self._order), worker, call, refused))
