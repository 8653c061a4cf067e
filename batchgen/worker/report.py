"""What a worker reports to other terminals and to the live display: kept as JSON in its row of the
database, and nothing else passes between them."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct, field, json, to_builtins


class Straggler(Struct, frozen=True, array_like=True):
    """A call that takes much longer than most did. It began at `began_at` (epoch ms)."""

    item_id: int
    began_at: int


class BudgetWait(Struct, frozen=True, array_like=True):
    """What a call reserves of a budget: the most that it can use and cost; `answer_usd` is the part
    of it that `max_tokens` makes."""

    tokens: int
    cost_usd: float
    max_tokens: int
    answer_usd: float


class HeldBy(StrEnum):
    """What keeps a worker from sending as much as it could.

    order      it was told to pause
    halt       no request would work; it only waits for the calls in flight
    outage     the server answers nobody; one call at a time is sent to see
    pause      the server wants no calls for a while
    announced  the server says that it has no room for now
    first      until the first answer few calls go out
    budget     what is left of it is reserved by the calls in flight
    limit      the user's limit of requests (rpm) or tokens (tpm), or the one that was learned
    slots      it uses no more slots than the server takes calls at once
    refusals   nothing: the server refuses a share of the calls, whatever is sent; they go out again
    items      all that is left waits for its next try
    more       nothing is left; it waits for what is enqueued
    """

    ORDER = "order"
    HALT = "halt"
    OUTAGE = "outage"
    PAUSE = "pause"
    ANNOUNCED = "announced"
    FIRST = "first"
    BUDGET = "budget"
    LIMIT = "limit"
    SLOTS = "slots"
    REFUSALS = "refusals"
    ITEMS = "items"
    MORE = "more"


class Held(Struct, frozen=True):
    """What holds a worker, and the figures that go with it: until when (epoch ms), the calls a
    minute that the `limit` makes, the slots in use, what a call reserves of the budget, the `share`
    of the newest calls that is refused. `refused_with` is the status of the refusals, or
    "connection"."""

    by: HeldBy
    until_ms: int | None = None
    per_minute: float | None = None
    limit: str | None = None
    slots: int | None = None
    budget: BudgetWait | None = None
    share: float | None = None
    refused_with: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As `status --json` has it: what does not belong to it is left out."""
        values = to_builtins(self)
        return {name: value for name, value in values.items() if value is not None}


class ServerReport(Struct, frozen=True):
    """How one of a worker's servers is doing. `name` is what people call it; `per_minute` are its
    answers of the last minute; `trouble` is what went wrong last, where nothing has gone well since
    `trouble_at`; `left_out` says why it takes no part, since `left_out_at` (epoch ms)."""

    key: str
    name: str
    calls: int = 0
    in_flight: int = 0
    failed_calls: Mapping[str, int] = field(default_factory=dict)
    per_minute: int = 0
    held_by: Held | None = None
    trouble: str = ""
    trouble_at: int | None = None
    left_out: str | None = None
    left_out_at: int | None = None


class WorkerReport(Struct, frozen=True):
    """How a worker is doing; what it has not reported yet is as in a new one.

    paused            it has seen the order to pause, and sends nothing
    halted            why no request would work
    held_by           what keeps it from sending more; None: nothing does
    trouble           the newest thing that went wrong, until something goes well
    calls             of this worker so far
    calls_at_once     as many as the servers take, of its slots; None: not known yet
    failed_calls      of these, by HTTP status or, where there was none, by reason
    late_after_ms     how long a call takes before it is late; None: too few answers to say
    stragglers        the calls that are late, the longest in flight first, a few at most
    servers           those that it asks
    max_cost_usd      what it may spend, with all others; None: there is no such budget
    """

    paused: bool = False
    halted: str | None = None
    held_by: Held | None = None
    trouble: str = ""
    calls: int = 0
    calls_at_once: int | None = None
    failed_calls: Mapping[str, int] = field(default_factory=dict)
    late_after_ms: int | None = None
    stragglers: tuple[Straggler, ...] = ()
    servers: tuple[ServerReport, ...] = ()
    max_cost_usd: float | None = None

    def is_urgent_after(self, last: "WorkerReport") -> bool:
        """Whether it says otherwise than the last one what holds it."""
        now, before = self.held_by, last.held_by
        return (now and now.by) != (before and before.by) or self.halted != last.halted

    def to_json(self) -> str:
        return json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | None) -> "WorkerReport":
        """What a row holds; None: the worker has not reported yet. What another version added is
        left out."""
        return json.decode(text or "{}", type=cls)
