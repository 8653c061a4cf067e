"""What all workers together may send: one row, read and written in the exchange that claims.

Where nothing is limited, it is neither read nor written. The arithmetic is in buckets.py.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from batchgen.items import Item
from batchgen.limits import Allowance, LearnedRate, Limits, Returned, SharedRate, allowance
from batchgen.store.sqlite.rows import row_of
from batchgen.store.sqlite.sql import QUERIES


def read_shared_rate(db: sqlite3.Connection) -> SharedRate:
    row = row_of(db, "shared_rate", _SharedRateRow, {})
    return SharedRate() if row is None else row.shared_rate


class _SharedRateRow(NamedTuple):
    updated_at: int
    requests: float
    tokens: float
    paused_until: int
    ceiling_per_s: float | None
    cut_share: float
    limited_s: float
    cut_at: int
    cut_effective_at: int
    taken_since_cut: int

    @property
    def shared_rate(self) -> SharedRate:
        learned = LearnedRate(
            self.ceiling_per_s, self.cut_share, self.limited_s, self.cut_at,
            self.cut_effective_at, self.taken_since_cut,
        )  # fmt: skip
        return SharedRate(self.updated_at, self.requests, self.tokens, self.paused_until, learned)


def learned_rate(db: sqlite3.Connection) -> float | None:
    learned = read_shared_rate(db).learned
    return None if learned.ceiling is None else learned.per_s * 60


class Limiter:
    """The limits during one exchange: settle, ask for an allowance, take, write. `call_tokens` is
    what most calls use."""

    def __init__(
        self, db: sqlite3.Connection, limits: Limits, call_tokens: float, now: int
    ) -> None:
        self._db = db
        self._limits = limits
        self._call_tokens = call_tokens
        self._now = now
        self._shared = read_shared_rate(db)
        self._seen_at = self._shared.at
        self._changed = now < self._seen_at  # the clock was set back
        self._allowance = Allowance(0)

    def settle(self, returned: Returned) -> None:
        """Put back what calls that ended, or were never sent, did not use."""
        if returned != Returned():
            self._shared = self._shared.settled(returned, self._now)
            self._changed = True

    def allowance(self, want: int) -> Allowance:
        self._shared = self._shared.filled(self._limits, self._call_tokens, self._now)
        self._allowance = allowance(self._shared, self._limits, want, self._call_tokens, self._now)
        return self._allowance

    def take(self, items: Sequence[Item]) -> None:
        """What these claims will need; nothing for one whose answer is there already."""
        calls = [item.reserved_tokens for item in items if item.answer is None]
        if calls:
            self._shared = self._shared.taken(len(calls), sum(calls))
            self._changed = True
        if self._allowance.is_learned and len(items) == self._allowance.calls and self._seen_at:
            learned = self._shared.learned.limited_for((self._now - self._seen_at) / 1000)
            self._shared = replace(self._shared, learned=learned)
            self._changed = True

    def take_second_calls(self, items: Sequence[Item]) -> None:
        """What one more call for each of these will need, whether or not there is room for it."""
        self._shared = self._shared.taken(len(items), sum(item.reserved_tokens for item in items))
        self._changed = True

    def write(self) -> None:
        """Unless nothing but time has passed."""
        if not self._changed:
            return
        shared, learned = self._shared, self._shared.learned
        self._db.execute(QUERIES["write_shared_rate"], {
            "updated_at": shared.at, "requests": shared.requests, "tokens": shared.tokens,
            "paused_until": shared.paused_until, "ceiling_per_s": learned.ceiling,
            "cut_share": learned.cut_share, "limited_s": learned.limited_s,
            "cut_at": learned.cut_at, "cut_effective_at": learned.cut_effective_at,
            "taken_since_cut": learned.taken_since_cut,
        })  # fmt: skip
