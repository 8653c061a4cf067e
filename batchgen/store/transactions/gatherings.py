"""Gathering rows: made in the transaction that ends the last of the rows that they wait for.

Nothing is counted: which rows of a gathering are open stands in an index, and it is complete when
there are none.
"""

import json
from collections import defaultdict
from collections.abc import Collection
from itertools import count

from batchgen.items import Fail, Reason, State
from batchgen.store.chain import StepRow, made_of_gathered
from batchgen.store.plan_follow import (
    NOTHING_GATHERED,
    Change,
    Standing,
    become,
    change_of,
    in_order,
    leave,
    made_of_seqs,
)
from batchgen.store.plan_rows import Row, result_row
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.follow import Followers, standing


def gather(db: Transaction, followers: Followers, roots: Collection[int], now: int) -> None:
    """Of the gatherings with these roots, those that are complete get their row, or have it
    matched. `followers` may touch more of them."""
    followers.touched |= set(roots)
    while followers.touched:
        roots, followers.touched = followers.touched, set()
        db.lock("gathering", sorted(roots))  # or of two who end the last two rows nobody gathers
        ids = {"ids": json.dumps(sorted(roots))}
        complete = [root for (root,) in db.execute("complete_gatherings", ids)]
        if complete:
            _Gathering(db, followers, now).gather(complete)


def passed_on_by(db: Transaction, gathered: str) -> dict[int, bytes | None]:
    """By the results that are gathered, what each passes on."""
    return dict(db.execute("passed_on", {"seqs": gathered}).fetchall())


class _Gathering:
    def __init__(self, db: Transaction, followers: Followers, now: int) -> None:
        self._db = db
        self._followers = followers
        self._now = now

    def gather(self, roots: Collection[int]) -> None:
        ids = {"ids": json.dumps(list(roots))}
        inside = self._db.execute("rows_of_gatherings", ids).fetchall()
        rows = {row.item_id: row for row in standing(self._db, [item_id for _, item_id in inside])}
        self._followers.know(rows.values())
        members = defaultdict[int, list[Standing]](list)
        for root, item_id in inside:
            members[root].append(rows[item_id])
        there = dict(self._db.execute("gathering_rows", ids).fetchall())
        known = {row.item_id: row for row in standing(self._db, there.values())}
        new = [root for root in members if root not in there]
        numbers = dict(zip(new, count(self._db.first_new("items", len(new))), strict=False))
        for root, found in members.items():
            self._gather(rows[root], found, known.get(there.get(root, 0)), numbers.get(root, 0))

    def _gather(
        self, root: Standing, members: list[Standing], there: Standing | None, number: int
    ) -> None:
        """Where no row is there, a new one gets this number."""
        steps = self._followers.steps
        gatherer = steps.of(steps.of(root.experiment_id).gathered_by or 0)
        before = steps.beside(root.experiment_id, gatherer.number - 1)
        done = in_order(members, before.experiment_id)
        gathered = json.dumps([row.result_seq for row in done])
        rows = sum(row.experiment_id == before.experiment_id for row in members) or len(members)
        why = f"none of its {rows} rows is done" if rows > 1 else "what it gathers is not done"
        if all(row.result_state == State.DONE for row in members):
            why = (
                "nothing to gather: a `when` that does not hold, or an empty list, has ended all "
                "that it waited for; no call was made"
            )
        if there is None:
            self._add(number, root, gatherer, gathered, "" if done else why)
        elif there.gathered != gathered or there.state == State.STALE or there.outdated:
            self._db.alone()  # others may have it, or what was made of it
            now = made_of_gathered(row.passed_on for row in done)
            self._match(there, gathered, now, why)

    def _add(
        self, item_id: int, root: Standing, gatherer: StepRow, gathered: str, why: str
    ) -> None:
        """`why` it fails at once; empty: it does not."""
        row: Row = {
            "id": item_id, "experiment_id": gatherer.experiment_id, "parent_id": root.item_id,
            "recipe_id": gatherer.recipe_id, "gathered": gathered,
            "runs_code": gatherer.runs_code,
            "gathering": None if gatherer.gathered_by is None else item_id,
        }  # fmt: skip
        self._db.execute("add_gathering", row)
        self._db.execute("add_gathering_work", row)
        self._followers.deltas.move(gatherer.experiment_id, State.PENDING, +1)
        if why:
            self._fail(standing(self._db, [item_id])[0], why)

    def _match(self, row: Standing, gathered: str, now: bytes, why: str) -> None:
        assert row.gathered is not None
        was = made_of_seqs(row.gathered, passed_on_by(self._db, row.gathered))
        self._db.execute("set_gathered", {"item_id": row.item_id, "gathered": gathered})
        change = change_of(row, was, now)
        if now == NOTHING_GATHERED and row.result_seq is None and row.state != State.RUNNING:
            self._fail(row, why)
        else:
            self._followers.change([(row, change)] if change is not Change.KEEP else [])

    def _fail(self, row: Standing, why: str) -> None:
        """Without a call."""
        seq, end = self._db.first_new("results"), Fail(Reason.REJECTED, why)
        result = result_row(
            seq, row.item_id, None, end, self._now, parser_id=None, made_of=NOTHING_GATHERED
        )
        self._db.execute("append_result_of_step", result)
        self._db.execute(
            "fail_without_call", {"item_id": row.item_id, "result_seq": seq}
        )  # fmt: skip
        self._followers.deltas.end(row.experiment_id, self._now, failed=True)
        failed = row._replace(result_state=State.FAILED, reason=end.reason)
        leave(self._followers.deltas, row, self._followers.steps)
        become(self._followers.deltas, failed, State.FAILED, self._followers.steps)
        if row.gathering is not None:
            self._followers.touched.add(row.gathering)
