"""Servers that refuse, and workers that call them, in virtual time; instants are in ms.

What decides is the worker's real `Pacer`, or a rival of it. There is always something to ask. A
refusal is known after `REFUSED_AFTER_MS`; how long an answer takes is drawn, around a mean.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple, Protocol

from batchgen.items import Answer, Failure, Item, Reason, Trouble, Usage
from batchgen.limits import Parts, Share, Told
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
    """What says how many calls may be under way."""

    def allowed(self, now: int) -> int: ...
    def next_change_at(self, now: int) -> int | None: ...
    def sent(self, now: int) -> Any: ...
    def taken(self, call: Any, now: int) -> None: ...
    def refused(self, call: Any, refused: Refused, now: int) -> None: ...
    def exchange(
        self, table: "WorkTable", worker: int, in_flight: int, needs: int, now: int, /
    ) -> None: ...


_ANSWER = Answer("Hello", "{}", "stop", "m-1", Usage())


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
        self._items = count(1)

    def taken(self, call: Any, now: int) -> None:
        self.pacer.observe(_ANSWER, self._item(), call, now)

    def refused(self, call: Any, refused: Refused, now: int) -> None:
        reason, trouble = Reason.SERVER, Trouble.UNAVAILABLE
        if refused.status is None:
            reason, trouble = Reason.CONNECTION, Trouble.UNREACHABLE
        failure = Failure(reason, "refused", retry_after_s=refused.retry_after_s, trouble=trouble)
        if refused.status == 429:
            failure = Failure(Reason.RATE_LIMIT, "429", retry_after_s=refused.retry_after_s)
        self.pacer.observe(failure, self._item(), call, now)
        self.pacer.take_late_charges()

    def exchange(self, table: WorkTable, worker: int, in_flight: int, needs: int, now: int) -> None:
        told = self.pacer.sharing.tells(in_flight, needs, now)
        if told is not None and (share := table.tell(worker, told, now)) is not None:
            self.pacer.sharing.follow(share, now)

    def _item(self) -> Item:
        return Item(next(self._items), 1, 1, 1, None, "{}")


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
) -> Run:  # fmt: skip
    """Workers with so many slots each. A slot that is free sends again after a transaction, which
    takes `turnaround_ms`."""
    crews = [Crew(slots)] * workers if isinstance(workers, int) else workers
    simulation = _Simulation(server, crews, holder, seed, turnaround_ms)
    simulation.work(seconds * 1000)
    return simulation.run


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
        turnaround_ms: int,
    ) -> None:  # fmt: skip
        self._server = server
        self._turnaround_ms = turnaround_ms
        self._rng = random.Random(seed)
        self._order = count()
        self._events: list[tuple[int, int, _Worker, Any, Refused | None]] = []
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
        while self._events and self._events[0][0] < until:
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

    def _hear(self, worker: _Worker, call: Any, refused: Refused | None, now: int) -> None:
        worker.under_way -= 1
        if refused is None:
            self._server.end()
        if worker.is_dead(now):
            return
        if refused is None:
            self.run.taken_at.append(now)
            worker.holder.taken(call, now)
        else:
            self.run.refused_at.append(now)
            worker.holder.refused(call, refused, now)

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
        if sent or worker.under_way < min(worker.holder.allowed(now), slots):
            self._exchange_soon(worker, now + max(1, self._turnaround_ms))
        times = (worker.holder.next_change_at(now), now + LOOK_EVERY_MS)
        wakes_at = min(max(at, now + 1) for at in times if at is not None)
        if wakes_at != worker.wakes_at:
            worker.wakes_at = wakes_at
            self._push(wakes_at, worker, None, None)

    def _send(self, worker: _Worker, now: int) -> int:
        sent = 0
        while worker.under_way < min(worker.holder.allowed(now), worker.crew.slots):
            worker.under_way += 1
            sent += 1
            call = worker.holder.sent(now)
            refused = self._server.begin(now, self._rng)
            drawn = self._rng.lognormvariate(-(SIGMA**2) / 2, SIGMA)  # 1 in the mean
            takes = int(1000 * self._server.latency_s * drawn) if refused is None else 0
            self._push(now + max(takes, REFUSED_AFTER_MS), worker, call, refused)
        return sent

    def _push(self, at: int, worker: _Worker, call: Any, refused: Refused | None) -> None:
        heapq.heappush(self._events, (at, next(self._order), worker, call, refused))
