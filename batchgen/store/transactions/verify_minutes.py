"""The proof of what is counted by the minute: that it adds up to the totals, and is what the calls
and results of each minute say."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from heapq import merge
from itertools import groupby
from math import isclose
from operator import itemgetter
from typing import Any

from msgspec.json import decode

from batchgen.clock import timestamp
from batchgen.store.minutes import BEFORE, MS_A_MINUTE, bucket_of
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.rows import dicts_of

_OF_TOTALS = ("calls", "latency_ms", "prompt_tokens", "completion_tokens", "cached_tokens",
              "reasoning_tokens", "cost_usd")  # fmt: skip
_COUNTED = ("done", "failed", *_OF_TOTALS, "latencies", "lengths", "reasons", "slowest_ms")
_BUCKETS = {"latencies": "recount_latencies", "lengths": "recount_lengths"}
_MOST = 20
_TOLERANCE = 1e-6  # dollars are added in another order

_Row = dict[str, Any]
_Buckets = defaultdict[int, Counter[int]]


def wrong_minutes(db: Transaction) -> list[str]:
    """A line each, at most 20 of a kind. Where the totals, or what they are made of, are wrong, it
    says nothing new."""
    kept = _Kept()
    problems = list(_wrong_rows(db, kept))
    problems += _wrong_sums(db, kept.sums)
    for name, query in _BUCKETS.items():
        problems += _wrong_buckets(name, kept.buckets[name], _recounted(db, query))
    problems += [
        f"experiment {experiment_id}: its slowest call of {_time(minute)} is none that took so long"
        for experiment_id, minute in db.execute("wrong_slowest")
    ]
    return problems


class _Kept:
    """What all minutes say together, by experiment."""

    def __init__(self) -> None:
        self.sums = defaultdict[int, Counter[str]](Counter)
        self.buckets: dict[str, _Buckets] = {name: defaultdict(Counter) for name in _BUCKETS}

    def add(self, row: _Row) -> None:
        """A row of the table, whose buckets become the sums of them, as they are counted again."""
        experiment_id = row["experiment_id"]
        for name in _OF_TOTALS:
            self.sums[experiment_id][name] += row[name]
        for name in _BUCKETS:
            buckets = decode(row[name], type=dict[int, int])
            self.buckets[name][experiment_id].update(buckets)
            row[name] = sum(buckets.values())
        row["reasons"] = sum(decode(row["reasons"], type=dict[str, int]).values())


def _wrong_rows(db: Transaction, kept: _Kept) -> Iterator[str]:
    """Minute by minute: of all that there are only one is in memory here."""
    rows = merge(
        *(_tagged(db, name) for name in ("minutes", "recount_minutes", "recount_ends")),
        key=itemgetter(0, 1),
    )
    found = 0
    for (experiment_id, minute), group in groupby(rows, key=itemgetter(0, 1)):
        said, are = dict.fromkeys(_COUNTED, 0), dict.fromkeys(_COUNTED, 0)
        for *_, query, row in group:
            if query == "minutes":
                kept.add(row)
            one = said if query == "minutes" else are
            one.update((name, row[name] or 0) for name in _COUNTED if name in row)
        wrong = [name for name in _COUNTED if not _is_equal(said[name], are[name])]
        if wrong and minute != BEFORE and found < _MOST:
            found += 1
            numbers = ", ".join(f"{are[name]:.10g}" for name in wrong)
            yield (
                f"experiment {experiment_id}: its minute {_time(minute)} says "
                f"{_listed(said, wrong)}, but there are {numbers}"
            )


def _tagged(db: Transaction, query: str) -> Iterator[tuple[int, int, str, _Row]]:
    for row in dicts_of(db, query):
        yield row["experiment_id"], row["minute"], query, row


def _wrong_sums(db: Transaction, sums: defaultdict[int, Counter[str]]) -> Iterator[str]:
    totals = {row["experiment_id"]: row for row in dicts_of(db, "totals")}
    for experiment_id in sorted(sums.keys() | totals.keys()):
        said, row = sums[experiment_id], totals.get(experiment_id, {})
        are = {name: row.get(name) or 0 for name in _OF_TOTALS}
        are["calls"] -= row.get("unknown_calls", 0)
        wrong = [name for name in _OF_TOTALS if not _is_equal(said[name], are[name])]
        if wrong:
            yield (
                f"experiment {experiment_id}: its minutes add up to {_listed(said, wrong)}, but "
                f"its totals to {', '.join(f'{are[name]:.10g}' for name in wrong)}"
            )


def _recounted(db: Transaction, query: str) -> _Buckets:
    counted: _Buckets = defaultdict(Counter)
    for experiment_id, found, n in db.execute(query):
        value = len(found) if isinstance(found, str) else found
        counted[experiment_id][bucket_of(value)] += n
    return counted


def _wrong_buckets(name: str, kept: _Buckets, counted: _Buckets) -> Iterator[str]:
    for experiment_id in sorted(kept.keys() | counted.keys()):
        said, are = kept[experiment_id], counted[experiment_id]
        wrong = [
            bucket for bucket in sorted(said.keys() | are.keys()) if said[bucket] != are[bucket]
        ]
        if wrong:
            first = wrong[0]
            yield (
                f"experiment {experiment_id}: {said[first]} {name} of its minutes are in bucket "
                f"{first}, but there are {are[first]}"
            )


def _listed(values: Any, names: list[str]) -> str:
    return ", ".join(f"{values[name]:.10g} {name.replace('_', ' ')}" for name in names)


def _time(minute: int) -> str:
    return timestamp(minute * MS_A_MINUTE)[:16] + "Z"


def _is_equal(a: float, b: float) -> bool:
    return isclose(a, b, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
