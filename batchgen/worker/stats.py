"""What a worker did so far, and where it tells what happens."""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Protocol

from batchgen.items import Answer, Attempt, Decision, Done, Fail, Failure, Item, Reply, Retry

_LATENCIES_KEPT = 1000


@dataclass(slots=True)
class Stats:
    """Read by the display while the worker runs."""

    done: int = 0
    failed: int = 0
    retried: int = 0
    calls: int = 0
    in_flight: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latencies_ms: deque[int] = field(default_factory=lambda: deque(maxlen=_LATENCIES_KEPT))
    reasons: Counter[str] = field(default_factory=Counter)
    paused_until: int = 0  # of `clock_ms`
    paused: bool = False  # by another terminal
    limited_to_rpm: float | None = None  # what a limit holds claims to
    trouble: str = ""  # the latest, while it may last
    halted: str | None = None

    def count_call(self, verdict: Answer | Failure, reply: Reply, *, paused: bool) -> None:
        """A call has ended. `paused`: an answer that comes now does not end the trouble."""
        self.calls += 1
        self.prompt_tokens += verdict.usage.prompt_tokens or 0
        self.completion_tokens += verdict.usage.completion_tokens or 0
        if isinstance(verdict, Failure):
            self.trouble = verdict.message
            return
        self.latencies_ms.append(reply.latency_ms)
        if not paused:
            self.trouble = ""

    def count_end(self, decision: Decision) -> None:
        """A claim has ended."""
        match decision:
            case Done():
                self.done += 1
            case Fail(reason=reason):
                self.failed += 1
                self.reasons[reason] += 1
            case Retry():
                self.retried += 1
            case _:
                pass  # given back


class RunLog(Protocol):
    """Where a run tells what happens; never given a prompt, an answer or the key."""

    def attempt(self, item: Item, attempt: Attempt, decision: Decision) -> None: ...
    def parsed(self, item: Item, decision: Decision) -> None: ...
    def warn(self, message: str) -> None: ...
    def bug(self, message: str, trace: str) -> None: ...
