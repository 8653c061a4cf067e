"""The proof that the database says one consistent thing."""

from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import islice
from math import isclose
from typing import Any

from batchgen.store.chain import made_of_parent
from batchgen.store.records import CallFailure, CallTotals
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.rows import dicts_of
from batchgen.store.transactions.verify_minutes import wrong_minutes

_CHECKS = {
    "done_without_answer": "item {0} is done, but has no answer",
    "failed_without_result": "item {0} is failed, but there is no record of how",
    "results_without_attempt": "result {0} belongs to no attempt",
    "results_without_item": "result {0} belongs to no item",
    "reviews_of_no_result": "item {0} has a review of a result that was never its own",
    "missing_answers": "item {0} has a stored answer that is not there",
    "running_without_worker": "item {0} is running, but no worker has it",
    "stale_reservations": "item {0} has a part of a budget reserved, but no call under way",
    "batches_miscounted": "batch {0} was sealed with {1} rows, but {2} of them are settled, and it "
    "has {3}",
    "batches_without_holder": "batch {0} is not closed, but nothing holds its rows",
    "holders_without_batch": "worker {0} holds rows for a batch that is not there, or is closed",
    "repeated_ids": "id {0!r} is there more than once",
    "items_without_key": "item {0} has no identity key, so it could be enqueued twice",
    "keys_without_item": "an identity key names item {0}, which is not there, "
    "so it cannot be enqueued",
    "keys_of_two_items": "item {0} has the identity key of another one",
    "spans_outside": "item {0}: its parsed value is pieces that its answer does not have",
    "unreadable_parsed": "item {0}: its parsed value is not JSON",
    "unreadable_inputs": "item {0}: its input is not JSON",
    "children_miscounted": "row {0} is done, and {1} rows of later steps are to be made of it, but "
    "there are {2}",
    "not_followed": "row {0} is done, but what follows it was never made",
    "children_of_replaced": "row {0} was made of a result that is its parent's no more, but is not "
    "marked as stale",
    "gathers_what_is_no_more": "row {0} gathers a result that is no more, but is not marked as "
    "stale",
    "gathers_too_few": "row {0} does not gather all that is done",
    "steps_out_of_order": "row {0} was made of one that is of no earlier step of its chain",
}

_WORDS = {name: name.replace("_", " ") for name in CallTotals.__struct_fields__} | {
    "latency_ms": "ms of latency",
    "cost_usd": "dollars",
}
_MOST = 20  # of a kind
_TOLERANCE = 1e-6  # dollars are added in another order


def verify_tables(db: Transaction) -> list[str]:
    """Every contradiction in the tables, a line each, at most 20 of a kind; none if all is well."""
    problems = [f"file: {line}" for (line,) in db.execute("damage") if line != "ok"]
    if problems:
        return problems  # nothing else read from a damaged file means anything
    problems += [
        f"{table} row {row} points at a missing row of {parent}"
        for table, row, parent, *_ in islice(db.execute("missing_parents"), _MOST)
    ]
    for query, text in _CHECKS.items():
        problems += [text.format(*row) for row in sorted(db.execute(query))]
    problems += _made_of_other_values(db)
    which = {"ids": None, "limit": _MOST}
    problems += [
        f"row {root}: all that is gathered with it has ended, but nothing gathers it"
        for (root,) in db.execute("gatherings_without_row", which)
    ]
    problems += _wrong_steps(db) + _wrong_counters(db) + _wrong_parser_counters(db)
    problems += _wrong_calls(db)
    return problems or wrong_minutes(db)  # what they are made of, before them


def _made_of_other_values(db: Transaction) -> list[str]:
    """Rows that ended, and saw other values than their parents have by now."""
    found, after = list[int](), 0
    while page := db.execute("made_of_values", {"after": after, "limit": 500}).fetchall():
        after = page[-1][0]
        found += [
            item_id
            for item_id, made_of, passed_on, input_json in page
            if made_of != made_of_parent(passed_on, input_json)
        ]
        if len(found) >= _MOST:
            break
    text = "row {0} was made of other values than its parent has, but is not marked as stale"
    return [text.format(item_id) for item_id in found[:_MOST]]


