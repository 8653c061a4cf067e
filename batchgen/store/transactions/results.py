"""What export reads: items that ended, in pages and on the reading connection."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from batchgen.items import State
from batchgen.store.plan_rows import Row
from batchgen.store.records import AnswerDetails, MadePage, ResultRow
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.rows import PAGE_CHARS, bounded, rows_of
from batchgen.text.json_text import text_json

T = TypeVar("T")


def append_results(db: Transaction, rows: Sequence[Row]) -> None:
    """Those of steps have more columns."""
    of_steps = [row for row in rows if "made_of" in row]
    plain = [row for row in rows if "made_of" not in row] if of_steps else rows
    db.execute_many("append_result", plain)
    db.execute_many("append_result_of_step", of_steps)


def has_samples(db: Transaction, experiment_id: int) -> bool:
    which = {"experiment_id": experiment_id}
    return db.execute("any_samples", which).fetchone() is not None


def result_page(
    db: Transaction, experiment_id: int, state: State | None, after: int, limit: int
) -> list[ResultRow]:
    which = {"experiment_id": experiment_id, "after": after, "limit": limit}
    if state is State.DONE:
        return _done_page(db, which)
    query = "done_and_failed_rows" if state is None else "failed_rows"
    page, _ = bounded(rows_of(db, query, ResultRow, which), chars_of)
    return page


def _done_page(db: Transaction, which: Mapping[str, object]) -> list[ResultRow]:
    """Of rows whose answers are the texts that they are; in one loop, as all of most exports goes
    through it."""
    page, chars = [], 0
    for row in db.execute("done_rows", which):
        response = text_json(row[3])
        values = (*row[:3], response, *row[4:])
        page.append(ResultRow(*values))
        chars += len(row[2]) + len(response) + len(row[4] or "")
        if chars > PAGE_CHARS:
            break
    return page


def made_page(
    db: Transaction, make: Callable[[Sequence[ResultRow]], T], experiment_id: int,
    state: State | None, after: int, limit: int,
) -> MadePage[T]:  # fmt: skip
    page = result_page(db, experiment_id, state, after, limit)
    return MadePage(len(page), page[-1].id if page else after, make(page))


def results_of(db: Transaction, item_ids: Sequence[int]) -> list[ResultRow]:
    return list(_chosen(db, item_ids))


def results_in_order(db: Transaction, item_ids: Sequence[int]) -> tuple[list[ResultRow], list[int]]:
    page, is_all = bounded(_chosen(db, item_ids), chars_of)
    return page, [] if is_all else list(item_ids[item_ids.index(page[-1].id) + 1 :])


def chars_of(row: ResultRow) -> int:
    return len(row.input) + len(row.response) + len(row.parsed or "")


def _chosen(db: Transaction, item_ids: Sequence[int]) -> Iterator[ResultRow]:
    return rows_of(db, "result_rows", ResultRow, {"ids": json.dumps(list(item_ids))})


def sample_page(db: Transaction, experiment_id: int, after: int, limit: int) -> dict[int, int]:
    which = {"experiment_id": experiment_id, "after": after, "limit": limit}
    rows = db.execute("sample_numbers", which)
    return {number: first for number, first, _ in rows}


def answer_details(
    db: Transaction, item_ids: Sequence[int], *, bodies: bool
) -> dict[int, AnswerDetails]:
    """By item. Without `bodies`, only those of answers that have no text."""
    which = {"ids": json.dumps(list(item_ids)), "bodies": bodies}
    return {row.item_id: row for row in rows_of(db, "answer_details", AnswerDetails, which)}


def newest_result(db: Transaction) -> int:
    return db.newest("results")


def results_mark(db: Transaction) -> int:
    (superseded,) = db.execute("superseded_of_all").fetchone()
    return newest_result(db) + int(superseded)
