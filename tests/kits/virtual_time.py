"""Virtual time: workers that claim by the shared limits, and servers with limits of their own.

Everything that decides is the real thing (`batchgen.limits.buckets`, the order of steps in an
exchange, each worker's `Pacer`); what is simulated is the time that commits, the network and the
model take.
"""

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from msgspec.structs import replace

from batchgen.items import Answer, Attempt, Failure, Item, Outcome, Reason, Retry, Usage
from batchgen.limits.ahead import Out, take_ahead
from batchgen.limits.buckets import Allowance, Limits, Returned, SharedRate, allowance
from batchgen.store.calls_ahead import CallsAhead, WantedAhead
from batchgen.store.server_wants import ServerWant
from batchgen.worker.controller import Call
from batchgen.worker.pacer import Pacer

START = 1_700_000_000.0
_COMMIT_S, _REFUSAL_S = 0.005, 0.03
_ANSWER = Answer("Hello", "{}", "stop", "m-1", Usage())


class Server(Protocol):
    """`take` is None when a call is taken, else the seconds that Retry-After says (None there: it
    does not say)."""

    per_s: float

    def take(self, now_s: float) -> "Refused | None": ...


@dataclass(frozen=True)
class Refused:
    retry_after_s: float | None


@dataclass
class Bucket:
    """Refills all the time, and starts full."""

    per_s: float
    capacity: float
    say: Callable[[float], float | None] = lambda wait_s: wait_s
    level: float = field(init=False)
    at_s: float = START

    def __post_init__(self) -> None:
        self.level = self.capacity

    def take(self, now_s: float) -> Refused | None:
        self.level = min(self.capacity, self.level + (now_s - self.at_s) * self.per_s)
        self.at_s = now_s
        if self.level < 1:
            return Refused(self.say((1 - self.level) / self.per_s))
        self.level -= 1
        return None


