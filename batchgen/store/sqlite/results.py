"""What export reads: items that ended, in pages and on the reading connection."""

import json
import sqlite3
from collections.abc import Sequence

from batchgen.items import State
from batchgen.store.sqlite.sql import QUERIES, last_id
from batchgen.store.values import AnswerDetails, ResultRow

_PAGE_CHARS = 4 << 20  # so that memory stays bounded


def has_samples(db: sqlite3.Connection, experiment_id: int) -> bool:
    which = {"experiment_id": experiment_id}
    return db.execute(QUERIES["any_samples"], which).fetchone() is not None


def result_page(
    db: sqlite3.Connection, experiment_id: int, state: State, after: int, limit: int
) -> list[ResultRow]:
    """The next results after item `after`, in the order of the pool: `limit` of them, or fewer when
    they are big. Ends with an empty page."""
    query = "done_rows" if state is State.DONE else "failed_rows"
    which = {"experiment_id": experiment_id, "after": after, "limit": limit}
    page, chars = [], 0
    for columns in db.execute(QUERIES[query], which):
        row = ResultRow(*columns)
        page.append(row)
        chars += len(row.input) + len(row.response)
        if chars > _PAGE_CHARS:
            break
    return page


def results_of(db: sqlite3.Connection, item_ids: Sequence[int]) -> list[ResultRow]:
    """The results of chosen items, those that have ended."""
    which = {"ids": json.dumps(list(item_ids))}
    return [ResultRow(*row) for row in db.execute(QUERIES["result_rows"], which)]


def results_in_order(
    db: sqlite3.Connection, item_ids: Sequence[int]
) -> tuple[list[ResultRow], list[int]]:
    """The same in the order given; and those that are left for another time, when they are big."""
    page, chars = [], 0
    for columns in db.execute(QUERIES["result_rows"], {"ids": json.dumps(list(item_ids))}):
        row = ResultRow(*columns)
        page.append(row)
        chars += len(row.input) + len(row.response)
        if chars > _PAGE_CHARS:
            return page, list(item_ids[item_ids.index(row.id) + 1 :])
    return page, []


def sample_page(
    db: sqlite3.Connection, experiment_id: int, after: int, limit: int
) -> dict[int, int]:
    """The number of an item's first sample, by that of each; the next `limit` items."""
    which = {"experiment_id": experiment_id, "after": after, "limit": limit}
    rows = db.execute(QUERIES["sample_numbers"], which)
    return {number: first for number, first, _ in rows}


def answer_details(
    db: sqlite3.Connection, item_ids: Sequence[int], *, bodies: bool
) -> dict[int, AnswerDetails]:
    """By item. Without `bodies`, only those of answers that have no text."""
    which = {"ids": json.dumps(list(item_ids)), "bodies": bodies}
    rows = db.execute(QUERIES["answer_details"], which)
    return {item_id: AnswerDetails(*columns) for item_id, *columns in rows}


def newest_result(db: sqlite3.Connection) -> int:
    return last_id(db, "results")
