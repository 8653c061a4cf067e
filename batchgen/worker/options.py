"""What a worker is told, what it tells while it runs, and where it tells it."""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from batchgen.items import Attempt, Decision, Item
from batchgen.llm.decide import RetryPolicy
from batchgen.llm.prices import Prices
from batchgen.parsers import Parser
from batchgen.worker.committer import Scope

_LATENCIES_KEPT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """`parsers` are Python callables by their spec, for those that no name can load. `max_tokens`
    is the most that an answer can have, where the config says it; local images are looked for in
    `directory`. `hedge`: send a straggler's request once more, and take the first answer."""

    slots: int
    policy: RetryPolicy
    scope: Scope
    parse_timeout_s: float = 30.0
    parse_feedback: bool = False
    stall_s: float = 1800.0
    grace_s: float = 30.0
    lease_s: float = 60.0
    hedge: bool = False
    parsers: Mapping[str, Parser] = field(default_factory=dict)
    prices: Prices
    max_tokens: int | None = None
    directory: Path = Path()


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
