"""The counters and totals that a transaction changes, gathered and written once at its end."""

import sqlite3
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from batchgen.items import Attempt
from batchgen.store.sqlite.sql import QUERIES

_TOTALS = (
    "calls", "unknown_calls", "unknown_tokens", "latency_ms", "prompt_tokens", "completion_tokens",
    "cached_tokens", "reasoning_tokens", "cost_usd", "retried",
)  # fmt: skip


@dataclass
class Ledger:
    _moved: Counter[tuple[int, str, str]] = field(default_factory=Counter)
    _spent: dict[int, defaultdict[str, float]] = field(default_factory=dict)
    _superseded: Counter[int] = field(default_factory=Counter)

    def move(self, experiment_id: int, state: str, delta: int, reason: str = "") -> None:
        """`delta` more items of the experiment are in this state."""
        self._moved[experiment_id, state, reason] += delta

    def supersede(self, experiment_id: int) -> None:
        """A result that was done is its item's no more."""
        self._superseded[experiment_id] += 1

    def spend(self, experiment_id: int, attempt: Attempt, unknown_tokens: int = 0) -> None:
        """One more call was made for the experiment. `unknown_tokens`: the most it can have used,
        where the server did not say."""
        spent = self._spent.setdefault(experiment_id, defaultdict(int))
        usage = attempt.usage
        spent["calls"] += 1
        spent["unknown_calls"] += attempt.outcome == "unknown"
        spent["unknown_tokens"] += unknown_tokens
        spent["latency_ms"] += attempt.latency_ms or 0
        spent["prompt_tokens"] += usage.prompt_tokens or 0
        spent["completion_tokens"] += usage.completion_tokens or 0
        spent["cached_tokens"] += usage.cached_tokens or 0
        spent["reasoning_tokens"] += usage.reasoning_tokens or 0
        spent["cost_usd"] += attempt.cost_usd or 0.0

    def retry(self, experiment_id: int) -> None:
        """A call of the experiment is to be repeated."""
        self._spent.setdefault(experiment_id, defaultdict(int))["retried"] += 1

    def forget_unknown(self, experiment_id: int, calls: int) -> None:
        """So many calls that were counted as unknown are not any more; each is spent anew."""
        spent = self._spent.setdefault(experiment_id, defaultdict(int))
        spent["calls"] -= calls
        spent["unknown_calls"] -= calls

    def write(self, db: sqlite3.Connection) -> None:
        """Write what was gathered, within the caller's transaction."""
        db.executemany(
            QUERIES["move_counter"],
            [
                {"experiment_id": experiment_id, "state": state, "reason": reason, "delta": delta}
                for (experiment_id, state, reason), delta in self._moved.items()
                if delta
            ],
        )
        db.executemany(
            QUERIES["add_to_totals"],
            [
                {"experiment_id": experiment_id, **{name: spent[name] for name in _TOTALS}}
                for experiment_id, spent in self._spent.items()
            ],
        )
        db.executemany(
            QUERIES["count_superseded"],
            [{"experiment_id": id_, "n": n} for id_, n in self._superseded.items()],
        )
