"""Chosen items: a run may be about some items of an experiment, and then claims no others.

Those of them that are open are marked in their rows, so that a claim costs the same however many
were chosen, or are open besides. An item that several runs chose is the newest one's.
"""

import json
from collections import Counter
from collections.abc import Sequence

from msgspec.structs import replace

from batchgen.items import State
from batchgen.store.records import Counts
from batchgen.store.transaction import Transaction
from batchgen.store.values import Selection


def begin_selection(
    db: Transaction, experiment_id: int, item_ids: Sequence[int], now: int
) -> Selection:
    """A new selection, with a number if others are open too."""
    which = {
        "experiment_id": experiment_id, "ids": _with_rows_below(db, experiment_id, item_ids),
        "now": now,
    }  # fmt: skip
    chosen = Counter(dict(db.execute("count_chosen", which).fetchall()))
    every = Counter(dict(db.execute("count_all", which).fetchall()))
    others = every - chosen
    if others.keys() <= {State.DONE, State.FAILED, State.STALE}:
        done, failed = others[State.DONE], others[State.FAILED]
        return Selection(None, _rows(db, experiment_id), done, failed, experiment_id)
    counts = {"done": chosen[State.DONE], "failed": chosen[State.FAILED]}
    (number,) = db.execute("add_selection", {**which, **counts}).fetchone()
    db.execute("select_open", {**which, "selection": number})
    return Selection(number, every.total())


def _with_rows_below(db: Transaction, experiment_id: int, item_ids: Sequence[int]) -> str:
    """The numbers of the items, and of all rows that were made of them, as JSON."""
    ids = json.dumps(list(item_ids))
    if db.execute("chain", {"experiment_id": experiment_id}).fetchone() is None:
        return ids
    return str(db.execute("with_rows_below", {"ids": ids}).fetchone()[0])


def _rows(db: Transaction, experiment_id: int) -> int:
    (rows,) = db.execute("count_rows", {"experiment_id": experiment_id}).fetchone()
    return int(rows)


def end_selection(db: Transaction, selection: int) -> None:
    db.execute("unselect", {"selection": selection})
    db.execute("delete_selection", {"selection": selection})


def counts_of_selection(db: Transaction, selection: Selection, every: Counts) -> Counts:
    """The chosen items by state, without reasons. `every` are the counts of their experiment, which
    has the calls."""
    if selection.number is None:
        done, failed = every.done - selection.done, every.failed - selection.failed
        done = max(0, done)
        return replace(every, done=done, ended=done, failed=max(0, failed), reasons=Counter())
    found: Counter[str] = Counter()
    for state, n in db.execute("selection_counts", {"selection": selection.number}):
        found[state] += n
    return replace(
        every, pending=found[State.PENDING], running=found[State.RUNNING],
        done=found[State.DONE], ended=found[State.DONE], failed=found[State.FAILED],
        reasons=Counter(),
    )  # fmt: skip


def others_have_come(db: Transaction, selection: Selection, experiment_id: int) -> bool:
    """Whether a selection without a number needs one now. What was made of its own items are no
    others."""
    if selection.number is not None or selection.experiment_id != experiment_id:
        return False
    return _rows(db, experiment_id) > selection.rows


def rows_of_items(db: Transaction, item_ids: Sequence[int], samples: int) -> list[int]:
    which = {"ids": json.dumps(list(item_ids)), "samples": samples}
    return [number for _, number, _ in db.execute("rows_of_items", which)]
