"""How many more chains a worker may begin, where so many are wanted in the end (`--until`).

Of an experiment without steps a chain is an item. Rows of later steps belong to chains that have
begun, and are claimed whatever is wanted.
"""

import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from batchgen.store.records import Counts
from batchgen.store.sqlite.rows import rows_of
from batchgen.store.values import ClaimRequest


class ChainsBegun(NamedTuple):
    """How an experiment stands; `step` is None where it has no steps. `suspects` are those of the
    pending rows of which others have to tell whose fault it is that they failed."""

    id: int
    number: int
    step: str | None
    ended: int
    done: int
    running: int
    pending: int
    suspects: int

    @property
    def begun(self) -> int:
        """Rows of chains that may yet end. Suspects are none: else nothing new would be begun, and
        nobody asked who could tell."""
        waiting = self.pending - self.suspects if self.number else 0
        return self.running + waiting


class Quota:
    """During one exchange. `is_met`: as many as are wanted have ended."""

    def __init__(self, later: frozenset[int], left: int | None, *, is_met: bool) -> None:
        self._later = later
        self._left = left
        self.is_met = is_met

    def of(self, experiment_id: int, calls: int) -> int:
        """How many of so many may be rows of this experiment."""
        if self._left is None or experiment_id in self._later:
            return calls
        return min(calls, self._left)

    def take(self, experiment_id: int, calls: int) -> None:
        if self._left is not None and experiment_id not in self._later:
            self._left -= calls


def quota_of(
    db: sqlite3.Connection, want: ClaimRequest, count: Callable[[], Counts]
) -> Quota:  # fmt: skip
    """`count` says how the wanted items stand."""
    if want.until is None:
        return Quota(frozenset(), None, is_met=False)
    chains = _ended_and_begun(db, want)
    if chains is None:
        counts = count()
        left = counts.wanted(want.until)
        return Quota(frozenset(), left, is_met=counts.is_enough(want.until))
    later, ended, begun = chains
    left = max(0, want.until - ended - begun)
    return Quota(later, left, is_met=ended >= want.until)


def _ended_and_begun(
    db: sqlite3.Connection, want: ClaimRequest
) -> tuple[frozenset[int], int, int] | None:
    """The later steps, how many chains have ended, and how many are under way. None: there are no
    steps."""
    chosen = want.experiments
    rows = [
        row
        for row in rows_of(db, "chains_begun", ChainsBegun)
        if chosen is None or row.id in chosen
    ]
    if all(row.step is None for row in rows):
        return None
    later = frozenset(row.id for row in rows if row.number)
    ended = sum(row.done if row.step is None else row.ended for row in rows)
    return later, ended, sum(row.begun for row in rows)
