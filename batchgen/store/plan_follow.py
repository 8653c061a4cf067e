"""What becomes of rows of later steps, when what they were made of has a result. Pure, as `plan`.

A row that exists already is matched: where it would see the very same, nothing is asked again.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct, field

from batchgen.items import State
from batchgen.store.chain import StepRow, Steps, made_of_gathered, made_of_parent
from batchgen.store.deltas import CounterDeltas
from batchgen.store.plan import Parent
from batchgen.store.plan_rows import Row

if TYPE_CHECKING:
    from batchgen.steps import Child

NOTHING_GATHERED = made_of_gathered(())


class Standing(NamedTuple):
    """A row as it stands. `result_state` and what follows it are those of its result, which a stale
    one may have, too; `stands_for` is what `parent_result` passes on."""

    item_id: int
    experiment_id: int
    parent_id: int | None
    element: int
    input: str
    parent_result: int | None
    gathered: str | None
    sample: int | None
    state: str
    outdated: int
    gathering: int | None
    answer_seq: int | None
    result_seq: int | None
    result_state: str | None
    reason: str | None
    parser_id: int | None
    attempt_seq: int | None
    made_of: bytes | None
    children: int | None
    passed_over: int | None
    passed_on: bytes | None
    stands_for: bytes | None

    @property
    def is_lost(self) -> bool:
        """Whether it has ended, but nobody has followed it: it was outdated then."""
        return self.result_state == State.DONE and self.children is None


class Change(Enum):
    """What becomes of a row.

    keep     it stays as it is
    catch_up it runs, and what it was claimed with is still, or again, what it is made of
    renew    it is asked what it was not asked before
    outdate  it runs, and ends stale
    stale    it is stale, and all that was made of it
    restore  it is as it was before it was stale
    """

    KEEP = "keep"
    CATCH_UP = "catch_up"
    RENEW = "renew"
    OUTDATE = "outdate"
    STALE = "stale"
    RESTORE = "restore"


def change_of(row: Standing, was: bytes | None, now: bytes) -> Change:
    """Of a row that is to be made of what has the hash `now`; at present it is of `was`."""
    if row.state == State.RUNNING:
        if row.outdated == 2 or was != now:
            return Change.OUTDATE
        return Change.CATCH_UP if row.outdated else Change.KEEP
    if row.result_seq is None:
        if was != now:
            return Change.RENEW
        return Change.RESTORE if row.state == State.STALE else Change.KEEP
    is_stale = row.state == State.STALE
    if row.made_of == now:
        return Change.RESTORE if is_stale else Change.KEEP
    return Change.RENEW if row.made_of == NOTHING_GATHERED else Change.STALE


class FollowPlan(Struct):
    """New rows, and what becomes of those that are there, by their numbers."""

    added: list[Row] = field(default_factory=list)
    made_of: list[Row] = field(default_factory=list)  # another result, and what it makes of it
    changed: list[tuple[Standing, Change]] = field(default_factory=list)

    def add(self, parent: Parent, child: "Child", step: StepRow, deltas: CounterDeltas) -> None:
        self.added.append({
            "experiment_id": step.experiment_id, "recipe_id": step.recipe_id,
            "input": child.input_json, "parent_id": parent.item_id,
            "parent_result": parent.result_seq, "element": child.element,
        })  # fmt: skip
        deltas.move(step.experiment_id, State.PENDING, +1)

    def number(self, first: int) -> None:
        """The new rows get the numbers from the first one on."""
        for number, row in enumerate(self.added, first):
            row["id"] = number

    def match(self, parent: Parent, child: "Child", row: Standing) -> None:
        self.made_of.append({
            "item_id": row.item_id, "parent_result": parent.result_seq, "input": child.input_json,
        })  # fmt: skip
        was = None
        if row.parent_result is not None:
            was = made_of_parent(row.stands_for, row.input)
        now = made_of_parent(parent.followed.passed_on, child.input_json)
        self.changed.append((row, change_of(row, was, now)))

    def drop(self, row: Standing) -> None:
        """Nothing is to stand at its place any more."""
        unmade: Row = {"item_id": row.item_id, "parent_result": None, "input": row.input}
        self.made_of.append(unmade)
        is_running = row.state == State.RUNNING
        self.changed.append((row, Change.OUTDATE if is_running else Change.STALE))


def plan_followed(
    parents: Sequence[Parent], there: Iterable[Standing], steps: Steps, deltas: CounterDeltas
) -> FollowPlan:
    """`there` are the rows that were made of the parents before. The new ones have no numbers
    yet."""
    plan, rows = FollowPlan(), dict[tuple[int, int, int], Standing]()
    for row in there:
        assert row.parent_id is not None
        rows[row.parent_id, row.experiment_id, row.element] = row
    for parent in parents:
        for child in parent.followed.children:
            step = steps.beside(parent.experiment_id, child.number)
            row_there = rows.pop((parent.item_id, step.experiment_id, child.element), None)
            if row_there is None:
                plan.add(parent, child, step, deltas)
            else:
                plan.match(parent, child, row_there)
    for row in rows.values():
        plan.drop(row)
    return plan


def leave(deltas: CounterDeltas, row: Standing, steps: Steps) -> None:
    """It is not what it was any more."""
    deltas.move(row.experiment_id, row.state, -1, _reason_of(row, row.state))
    if row.state in (State.DONE, State.FAILED):
        _count(deltas, row, steps, -1)


def become(deltas: CounterDeltas, row: Standing, state: str, steps: Steps) -> None:
    """With the result that it has, where this is one."""
    deltas.move(row.experiment_id, state, +1, _reason_of(row, state))
    if state in (State.DONE, State.FAILED):
        _count(deltas, row, steps, +1)


def restored_state(row: Standing) -> str:
    """What a stale one was; one that nobody has followed is to be parsed again."""
    return State.PENDING if row.result_state is None or row.is_lost else row.result_state


def in_order(rows: Iterable[Standing], experiment_id: int) -> list[Standing]:
    """The done rows of a step among those of a gathering: by samples, and then as the lists were
    that rows were made of."""
    by_id = {row.item_id: row for row in rows}

    def place(row: Standing) -> tuple[int, ...]:
        above = None if row.parent_id is None else by_id.get(row.parent_id)
        return (row.sample or 1,) if above is None else (*place(above), row.element)

    done = (row for row in by_id.values() if row.state == State.DONE)
    return sorted((row for row in done if row.experiment_id == experiment_id), key=place)


def made_of_seqs(gathered: str, passed_on: Mapping[int, bytes | None]) -> bytes:
    """The hash of what a row sees that gathers these results (JSON)."""
    return made_of_gathered(passed_on.get(seq) for seq in json.loads(gathered))


def _reason_of(row: Standing, state: str) -> str:
    return (row.reason or "") if state == State.FAILED else ""


def _count(deltas: CounterDeltas, row: Standing, steps: Steps, sign: int) -> None:
    deltas.parse(row.experiment_id, row.parser_id, sign)
    if row.result_state == State.DONE:
        deltas.supersede(row.experiment_id)
        if row.children is not None:
            steps.count(deltas, row.experiment_id, row.children, row.passed_over or 0, sign)
