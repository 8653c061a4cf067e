"""What was made of rows whose result is replaced, by `retry` and `reparse`."""

from collections.abc import Collection, Mapping, Sequence

from batchgen.items import Done, Fail, State
from batchgen.store.deltas import CounterDeltas
from batchgen.store.plan import Parent
from batchgen.store.plan_follow import Standing
from batchgen.store.plan_rows import Row
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.follow import Followers, standing, steps_of
from batchgen.store.transactions.gatherings import gather
from batchgen.store.values import Reparsed


class Replaced:
    """Rows as they stood before. Of experiments without steps nothing is read."""

    def __init__(
        self, db: Transaction, experiment_ids: Collection[int], item_ids: Sequence[int]
    ) -> None:
        self._db = db
        self._steps = steps_of(db, experiment_ids)
        has_steps = any(id_ in self._steps for id_ in experiment_ids)
        rows = standing(db, item_ids) if has_steps else []
        self._rows = {row.item_id: row for row in rows}

    @property
    def that_gather_nothing(self) -> list[int]:
        """There is nothing that these could be asked."""
        return [row.item_id for row in self._rows.values() if row.gathered == "[]"]

    @property
    def made_of(self) -> dict[int, bytes | None]:
        return {row.item_id: row.made_of for row in self._rows.values()}

    def follows_present_plan(self, one: Reparsed) -> bool:
        followed = one.now.followed if isinstance(one.now, Done) else None
        present = self._steps.plan_id(one.was.experiment_id)
        return followed is None or followed.plan_id == present

    def stale(self, item_ids: Sequence[int], deltas: CounterDeltas, now: int) -> None:
        """These are pending again."""
        if not self._rows:
            return
        followers = Followers(self._db, self._steps, deltas)
        for item_id in item_ids:
            self._leave_chains(self._rows[item_id], deltas)
        followers.stale_below(item_ids)
        gather(self._db, followers, (), now)

    def follow(
        self, replaced: Sequence[Row], ends: Mapping[int, Done | Fail | None],
        deltas: CounterDeltas, now: int,
    ) -> None:  # fmt: skip
        """These have other results, with such ends."""
        if not self._rows:
            return
        followers = Followers(self._db, self._steps, deltas)
        parents, failed = list[Parent](), list[int]()
        for new in replaced:
            row = self._rows[int(str(new["item_id"]))]
            self._leave_chains(row, deltas)
            if row.gathering is not None:
                followers.touched.add(row.gathering)
            end = ends[row.item_id]
            if isinstance(end, Done) and end.followed is not None:
                seq, followed = int(str(new["new_result_seq"])), end.followed
                parents.append(Parent(row.item_id, row.experiment_id, seq, followed, is_new=False))
                children, over = len(followed.children), followed.passed_over
                self._steps.count(deltas, row.experiment_id, children, over, +1)
            else:
                failed.append(row.item_id)
        followers.follow(parents)
        followers.stale_below(failed)
        gather(self._db, followers, (), now)

    def _leave_chains(self, row: Standing, deltas: CounterDeltas) -> None:
        if row.state == State.DONE and row.children is not None:
            over = row.passed_over or 0
            self._steps.count(deltas, row.experiment_id, row.children, over, -1)
