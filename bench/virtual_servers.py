"""Servers that refuse, and workers that call them, in virtual time; instants are in ms.

What decides is the worker's real `Pacer`, or a rival of it. There is always something to ask. A
refusal is known after `REFUSED_AFTER_MS`; how long an answer takes is drawn, around a mean.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple, Protocol

from batchgen.items import Answer, Failure, Item, Reason, Trouble, Usage
from batchgen.worker.pacer import Pacer

REFUSED_AFTER_MS = 20
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


_ANSWER = Answer("Hello", "{}", "stop", "m-1", Usage())


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
    server: Server, *, seconds: int, slots: int = 50, workers: int = 1, seed: int = 1,
    holder: Callable[[int], Holder] = Ours,
) -> Run:  # fmt: skip
    """Workers with so many slots each."""
    simulation = _Simulation(server, [holder(slots) for _ in range(workers)], slots, seed)
    simulation.work(seconds * 1000)
    return simulation.run


class _Worker:
    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        self.under_way = 0
        self.wakes_at = -1


class _Simulation:
    def __init__(self, server: Server, holders: list[Holder], slots: int, seed: int) -> None:
        self._server = server
        self._slots = slots
        self._rng = random.Random(seed)
        self._order = count()
        self._events: list[tuple[int, int, _Worker, Any, Refused | None]] = []
        self._workers = [_Worker(holder) for holder in holders]
        self.run = Run(server, slots * len(holders))

    def work(self, until: int) -> None:
        for worker in self._workers:
            self._send(worker, 0)
        while self._events and self._events[0][0] < until:
            now, _, worker, call, refused = heapq.heappop(self._events)
            if call is not None:
                self._hear(worker, call, refused, now)
            elif now == worker.wakes_at:
                worker.wakes_at = -1
            self._send(worker, now)

    def _hear(self, worker: _Worker, call: Any, refused: Refused | None, now: int) -> None:
        worker.under_way -= 1
        if refused is None:
            self._server.end()
            self.run.taken_at.append(now)
            worker.holder.taken(call, now)
        else:
            self.run.refused_at.append(now)
            worker.holder.refused(call, refused, now)

    def _send(self, worker: _Worker, now: int) -> None:
        while worker.under_way < min(worker.holder.allowed(now), self._slots):
            worker.under_way += 1
            call = worker.holder.sent(now)
            refused = self._server.begin(now, self._rng)
            drawn = self._rng.lognormvariate(-(SIGMA**2) / 2, SIGMA)  # 1 in the mean
            takes = int(1000 * self._server.latency_s * drawn) if refused is None else 0
            self._push(now + max(takes, REFUSED_AFTER_MS), worker, call, refused)
        wakes_at = worker.holder.next_change_at(now)
        if wakes_at is not None and wakes_at != worker.wakes_at:
            worker.wakes_at = wakes_at
            self._push(max(wakes_at, now + 1), worker, None, None)

    def _push(self, at: int, worker: _Worker, call: Any, refused: Refused | None) -> None:
        heapq.heappush(self._events, (at, next(self._order), worker, call, refused))