@dataclass
class Window:
    """So many in each minute of the clock."""

    per_s: float
    says: bool = True
    minute: int = -1
    used: int = 0

    def take(self, now_s: float) -> Refused | None:
        minute = int((now_s - START) // 60)
        if minute != self.minute:
            self.minute, self.used = minute, 0
        if self.used >= self.per_s * 60:
            return Refused(math.ceil(60 * (minute + 1) - (now_s - START)) if self.says else None)
        self.used += 1
        return None


@dataclass
class Faulty:
    """Another server, with a fault of its own."""

    server: Server

    @property
    def per_s(self) -> float:
        return self.server.per_s

    @per_s.setter
    def per_s(self, value: float) -> None:
        self.server.per_s = value


@dataclass
class Outage(Faulty):
    """It refuses everything from second `start_s` to `end_s`."""

    start_s: float
    end_s: float
    retry_after_s: float | None

    def take(self, now_s: float) -> Refused | None:
        if self.start_s <= now_s - START < self.end_s:
            return Refused(self.retry_after_s)
        return self.server.take(now_s)


@dataclass
class Straying(Faulty):
    """It refuses that `share` of the calls besides, whatever is sent."""

    share: float
    seed: int = 1
    retry_after_s: float | None = None

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def take(self, now_s: float) -> Refused | None:
        if self._random.random() < self.share:
            return Refused(self.retry_after_s)
        return self.server.take(now_s)


def tight(rpm: float) -> Bucket:
    """A second's worth at once, as the simulator's."""
    return Bucket(rpm / 60, max(1, math.ceil(rpm / 60)))


def silent(rpm: float) -> Bucket:
    """The same without Retry-After."""
    return Bucket(rpm / 60, max(1, math.ceil(rpm / 60)), lambda _: None)


def deep(rpm: float) -> Bucket:
    """A minute's worth at once, as OpenAI's."""
    return Bucket(rpm / 60, rpm)


def silent_deep(rpm: float) -> Bucket:
    return Bucket(rpm / 60, rpm, lambda _: None)


def window(rpm: float) -> Window:
    return Window(rpm / 60)


def silent_window(rpm: float) -> Window:
    return Window(rpm / 60, says=False)


_worker_ids = count()


@dataclass
class Worker:
    slots: int
    begins_s: float = START
    refused_at: list[int] = field(default_factory=list)
    wakes_at_s: float = math.inf

    def __post_init__(self) -> None:
        self.pacer = Pacer(self.slots, 1e9, _ms(self.begins_s), cuts_slots=False)
        self._items = count()
        self.id = next(_worker_ids)
        self.ahead = CallsAhead()

    def item(self) -> Item:
        return Item(next(self._items), 1, 1, 1, None, "{}")

    def send(self, at_s: float) -> Call:
        return self.pacer.call_sent(_ms(at_s))

    def hear(self, at_s: float, call: Call, refused: Refused | None) -> None:
        verdict: Answer | Failure = _ANSWER
        if refused is not None:
            self.refused_at.append(call.sent_at)
            verdict = Failure(Reason.RATE_LIMIT, "429", retry_after_s=refused.retry_after_s)
        self.pacer.observe(verdict, self.item(), call, _ms(at_s))


@dataclass
class Run:
    """What a server saw: (second since the start, was it taken) of each call."""

    calls: list[tuple[float, bool]]
    sent_by: Counter[int] = field(default_factory=Counter)  # by the numbers of the workers

    def share(self, rpm: float, start_s: float, end_s: float) -> float:
        """The calls taken in that time, of those that the limit allows."""
        taken = sum(ok for at_s, ok in self.calls if start_s <= at_s < end_s)
        return taken / (rpm / 60 * (end_s - start_s))

    def refused(self, start_s: float, end_s: float) -> float:
        """The share of the calls in that time that got a 429."""
        found = [ok for at_s, ok in self.calls if start_s <= at_s < end_s]
        return found.count(False) / max(1, len(found))


def run(
    server: Server,
    limits: Limits,
    *,
    seconds: float,
    workers: int = 1,
    slots: int = 100,
    latency_s: float = 0.5,
    then: tuple[float, float] | None = None,
    seed: int = 7,
    ahead: bool = False,
) -> Run:
    """Workers without end of work; from second `then[0]` on the server allows `then[1]` rpm."""
    crew = Crew(server, limits, latency_s, seed=seed, ahead=ahead)
    for number in range(workers):
        crew.wake(Worker(slots), START + number * 0.3)
    if then is not None:
        crew.work(START + then[0])
        server.per_s = then[1] / 60
    crew.work(START + seconds)
    return Run(crew.calls, crew.sent_by)


_Event = tuple[float, int, Worker, Call | None, Refused | None]


class Crew:
    def __init__(
        self,
        server: Server,
        limits: Limits,
        latency_s: float,
        seed: int = 7,
        shared: SharedRate | None = None,
        *,
        ahead: bool = False,
    ) -> None:
        self._ahead = ahead
        self._out: dict[int, Out] = {}
        self._server = server
        self._limits = limits
        self._latency_s = latency_s
        self.shared = shared or SharedRate()
        self._rng = random.Random(seed)
        self._order = count()
        self._events: list[_Event] = []
        self.calls: list[tuple[float, bool]] = []
        self.sent_by: Counter[int] = Counter()  # the numbers of the workers

    def work(self, until_s: float) -> None:
        while self._events[0][0] < until_s:
            at_s, _, worker, call, refused = heapq.heappop(self._events)
            if call is not None:
                worker.hear(at_s, call, refused)
                self.wake(worker, at_s + 0.002)
            elif at_s == worker.wakes_at_s:
                worker.wakes_at_s = math.inf
                self._exchange(worker, at_s)

    def wake(self, worker: Worker, at_s: float) -> None:
        if at_s < worker.wakes_at_s:
            worker.wakes_at_s = at_s
            self._push(at_s, worker)

    def _push(
        self, at_s: float, worker: Worker, call: Call | None = None, refused: Refused | None = None
    ) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), worker, call, refused))

    def _exchange(self, worker: Worker, now_s: float) -> None:
        want = min(worker.pacer.allowed(_ms(now_s)) - worker.pacer.controller.under_way, 100)
        exchange = self._with_calls_ahead if self._ahead else self._in_turn
        allowed = exchange(worker, max(0, want), _ms(now_s))
        for _ in range(allowed.calls):
            self._send(worker, now_s)
        if allowed.next_at is not None:
            self.wake(worker, max(now_s + 0.001, min(now_s + 1, allowed.next_at / 1000)))
        if (rises_at := worker.pacer.next_change_at(_ms(now_s))) is not None:
            self.wake(worker, max(now_s + 0.001, rises_at / 1000))

    def _with_calls_ahead(self, worker: Worker, calls: int, now: int) -> Allowance:
        """As `Seat.exchange` of an engine whose transactions do not take turns."""
        ahead, pacer = worker.ahead, worker.pacer
        want = ServerWant(
            "", calls, self._limits, pause_ms=max(0, pacer.all_paused_until - now),
            asked_ms=max(0, pacer.asked_until - now),
        )  # fmt: skip
        refusals = [Attempt(at, 0, Reason.RATE_LIMIT) for at in worker.refused_at]
        worker.refused_at.clear()
        outcomes = [Outcome(worker.item(), (one,), Retry(None, charged=False)) for one in refusals]
        self._ask(worker, ahead.wanted([want], calls, outcomes, now), now)
        allowed = ahead.allowed([want], {"": calls})[""]
        if ahead.were_claimed(outcomes, [worker.item() for _ in range(allowed.calls)]):
            self._ask(worker, ahead.unused(), now)
        return allowed if allowed.calls < calls else Allowance(allowed.calls)

    def _ask(self, worker: Worker, wanted: dict[str, WantedAhead], now: int) -> None:
        if not wanted:
            return
        one, out = wanted[""], list(self._out.values())
        self.shared, allowed, self._out[worker.id] = take_ahead(
            self.shared, one.limits, one.asked, one.call_tokens, worker.id, out, now
        )
        worker.ahead.were_allowed(wanted, {"": allowed}, now, 0)

    def _in_turn(self, worker: Worker, want: int, now: int) -> Allowance:
        seen_at, pacer = self.shared.updated_at, worker.pacer
        returned = Returned(
            refused_at=tuple(worker.refused_at),
            asked_ms=max(0, pacer.asked_until - now),
            pause_ms=max(0, pacer.all_paused_until - now),
        )
        worker.refused_at.clear()
        if returned != Returned():
            self.shared = self.shared.settled(returned, now)
        if not want:
            return Allowance(0)
        filled = self.shared.filled(self._limits, 1, now)
        allowed = allowance(filled, self._limits, want, 1, now)
        if allowed.calls or allowed.is_learned:
            self.shared = filled.taken(allowed.calls, 0)
        if allowed.is_learned and seen_at:
            grown = self.shared.learned.limited_for((now - seen_at) / 1000)
            self.shared = replace(self.shared, learned=grown)
        return allowed

    def _send(self, worker: Worker, now_s: float) -> None:
        sent_s = now_s + _COMMIT_S * self._rng.uniform(1, 3)
        call = worker.send(sent_s)
        self.sent_by[worker.id] += 1
        refused = self._server.take(sent_s)
        self.calls.append((sent_s - START, refused is None))
        takes_s = _REFUSAL_S if refused else self._latency_s * self._rng.uniform(0.5, 1.5)
        self._push(sent_s + takes_s, worker, call, refused)


def _ms(at_s: float) -> int:
    return round(at_s * 1000)
