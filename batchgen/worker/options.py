"""What a worker tells while it runs, and where it tells it."""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Protocol

from batchgen.items import Attempt, Decision, Item

_LATENCIES_KEPT = 1000


@dataclass(slots=True)
class Stats:
    """What this worker did so far; read by the display while it runs."""

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
    limited_to_rpm: float | None = None  # the calls a minute that a limit holds claims to
    trouble: str = ""
    halted: str | None = None


class RunLog(Protocol):
    """Where a run tells what happens; never given a prompt, an answer or the key."""

    def attempt(self, item: Item, attempt: Attempt, decision: Decision) -> None: ...
    def parsed(self, item: Item, decision: Decision) -> None: ...
    def warn(self, message: str) -> None: ...
    def bug(self, message: str, trace: str) -> None: ...
