"""Chosen items: a run may be about some items of an experiment, and then claims no others.

Those of them that are open are marked in their rows, so that a claim costs the same however many
were chosen, or are open besides. An item that several runs chose is the newest one's.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from batchgen.items import State
from batchgen.store.records import Counts
from batchgen.store.transaction import Transaction
from batchgen.store.values import Selection


def begin_selection(
    db: Transaction, experiment_id: int, item_ids: Sequence[int], now: int
) -> Selection:
    """A new selection, with a number if others are open too."""
    has_steps = db.execute("chain", {"experiment_id": experiment_id}).fetchone() is not None
    ids = json.dumps(list(item_ids))
    if has_steps:
        ids = str(db.execute("with_rows_below", {"ids": ids}).fetchone()[0])
    which = {"experiment_id": experiment_id, "ids": ids, "now": now}
    ended = _one(db, "count_chosen_ended", which) if has_steps else None
    chosen = Counter(dict(db.execute("count_chosen", which).fetchall()))
    every = Counter(dict(db.execute("count_all", which).fetchall()))
    others = every - chosen
    if others.keys() <= {State.DONE, State.FAILED, State.STALE}:
        done, failed = others[State.DONE], others[State.FAILED]
        if ended is not None:
            ended = _one(db, "count_all_ended", which) - ended
        rows = _one(db, "count_rows", which)
        return Selection(None, rows, done, failed, experiment_id, ended)
    counts = {"done": chosen[State.DONE], "failed": chosen[State.FAILED]}
    (number,) = db.execute("add_selection", {**which, **counts}).fetchone()
    db.execute("select_open", {**which, "selection": number})
    return Selection(number, every.total(), ended=ended)


def _one(db: Transaction, query: str, which: Mapping[str, object]) -> int:
    (found,) = db.execute(query, which).fetchone()
    return int(found)


def end_selection(db: Transaction, selection: int) -> None:
    db.execute("unselect", {"selection": selection})
    db.execute("delete_selection", {"selection": selection})


def counts_of_selection(db: Transaction, selection: Selection, every: Counts) -> Counts:
    """The chosen items by state, without reasons. `every` are the counts of their experiment, which
    has the calls."""
    if selection.number is None:
        done, failed = every.done - selection.done, every.failed - selection.failed
        ended = done if selection.ended is None else every.ended - selection.ended
        return replace(
            every, done=max(0, done), ended=max(0, ended), failed=max(0, failed), reasons=Counter()
        )  # fmt: skip
    found: Counter[str] = Counter()
    for state, n in db.execute("selection_counts", {"selection": selection.number}):
        found[state] += n
    ended = found[State.DONE]
    if selection.ended is not None:
        which = {"selection": selection.number}
        ended = selection.ended + _one(db, "count_selected_ended", which)
    return replace(
        every, pending=found[State.PENDING], running=found[State.RUNNING],
        done=found[State.DONE], ended=ended, failed=found[State.FAILED], reasons=Counter(),
    )  # fmt: skip


def others_have_come(db: Transaction, selection: Selection, experiment_id: int) -> bool:
    """Whether a selection without a number needs one now. What was made of its own items are no
    others."""
    if selection.number is not None or selection.experiment_id != experiment_id:
        return False
    return _one(db, "count_rows", {"experiment_id": experiment_id}) > selection.rows


def rows_of_items(db: Transaction, item_ids: Sequence[int], samples: int) -> list[int]:
    which = {"ids": json.dumps(list(item_ids)), "samples": samples}
    return [number for _, number, _ in db.execute("rows_of_items", which)]
