"""What export reads: items that ended, in pages and on the reading connection."""

import json
import sqlite3
from collections.abc import Iterator, Sequence

from batchgen.items import State
from batchgen.store.plan_rows import Row
from batchgen.store.records import AnswerDetails, ResultRow
from batchgen.store.sqlite.rows import bounded, rows_of
from batchgen.store.sqlite.sql import QUERIES, last_id, write_rows


def append_results(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Those of steps have more columns."""
    of_steps = [row for row in rows if "made_of" in row]
    plain = [row for row in rows if "made_of" not in row] if of_steps else rows
    write_rows(db, "append_result", plain)
    write_rows(db, "append_result_of_step", of_steps)


def has_samples(db: sqlite3.Connection, experiment_id: int) -> bool:
    which = {"experiment_id": experiment_id}
    return db.execute(QUERIES["any_samples"], which).fetchone() is not None


def result_page(
    db: sqlite3.Connection, experiment_id: int, state: State | None, after: int, limit: int
) -> list[ResultRow]:
    queries = {State.DONE: "done_rows", State.FAILED: "failed_rows", None: "done_and_failed_rows"}
    query = queries[state]
    which = {"experiment_id": experiment_id, "after": after, "limit": limit}
    page, _ = bounded(rows_of(db, query, ResultRow, which), chars_of)
    return page


def results_of(db: sqlite3.Connection, item_ids: Sequence[int]) -> list[ResultRow]:
    return list(_chosen(db, item_ids))


def results_in_order(
    db: sqlite3.Connection, item_ids: Sequence[int]
) -> tuple[list[ResultRow], list[int]]:
    page, is_all = bounded(_chosen(db, item_ids), chars_of)
    return page, [] if is_all else list(item_ids[item_ids.index(page[-1].id) + 1 :])


def chars_of(row: ResultRow) -> int:
    return len(row.input) + len(row.response) + len(row.parsed or "")


def _chosen(db: sqlite3.Connection, item_ids: Sequence[int]) -> Iterator[ResultRow]:
    return rows_of(db, "result_rows", ResultRow, {"ids": json.dumps(list(item_ids))})


def sample_page(
    db: sqlite3.Connection, experiment_id: int, after: int, limit: int
) -> dict[int, int]:
    which = {"experiment_id": experiment_id, "after": after, "limit": limit}
    rows = db.execute(QUERIES["sample_numbers"], which)
    return {number: first for number, first, _ in rows}


def answer_details(
    db: sqlite3.Connection, item_ids: Sequence[int], *, bodies: bool
) -> dict[int, AnswerDetails]:
    """By item. Without `bodies`, only those of answers that have no text."""
    which = {"ids": json.dumps(list(item_ids)), "bodies": bodies}
    return {row.item_id: row for row in rows_of(db, "answer_details", AnswerDetails, which)}


def newest_result(db: sqlite3.Connection) -> int:
    return last_id(db, "results")


def results_mark(db: sqlite3.Connection) -> int:
    (superseded,) = db.execute(QUERIES["superseded_of_all"]).fetchone()
    return newest_result(db) + int(superseded)
