"""Chosen items: a run may be about some items of an experiment, and then claims no others.

Those of them that are open are marked in their rows, so that a claim costs the same however many
were chosen, or are open besides. An item that several runs chose is the newest one's.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence

from batchgen.items import State
from batchgen.store.records import Counts
from batchgen.store.sqlite.sql import QUERIES


def begin_selection(
    db: sqlite3.Connection, experiment_id: int, item_ids: Sequence[int], exactly: bool, now: int
) -> int | None:
    """The number of a new selection; None: there is no need for one, as nothing else is open (or,
    with `exactly`, nothing else is in the experiment)."""
    which = {"experiment_id": experiment_id, "ids": json.dumps(list(item_ids)), "now": now}
    chosen = Counter(dict(db.execute(QUERIES["count_chosen"], which).fetchall()))
    every = Counter(dict(db.execute(QUERIES["count_all"], which).fetchall()))
    if every - chosen == Counter() or (not exactly and _open(every) == _open(chosen)):
        return None
    counts = {"done": chosen[State.DONE], "failed": chosen[State.FAILED]}
    selection = db.execute(QUERIES["add_selection"], {**which, **counts}).lastrowid
    db.execute(QUERIES["select_open"], {**which, "selection": selection})
    return selection


def _open(counted: Counter[str]) -> int:
    return counted[State.PENDING] + counted[State.RUNNING]


def end_selection(db: sqlite3.Connection, selection: int) -> None:
    db.execute(QUERIES["unselect"], {"selection": selection})
    db.execute(QUERIES["delete_selection"], {"selection": selection})


def selection_counts(db: sqlite3.Connection, selection: int) -> Counts:
    """The chosen items by state, without reasons and calls."""
    counts = Counts()
    for state, n in db.execute(QUERIES["selection_counts"], {"selection": selection}):
        setattr(counts, state, getattr(counts, state) + n)
    return counts


def rows_of_items(db: sqlite3.Connection, item_ids: Sequence[int], samples: int) -> list[int]:
    which = {"ids": json.dumps(list(item_ids)), "samples": samples}
    return [number for _, number, _ in db.execute(QUERIES["rows_of_items"], which)]
