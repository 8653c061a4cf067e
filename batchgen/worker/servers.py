"""The servers that one worker asks: each with its connections, its pacer, its trials and its share
of the slots. Pure but for the clients that it holds; time is passed in (of `clock_ms`).

A claim says how much room each has, and each claimed item is for one of them; so a server that is
slow, refuses or is down has less room, and costs no more than its share. One that no request would
work at is left out, which is said once; only when all are, the worker halts:

    refused   wrong key, URL or model: for the rest of the run
    credit    quota or credit is used up: one call every ten minutes tells whether there is more
    stalled   no success for `stall_s`, whatever came instead: its pacer asks on
    silent    several calls in a row timed out, while others were answered: one call at a time

Where no other one answers what a server does, it is not left out: the worker halts.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from batchgen.items import Answer, Failure, Reason, Reply
from batchgen.limits import TokenMeter
from batchgen.llm.client import Client
from batchgen.llm.prices import Prices
from batchgen.text.sentences import as_sentence
from batchgen.worker.pacer import Pacer
from batchgen.worker.spec import ServerSpec
from batchgen.worker.stats import Halt
from batchgen.worker.trials import Trials

# After the server's name; what follows is as this worker saw it.
IS_LEFT_OUT = " is left out: "
_CREDIT_AGAIN_MS = 600_000
_SILENT_AFTER = 3
_IDLE_MS = 5000
_RATE_MS, _RATE_PARTS = 60_000, 12
_NEWEST_CALLS, _ENOUGH_CALLS = 15, 5  # that tell how fast it is
_NONE = 0.01  # of the calls


class Connection(NamedTuple):
    """How a server is reached, and what its calls cost."""

    client: Client
    prices: Prices


class LeftOut(StrEnum):
    """Why a server is (the text at the top says what follows)."""

    REFUSED = "refused"
    CREDIT = "credit"
    STALLED = "stalled"
    SILENT = "silent"


class Server:
    """One of them. It answers rows of these `experiments` (None: of all that no other one names).
    `in_flight` are claimed for it; `left_out` None: it takes part."""

    def __init__(
        self, spec: ServerSpec, connection: Connection, pacer: Pacer,
        experiments: tuple[int, ...] | None = None,
    ) -> None:  # fmt: skip
        self.spec = spec
        self.experiments = experiments
        self.key = spec.key
        self.client, self.prices = connection
        self.pacer = pacer
        self.trials = Trials(spec.key)
        self.in_flight = 0
        self.calls = 0
        self.trouble = ""  # what went wrong last, if nothing went well since
        self.trouble_at = 0  # since when nothing did
        self.failed_calls: Counter[str] = Counter()
        self.left_out: LeftOut | None = None
        self.why: Halt | None = None
        self.left_out_at = 0
        self._ask_again_at = 0
        self._timeouts = 0
        # Of the newest calls: when it ended, how long it took, and whether it was answered.
        self._newest: deque[tuple[int, int, bool]] = deque(maxlen=_NEWEST_CALLS)
        self._answers: deque[list[int]] = deque(maxlen=_RATE_PARTS)  # [when it began, how many]

    def allowed(self, now: int) -> int:
        """How many calls may be in flight at this moment."""
        allowed = self.pacer.allowed(now)
        match self.left_out:
            case LeftOut.REFUSED:
                return 0
            case LeftOut.CREDIT:
                return min(allowed, 1) if now >= self._ask_again_at else 0
            case LeftOut.SILENT:
                return min(allowed, 1)
        return allowed

    @property
    def needs(self) -> int:
        """How many calls could be under way, if the server took all."""
        if self.experiments == () or self.left_out in (LeftOut.REFUSED, LeftOut.CREDIT):
            return self.in_flight
        return 1 if self.pacer.down or self.left_out is LeftOut.SILENT else self.pacer.slots

    def is_closed(self, now: int) -> bool:
        """Whether no call is to go out, even one that was claimed already."""
        return now < self.pacer.paused_until or self.left_out is LeftOut.REFUSED

    def answers_all_of(self, other: "Server") -> bool:
        """Whether all that another one answers could be asked here."""
        if self.experiments is None or other.experiments is None:
            return self.experiments is other.experiments
        return set(other.experiments) <= set(self.experiments)

    def room(self, call_tokens: float, now: int) -> int:
        """How many more calls may go out."""
        if self.experiments == ():
            return 0
        at_server = self.pacer.room_at_server(call_tokens, self.in_flight, now)
        return max(0, int(min(self.allowed(now) - self.in_flight, at_server)))

    def next_change_at(self, call_tokens: float, now: int) -> int | None:
        """When there may be more room by itself."""
        if self.left_out is LeftOut.REFUSED:
            return None
        if self.left_out is LeftOut.CREDIT and now < self._ask_again_at:
            return self._ask_again_at
        times = (self.pacer.next_change_at(now), self.pacer.server.next_at(call_tokens, now))
        return min((at for at in times if at is not None), default=None)

    def leave_out(self, how: LeftOut, why: Halt, now: int) -> None:
        if self.left_out is None:
            self.left_out_at = now
        self.left_out, self.why = how, why
        self._ask_again_at = now + _CREDIT_AGAIN_MS

    def count_call(self, verdict: Answer | Failure, reply: Reply, now: int) -> None:
        """A call has ended."""
        self.calls += 1
        self._newest.append((now, reply.latency_ms, isinstance(verdict, Answer)))
        if not self.trouble:
            self.trouble_at = now
        self.trouble = verdict.message if isinstance(verdict, Failure) else ""
        if isinstance(verdict, Failure):
            self.failed_calls[str(reply.status or verdict.reason)] += 1
        else:
            if not self._answers or now - self._answers[-1][0] >= _RATE_MS // _RATE_PARTS:
                self._answers.append([now, 0])
            self._answers[-1][1] += 1
        is_timeout = isinstance(verdict, Failure) and verdict.reason is Reason.TIMEOUT
        self._timeouts = self._timeouts + 1 if is_timeout else 0

    def ms_per_answer(self, now: int) -> float:
        """How long a slot is in use for an answer; 0: nobody knows, as it had hardly any calls in
        the last minute."""
        newest = [one for one in self._newest if now - one[0] < _RATE_MS]
        if len(newest) < _ENOUGH_CALLS:
            return 0.0
        answered = sum(is_answer for _, _, is_answer in newest) / len(newest)
        took_ms = sorted(took_ms for _, took_ms, _ in newest)
        return took_ms[len(took_ms) // 2] / max(answered, _NONE)

    def is_idle(self, now: int) -> bool:
        """Whether nothing was asked of it for some seconds: how it took its last calls is old."""
        newest = self._newest[-1][0] if self._newest else 0
        return not self.in_flight and now - newest >= _IDLE_MS

    @property
    def is_silent(self) -> bool:
        """Whether its last calls brought nothing at all."""
        return self._timeouts >= _SILENT_AFTER

    def per_minute(self, now: int) -> int:
        """The answers of the last minute."""
        return sum(answers for began_at, answers in self._answers if now - began_at < _RATE_MS)


class Servers:
    """All of them. `halt` is called when none is left that could answer, `warn` when one is left
    out or takes part again. `slots` are those of the worker, and may be changed at any time."""

    def __init__(
        self, servers: Sequence[Server], slots: int, meter: TokenMeter, *,
        halt: Callable[[Halt], None], warn: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._servers = {server.key: server for server in servers}
        self._meter = meter
        self.halt = halt
        self._warn = warn
        self.in_flight = 0
        self.slots = slots

    def __iter__(self) -> Iterator[Server]:
        return iter(self._servers.values())

    def __getitem__(self, key: str) -> Server:
        return self._servers[key]

    @property
    def are_several(self) -> bool:
        return len(self._servers) > 1

    def beside(self, server: Server) -> list[Server]:
        """The others that answer what it does."""
        return [one for one in self if one is not server and one.answers_all_of(server)]

    @property
    def slots(self) -> int:
        return self._slots

    @slots.setter
    def slots(self, slots: int) -> None:
        self._slots = slots
        for server in self:
            own = server.spec.slots
            server.pacer.slots = slots if own is None else min(own, slots)

    def read_prices(self) -> None:
        """In threads, while the first calls are under way."""
        for server in self:
            server.prices.read_beside()

    def take(self, key: str) -> None:
        """A call is claimed for this server."""
        self._servers[key].in_flight += 1
        self.in_flight += 1

    def all_claimed(self) -> None:
        """As many calls as had room were claimed just now."""
        for server in self:
            controller = server.pacer.controller
            controller.all_claimed(server.in_flight - controller.under_way)

    def give_back(self, key: str) -> None:
        """It has ended."""
        self._servers[key].in_flight -= 1
        self.in_flight -= 1

    def room_at(self, server: Server, now: int) -> int:
        """How many more calls may go out to it."""
        room = server.room(self._meter.mean, now)
        return max(0, min(room, self._slots - self.in_flight))

    def room(self, now: int) -> int:
        """How many more calls may go out, whereto ever."""
        rooms = sum(server.room(self._meter.mean, now) for server in self)
        return max(0, min(rooms, self._slots - self.in_flight))

    def elsewhere(self, key: str, now: int) -> Server | None:
        """One for a second call beside that at `key`: another one if there is room."""
        server = self._servers[key]
        may = (server, *self.beside(server))
        rooms = {one: room for one in may if (room := self.room_at(one, now)) > 0}
        others = [one for one in rooms if one is not server] or list(rooms)
        return max(others, key=lambda one: rooms[one] / one.pacer.slots, default=None)

    def next_change_at(self, now: int) -> int | None:
        """When there may be more room by itself."""
        times = (server.next_change_at(self._meter.mean, now) for server in self)
        return min((at for at in times if at is not None), default=None)

    def give_up(self, server: Server, why: Halt, now: int, how: LeftOut = LeftOut.REFUSED) -> None:
        """No request would work there: leave it out or, when it was the last, halt."""
        others = self.beside(server)
        if not others:
            self.halt(why)
        elif server.left_out is None:
            server.leave_out(how, why, now)
            if left := [one for one in others if one.left_out is None]:
                self._warn(f"{_named(server)}{IS_LEFT_OUT}{_sentence(why)} {_go_on(left)}")
            else:
                self.halt(self._all_out([server, *others], why))
        elif how in (LeftOut.REFUSED, LeftOut.CREDIT):  # now for this
            server.leave_out(how, why, now)

    def may_ask_elsewhere(self, server: Server) -> bool:
        """Whether another one takes part."""
        return any(one.left_out is None for one in self.beside(server))

    def observe(self, server: Server, verdict: Answer | Failure, now: int) -> None:
        """What a call there brought says of whether it takes part. `count_call` came before."""
        if isinstance(verdict, Answer) and server.left_out not in (None, LeftOut.REFUSED):
            server.left_out = server.why = None
            self._warn(f"{_named(server)} answers again.")
        elif server.is_silent and self._others_answer(server, now):
            words = f"{_SILENT_AFTER} calls in a row were not answered in time."
            self.give_up(server, Halt(words), now, LeftOut.SILENT)

    def _others_answer(self, server: Server, now: int) -> bool:
        return any(one.per_minute(now) for one in self.beside(server))

    def _all_out(self, servers: Sequence[Server], last: Halt) -> Halt:
        out = [one for one in self if one in servers and one.why is not None]
        reasons = [f"{_named(one)}: {_sentence(one.why)}" for one in out if one.why is not None]
        words = f"no server is left that could answer. {' '.join(reasons)}"
        return Halt(words, last.remedy, last.kind)


def _go_on(servers: Sequence[Server]) -> str:
    are_several = len(servers) > 1
    return (
        f"The {len(servers)} others go on." if are_several else f"{servers[0].spec.name} goes on."
    )


def _sentence(why: Halt) -> str:
    """What a server said may end in no full stop."""
    return as_sentence(why.why)


def _named(server: Server) -> str:
    return f"{server.spec.name} ({server.spec.place})"