def _wrong_counters(db: Transaction) -> list[str]:
    def words(state: str, reason: str) -> str:
        return f"items counted as {state} {reason}".rstrip()

    return _wrong(_counts(db, "counters"), _counts(db, "recount"), words)


def _wrong_steps(db: Transaction) -> list[str]:
    kept, counted = _steps(db, "step_counters"), _steps(db, "recount_steps")
    return [
        f"experiment {id_}: {kept[id_][0]} chains counted as ended and {kept[id_][1]} rows as "
        f"passed over, but there are {counted[id_][0]} and {counted[id_][1]}"
        for id_ in sorted(kept.keys() | counted.keys())
        if kept[id_] != counted[id_]
    ]


def _steps(db: Transaction, query: str) -> defaultdict[int, tuple[int, int]]:
    found = {id_: (ended, over) for id_, ended, over in db.execute(query)}
    return defaultdict(lambda: (0, 0), found)


def _wrong_parser_counters(db: Transaction) -> list[str]:
    kept, counted = _by_parser(db, "parser_counters"), _by_parser(db, "recount_parsers")
    return _wrong(kept, counted, "items counted as read by parser {}".format)


def _by_parser(db: Transaction, query: str) -> Counter[tuple[int, int]]:
    rows = dicts_of(db, query)
    return Counter({(row["experiment_id"], row["parser_id"]): row["n"] for row in rows})


def _wrong_calls(db: Transaction) -> list[str]:
    return _wrong_failed_calls(db) + _wrong_totals(db)


def _wrong_failed_calls(db: Transaction) -> list[str]:
    kept, counted = _by_failure(db, "failed_calls"), _by_failure(db, "recount_failed_calls")
    return _wrong(kept, counted, "calls counted as failed by {}".format)


def _by_failure(db: Transaction, query: str) -> Counter[tuple[int, CallFailure]]:
    rows = dicts_of(db, query)
    return Counter(
        {
            (row["experiment_id"], CallFailure(row["reason"], row["http_status"])): row["n"]
            for row in rows
        }
    )


def _wrong(kept: Counter[Any], counted: Counter[Any], words: Callable[..., str]) -> list[str]:
    """What is counted wrongly: a key is an experiment, and what the `words` are made of."""
    return [
        f"experiment {key[0]}: {kept[key]} {words(*key[1:])}, but there are {counted[key]}"
        for key in sorted(kept.keys() | counted.keys())
        if kept[key] != counted[key]
    ]


def _wrong_totals(db: Transaction) -> list[str]:
    """`retried` and `unknown_tokens` cannot be told from the calls."""
    kept, counted = _totals(db, "totals"), _totals(db, "recount_calls")
    problems = []
    for experiment_id in sorted(kept.keys() | counted.keys()):
        said, are = kept[experiment_id], counted[experiment_id]
        wrong = [name for name in said if not _is_equal(said[name], are[name])]
        if wrong:
            said_words = ", ".join(f"{said[name]:.10g} {_WORDS[name]}" for name in wrong)
            numbers = ", ".join(f"{are[name]:.10g}" for name in wrong)
            line = f"its totals say {said_words}, but its attempts add up to {numbers}"
            problems.append(f"experiment {experiment_id}: {line}")
    return problems


def _totals(db: Transaction, query: str) -> defaultdict[int, dict[str, float]]:
    found: defaultdict[int, dict[str, float]]
    found = defaultdict(lambda: dict.fromkeys(_WORDS, 0.0))
    for row in dicts_of(db, query):
        found[row["experiment_id"]] = {name: row[name] or 0 for name in _WORDS}
    return found


def _is_equal(a: float, b: float) -> bool:
    return isclose(a, b, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)


def _counts(db: Transaction, query: str) -> Counter[tuple[int, str, str]]:
    return Counter({(e, state, reason): n for e, state, reason, n in db.execute(query)})
