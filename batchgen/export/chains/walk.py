"""From the rows of an item to its chains: where each has ended, and what it went through. Pure."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import NamedTuple

from msgspec.structs import replace

from batchgen.items import State
from batchgen.steps import Plan
from batchgen.store import ChainRow, ResultRow


class How(Enum):
    """How a chain stands: `stale` is one with a row that was made of what was replaced since."""

    ENDED = "ended"
    FAILED = "failed"
    OPEN = "open"
    STALE = "stale"


class End(NamedTuple):
    """How a chain stands, and with which row; None: with several, which are yet to be gathered."""

    how: How
    row: ChainRow | None


class Part(NamedTuple):
    """A row of a chain that has a result. `gathered`: of a gathering step's row, the rows that it
    gathered, each below those that it was made of since the gathering before."""

    number: int
    element: int
    result: ResultRow
    gathered: "tuple[tuple[Part, ...], ...]" = ()


class ItemRows:
    """Rows of chains: all of an item, or those above some, in the order of the store's page."""

    def __init__(self, plan: Plan, rows: Sequence[ChainRow]) -> None:
        self._plan = plan
        self._rows = rows
        self._by_id = {row.id: row for row in rows}
        self._by_result = {row.result_seq: row for row in rows}
        self._below = defaultdict[int, list[ChainRow]](list)
        for row in rows:
            if row.parent_id is not None:
                self._below[row.parent_id].append(row)

    def ends(self) -> Iterator[End]:
        """All chains of an item, by samples and then as the lists were that rows were made of."""
        firsts = [row for row in self._rows if row.parent_id is None]
        if all(rule.gather is None for rule in self._plan.steps):
            for first in firsts:
                yield from self._ends_below(first)
            return
        row: ChainRow | None = firsts[0]  # what its other samples were answered is gathered too
        for number in self._gathering_steps:
            row = row and self._gathering_row(row, number)
        if row is None:
            yield End(How.OPEN, None)
        else:
            yield from self._ends_below(row)

    def rows_of_step(self, number: int) -> Iterator[ChainRow]:
        """In the same order."""
        return (row for row in self._rows if row.number == number)

    def first_of(self, row: ChainRow) -> ChainRow:
        """The first row of its chain."""
        while row.parent_id is not None:
            row = self._by_id[row.parent_id]
        return row

    def parts_up_to(self, row: ChainRow) -> tuple[Part, ...] | None:
        """What its chain went through, down to the row. None: something of it is no more."""
        parts, is_gathered = list[Part](), False
        above: ChainRow | None = row
        while above is not None:
            gathers = self._is_gathering(above)
            if gathers or not is_gathered:  # else it is the root, which is among those gathered
                part = self._part(above)
                if part is None:
                    return None
                parts.append(part)
            is_gathered = is_gathered or gathers
            above = None if above.parent_id is None else self._by_id[above.parent_id]
        return tuple(reversed(parts))

    def done_after(self, row: ChainRow) -> tuple[list[Part], bool]:
        """What the chain of a done row went through after it, as far as there is one way only; and
        whether it has ended there."""
        parts = list[Part]()
        while (child := self._only_child(row)) is not None:
            part = self._part(child)
            if part is None:
                return parts, False
            parts.append(part)
            row = child
        return parts, row.children == 0 and not self._is_gathered(row.number)

    def _ends_below(self, row: ChainRow) -> Iterator[End]:
        if row.state != State.DONE:
            known = {State.FAILED: How.FAILED, State.STALE: How.STALE}
            yield End(known.get(State(row.state), How.OPEN), row)
        elif row.children:
            for child in self._below[row.id]:
                yield from self._ends_below(child)
        else:  # None: nobody has followed it yet
            yield End(How.OPEN if row.children is None else How.ENDED, row)

    def _only_child(self, row: ChainRow) -> ChainRow | None:
        """The done row that was made of it, if it can have no other."""
        for child in self._below[row.id]:
            rule = self._plan.steps[child.number]
            if child.state == State.DONE and not rule.each and not rule.gather:
                return child
        return None

    def _part(self, row: ChainRow) -> Part | None:
        gathered = list[tuple[Part, ...]]()
        for seq in row.gathered:
            member = self._by_result.get(seq)
            chain = member and self._gathered_chain(member)
            if not chain:
                return None
            gathered.append(chain)
        return None if row.result is None else self._with_result(row, row.result, gathered)

    def _with_result(
        self, row: ChainRow, result: ResultRow, gathered: Sequence[tuple[Part, ...]] = ()
    ) -> Part:
        if self._plan.steps[row.number].runs_code:  # it was tried, but that was no call
            result = replace(result, tries=0)
        return Part(row.number, row.element, result, tuple(gathered))

    def _gathered_chain(self, row: ChainRow) -> tuple[Part, ...] | None:
        parts, above = list[Part](), row
        while not self._is_gathering(above):
            if above.result is None:
                return None
            parts.append(self._with_result(above, above.result))
            if above.parent_id is None:
                break
            above = self._by_id[above.parent_id]
        return tuple(reversed(parts))

    @property
    def _gathering_steps(self) -> list[int]:
        return [number for number, rule in enumerate(self._plan.steps) if rule.gather]

    def _gathering_row(self, root: ChainRow, number: int) -> ChainRow | None:
        return next((row for row in self._below[root.id] if row.number == number), None)

    def _is_gathering(self, row: ChainRow) -> bool:
        return self._plan.steps[row.number].gather is not None

    def _is_gathered(self, number: int) -> bool:
        return any(rule.gather for rule in self._plan.steps[number + 1 :])
