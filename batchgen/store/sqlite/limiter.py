"""What all workers together may send: one row, read and written in the exchange that claims.

Where nothing is limited, it is neither read nor written. The arithmetic is in buckets.py.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, replace

from batchgen.items import Item
from batchgen.limits import Allowance, LearnedRate, Limits, Returned, SharedRate, allowance
from batchgen.store.sqlite.rows import dicts_of
from batchgen.store.sqlite.sql import QUERIES


def read_shared_rate(db: sqlite3.Connection) -> SharedRate:
    columns = next(dicts_of(db, "shared_rate"), None)
    if columns is None:
        return SharedRate()
    learned = LearnedRate(**{name: columns.pop(name) for name in LearnedRate.__slots__})
    return SharedRate(**columns, learned=learned)


def learned_rate(db: sqlite3.Connection) -> float | None:
    learned = read_shared_rate(db).learned
    return None if learned.ceiling_per_s is None else learned.per_s * 60


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
        self._seen_at = self._shared.updated_at
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
        calls = [item.reserved_tokens for item in items if item.answer_seq is None]
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
        columns = asdict(self._shared)
        learned = columns.pop("learned")
        self._db.execute(QUERIES["write_shared_rate"], columns | learned)
