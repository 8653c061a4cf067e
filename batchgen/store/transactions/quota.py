"""How many more chains a worker may begin, where so many are wanted in the end (`--until`).

Of an experiment without steps a chain is an item. A row is begun only when all that run, and all
that wait at later steps, would not be enough if each of them ended a chain.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from batchgen.store.records import Counts
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.rows import rows_of
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

    def on_its_way(self, number: int) -> int:
        """Its rows whose chains may end before one whose row waits at this place does. Suspects are
        none of them: else nothing would be begun, and nobody asked who could tell."""
        waiting = max(0, self.pending - self.suspects) if self.number > number else 0
        return self.running + waiting


class Quota:
    """During one exchange: how many rows of each step may be begun. `is_met`: as many chains as are
    wanted have ended."""

    def __init__(
        self, left: Mapping[int, int], numbers: Mapping[int, int], *, is_met: bool
    ) -> None:
        self._left = dict(left)
        self._numbers = numbers
        self.is_met = is_met

    def of(self, experiment_id: int, calls: int) -> int:
        """How many of so many may be rows of this experiment."""
        return min(calls, self._left.get(self._number(experiment_id), calls))

    def take(self, experiment_id: int, calls: int) -> None:
        """So many are claimed. For the steps before it they were on their way already."""
        for number in self._left:
            if number >= self._number(experiment_id):
                self._left[number] -= calls

    def _number(self, experiment_id: int) -> int:
        return self._numbers.get(experiment_id, 0)


def quota_of(
    db: Transaction, want: ClaimRequest, count: Callable[[], Counts]
) -> Quota:  # fmt: skip
    """`count` says how the wanted items stand."""
    if want.until is None:
        return Quota({}, {}, is_met=False)
    db.lock("chains")
    chosen = want.experiments
    rows = [
        row
        for row in rows_of(db, "chains_begun", ChainsBegun)
        if chosen is None or row.id in chosen
    ]
    if all(row.step is None for row in rows):
        counts = count()
        return Quota({0: counts.wanted(want.until)}, {}, is_met=counts.is_enough(want.until))
    numbers, ended = {row.id: row.number for row in rows}, 0
    if selection := want.selection:
        before = selection.ended or 0
        ended = before if selection.number is not None else -before
        if selection.number is not None:
            which = {"selection": selection.number}
            rows = list(rows_of(db, "selected_chains_begun", ChainsBegun, which))
    ended += sum(row.done if row.step is None else row.ended for row in rows)
    left = {
        number: max(0, want.until - ended - sum(row.on_its_way(number) for row in rows))
        for number in set(numbers.values())
    }
    return Quota(left, numbers, is_met=ended >= want.until)
