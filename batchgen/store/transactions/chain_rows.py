"""Whole chains as they stand, row by row: what export reads of experiments with steps."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from batchgen.store.chain_records import ChainRow, LiveChains
from batchgen.store.records import ResultRow
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.plans import chain_of
from batchgen.store.transactions.results import chars_of, sample_page
from batchgen.store.transactions.rows import PAGE_CHARS, rows_of

_LEAVES_AT_ONCE = 50


class _Row(NamedTuple):
    first: int
    id: int
    parent_id: int | None
    experiment_id: int
    number: int
    element: int
    sample: int | None
    state: str
    result_seq: int | None
    children: int | None
    gathered: str | None


def chain_page(db: Transaction, first_id: int, after: int, limit: int) -> list[ChainRow]:
    items = sample_page(db, first_id, after, limit)
    found = _rows(db, "chain_rows_below", list(items))
    ordered = [
        (items[first], row) for first in items for row in _downwards(first, found[first])
    ]  # fmt: skip
    results = _results(db, [row for _, row in ordered])
    page, chars = list[ChainRow](), 0
    for item_id, row in ordered:
        if page and chars > PAGE_CHARS and item_id != page[-1].item_id:
            break
        result = next(results) if row.state in ("done", "failed") else None
        chars += 0 if result is None else chars_of(result)
        page.append(_chain_row(item_id, row, result))
    return page


def chain_rows_below(db: Transaction, first_ids: Sequence[int]) -> list[ChainRow]:
    found = _rows(db, "chain_rows_below", first_ids)
    ordered = [row for first in first_ids for row in _downwards(first, found[first])]
    results = {row.id: row for row in _results(db, ordered)}
    return [_chain_row(row.first, row, results.get(row.id)) for row in ordered]


def chain_rows_above(db: Transaction, item_ids: Sequence[int]) -> dict[int, ChainRow]:
    found = [row for rows in _rows(db, "chain_rows_above", item_ids).values() for row in rows]
    results = {row.id: row for row in _results(db, found)}
    return {row.id: _chain_row(row.first, row, results.get(row.id)) for row in found}


def live_chain_page(
    db: Transaction, first_id: int, after: int, limit: int, failed_too: bool = False
) -> LiveChains | None:
    which = {"experiment_id": first_id, "after": after, "limit": limit, "first_id": first_id}
    window = db.execute("live_window", which).fetchone()
    chain = chain_of(db, first_id)
    if window is None or chain is None:
        return None
    _, results, newest = window
    (superseded,) = db.execute("superseded_of_chain", which).fetchone()
    if not results:
        return LiveChains(chain, [], {}, after, is_last=True, superseded_results=superseded)
    upto = {**which, "upto": newest, "failed_too": failed_too}
    leaves = db.execute("ended_chains", upto).fetchall()
    above, read = _bounded_above(db, [item_id for item_id, _ in leaves])
    rows = [item_id for item_id, _ in leaves[:read]]
    if read < len(leaves):
        return LiveChains(chain, rows, above, leaves[read - 1][1], False, superseded)
    return LiveChains(chain, rows, above, newest, results < limit, superseded)


def _bounded_above(
    db: Transaction, item_ids: Sequence[int]
) -> tuple[dict[int, ChainRow], int]:  # fmt: skip
    """As many as fit on a page, some at least; and of how many of the rows."""
    found, chars, read = dict[int, ChainRow](), 0, 0
    while read < len(item_ids) and chars <= PAGE_CHARS:
        new = chain_rows_above(db, item_ids[read : read + _LEAVES_AT_ONCE])
        read = min(read + _LEAVES_AT_ONCE, len(item_ids))
        chars += sum(chars_of(row.result) for row in new.values() if row.result)
        found |= new
    return found, read


def _rows(db: Transaction, query: str, ids: Sequence[int]) -> defaultdict[int, list[_Row]]:
    found = defaultdict[int, list[_Row]](list)
    for row in rows_of(db, query, _Row, {"ids": json.dumps(list(ids))}):
        found[row.first].append(row)
    return found


def _downwards(first: int, rows: Sequence[_Row]) -> Iterator[_Row]:
    """From the first row down, each followed by all that was made of it."""
    below, by_id = defaultdict[int | None, list[_Row]](list), {row.id: row for row in rows}
    for row in sorted(rows, key=lambda row: (row.number, row.element)):
        below[row.parent_id].append(row)
    stack = [by_id[first]]
    while stack:
        row = stack.pop()
        yield row
        stack += reversed(below[row.id])


def _results(db: Transaction, rows: Sequence[_Row]) -> Iterator[ResultRow]:
    ids = [row.id for row in rows if row.state in ("done", "failed")]
    return rows_of(db, "result_rows", ResultRow, {"ids": json.dumps(ids)})


def _chain_row(item_id: int, row: _Row, result: ResultRow | None) -> ChainRow:
    gathered = () if row.gathered is None else tuple(json.loads(row.gathered))
    return ChainRow(
        item_id, row.id, row.parent_id, row.experiment_id, row.number, row.element, row.sample,
        row.state, row.result_seq, row.children, gathered, result,
    )  # fmt: skip
