"""Rows of later steps: made in the transaction that makes their parent done, matched when it is
done once more, and stale when it is not any more."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from batchgen.items import State
from batchgen.store.chain import StepRow, Steps, made_of_parent
from batchgen.store.deltas import CounterDeltas
from batchgen.store.plan import Parent
from batchgen.store.plan_follow import (
    Change,
    FollowPlan,
    Standing,
    become,
    change_of,
    leave,
    plan_followed,
    restored_state,
)
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.rows import listed, rows_of


def steps_of(db: Transaction, experiment_ids: Iterable[int]) -> Steps:
    """Of the chains that have these experiments."""
    steps = Steps()
    _learn(db, steps, experiment_ids)
    return steps


def _learn(db: Transaction, steps: Steps, experiment_ids: Iterable[int]) -> None:
    unknown = {id_ for id_ in experiment_ids if id_ not in steps}
    if unknown:
        steps.add(rows_of(db, "steps_of", StepRow, {"ids": listed(sorted(unknown))}))


def standing(db: Transaction, item_ids: Iterable[int]) -> list[Standing]:
    return list(rows_of(db, "standing", Standing, {"ids": json.dumps(list(item_ids))}))


class Followers:
    """What follows rows of some chains, in one transaction. `touched` are the gatherings of rows
    that have ended, or are not what they were; `unasked`, by experiment, how many waited to be
    asked and are stale now."""

    def __init__(self, db: Transaction, steps: Steps, deltas: CounterDeltas) -> None:
        self.steps = steps
        self.deltas = deltas
        self.touched: set[int] = set()
        self.unasked: Counter[int] = Counter()
        self._db = db

    def know(self, rows: Iterable[Standing]) -> None:
        """The chains of these rows, before anything becomes of them."""
        _learn(self._db, self.steps, (row.experiment_id for row in rows))

    def follow(self, parents: Sequence[Parent]) -> None:
        """They are done, with these results."""
        ids = [parent.item_id for parent in parents if not parent.is_new]
        there = self._rows("children_of", ids) if ids else []
        if there:
            self._db.alone()  # others may have them, or what was made of them
        plan = plan_followed(parents, there, self.steps, self.deltas)
        if new := len(plan.added):
            first = self._db.first_new("items", new)
            plan.number(first)
            self._db.execute_many("add_child", plan.added)
            made = {"first": first, "last": first + new - 1}
            self._db.execute("add_work_of_children", made)
        if there:
            self._match(plan)

    def _match(self, plan: FollowPlan) -> None:
        self._db.execute_many("make_of", plan.made_of)
        self.change(plan.changed)

    def change(self, changed: Iterable[tuple[Standing, Change]]) -> None:
        rows: dict[Change, list[Standing]] = {change: [] for change in Change}
        for row, change in changed:
            rows[change].append(row)
        catch_up, outdate = rows[Change.CATCH_UP], rows[Change.OUTDATE]
        self._db.execute_many(
            "set_outdated",
            [{"item_id": row.item_id, "outdated": 0} for row in catch_up]
            + [{"item_id": row.item_id, "outdated": 2} for row in outdate],
        )
        self._renew(rows[Change.RENEW])
        self.make_stale(rows[Change.STALE])
        self.restore(rows[Change.RESTORE])
        both = [*outdate, *rows[Change.STALE], *rows[Change.RENEW]]
        self.stale_below([row.item_id for row in both])

    def stale_below(self, item_ids: Sequence[int]) -> None:
        """All that was made of these rows, or gathers them."""
        if item_ids:
            self.make_stale(self._rows("rows_below", item_ids))

    def make_stale(self, rows: Iterable[Standing]) -> None:
        rows = [row for row in rows if row.state != State.STALE and not row.outdated]
        self._db.execute_many("make_stale", [{"item_id": row.item_id} for row in rows])
        for row in rows:
            if row.state != State.RUNNING:
                leave(self.deltas, row, self.steps)
                become(self.deltas, row, State.STALE, self.steps)
                self._touch(row)
                self.unasked[row.experiment_id] += row.state == State.PENDING

    def restore(self, rows: Iterable[Standing]) -> None:
        """These, which see what they saw before, and by levels what was made of them."""
        level = list(rows)
        while level:
            self._restore(level)
            ended = [row for row in level if restored_state(row) == State.DONE]
            results = {row.item_id: row for row in ended}
            below = self._rows("children_of", list(results)) if results else []
            level = [row for row in below if _is_of(row, results[row.parent_id or 0])]

    def _restore(self, rows: Sequence[Standing]) -> None:
        self._db.execute_many("restore", [{"item_id": row.item_id} for row in rows])
        for row in rows:
            leave(self.deltas, row, self.steps)
            become(self.deltas, row, restored_state(row), self.steps)
            self._touch(row)

    def _renew(self, rows: Sequence[Standing]) -> None:
        ids = [{"item_id": row.item_id} for row in rows]
        self._db.execute_many("ask_anew", ids)
        self._db.execute_many("forget_suspect", ids)  # of what it was asked before
        for row in rows:
            leave(self.deltas, row, self.steps)
            become(self.deltas, row, State.PENDING, self.steps)

    def _rows(self, query: str, item_ids: Sequence[int]) -> list[Standing]:
        found = self._db.execute(query, {"ids": json.dumps(list(item_ids))}).fetchall()
        rows = standing(self._db, [item_id for (item_id,) in found])
        self.know(rows)
        return rows

    def _touch(self, row: Standing) -> None:
        if row.gathering is not None:
            self.touched.add(row.gathering)


def _is_of(row: Standing, parent: Standing) -> bool:
    """Whether a stale row was made of what its parent, which was restored, says again."""
    if row.state != State.STALE or row.parent_result != parent.result_seq:
        return False
    was = made_of_parent(row.stands_for, row.input)
    return change_of(row, was, was) is Change.RESTORE
