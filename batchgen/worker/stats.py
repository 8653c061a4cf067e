"""What a worker knows of its work so far, and where it records what happens."""

from collections import Counter, deque
from enum import StrEnum
from typing import Any, Protocol

from msgspec import Struct, field

from batchgen.errors import Remedy
from batchgen.items import Answer, Attempt, Decision, Failure, Item, Reply
from batchgen.shutdown import Stop
from batchgen.store import Acquitted
from batchgen.worker.report import BudgetWait

_LATENCIES_KEPT = 1000


class HaltKind(StrEnum):
    """Why a worker goes on no more.

    refused   no request would work: key, credit, model, URL, a value of the config
    stalled   nothing has been answered for `stall_s`, or is to be for longer
    shut_out  the same of this worker alone, as far as it knows: others may be served
    budget    what is left of it is too little for a call
    failures  as many items failed as `--max-failures` says
    """

    REFUSED = "refused"
    STALLED = "stalled"
    SHUT_OUT = "shut_out"
    BUDGET = "budget"
    FAILURES = "failures"


class Halt(Struct, frozen=True):
    """Why a worker goes on no more, and what the user can do about it besides what that says."""

    why: str
    remedy: Remedy | None = None
    kind: HaltKind = HaltKind.REFUSED

    def to_json(self) -> dict[str, Any]:
        return {"why": self.why, "remedy": self.remedy and self.remedy.name, "kind": self.kind}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Halt":
        name = values["remedy"]
        return cls(values["why"], Remedy[name] if name else None, HaltKind(values["kind"]))


class Stats(Struct):
    """What it reports is made of these, and so is what is said in the end. How many items are done
    is the database's to say."""

    calls: int = 0
    in_flight: int = 0
    latencies_ms: deque[int] = field(default_factory=lambda: deque(maxlen=_LATENCIES_KEPT))
    paused: bool = False  # by an order
    limited_to_rpm: float | None = None  # what a limit holds claims to
    limited_by: str | None = None  # which: rpm, tpm or learned
    paused_until: int | None = None  # what some server has asked all workers for (epoch ms)
    next_item_at: int | None = None  # when the first of those that wait comes due (epoch ms)
    failed_calls: Counter[str] = field(default_factory=Counter)  # by status, else by reason
    waits_for_more: bool = False  # nothing is left for anybody, and it stays
    budget_wait: BudgetWait | None = None  # the newest call for which there was no room
    budget_wait_at: int = 0  # of clock_ms
    trouble: str = ""  # the latest, while it may last
    halted: Halt | None = None

    def count_call(self, verdict: Answer | Failure, reply: Reply, *, paused: bool) -> None:
        """A call has ended. `paused`: an answer that comes now does not end the trouble."""
        self.calls += 1
        if isinstance(verdict, Failure):
            self.trouble = verdict.message
            self.failed_calls[str(reply.status or verdict.reason)] += 1
            return
        self.latencies_ms.append(reply.latency_ms)
        if not paused:
            self.trouble = ""


class RunLog(Protocol):
    """Where a run records what happens; never given a prompt, an answer or the key."""

    def attempt(self, item: Item, attempt: Attempt, decision: Decision) -> None: ...
    def parsed(self, item: Item, decision: Decision) -> None: ...
    def acquitted(self, one: Acquitted) -> None: ...
    def event(self, name: str, **fields: Any) -> None: ...
    def warn(self, message: str) -> None: ...
    def bug(self, message: str, trace: str) -> None: ...


class RunContext(Struct, frozen=True):
    """What a worker's run is stopped by, recorded in, and counted in meanwhile."""

    stop: Stop
    log: RunLog
    stats: Stats = field(default_factory=Stats)
