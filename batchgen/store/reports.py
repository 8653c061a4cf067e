"""What people and export read: all on the reading connection, in pages, and never locking."""

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from batchgen.items import State
from batchgen.store.intake import key_of_id
from batchgen.store.sql import QUERIES

_PAGE_CHARS = 4 << 20  # so that memory stays bounded


@dataclass(frozen=True, slots=True)
class Experiment:
    id: int
    name: str
    created_at: int


@dataclass(slots=True)
class Counts:
    """Items by state, the failed ones by reason too, and what all calls used."""

    pending: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    unknown_calls: int = 0
    latency_ms: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0.0

    @property
    def total(self) -> int:
        return self.pending + self.running + self.done + self.failed

    @property
    def open(self) -> int:
        """Those that still need work."""
        return self.pending + self.running


@dataclass(frozen=True, slots=True)
class Pace:
    """Items finished lately: `items` in the last `span_s` seconds, and the newest latencies."""

    items: int
    span_s: float
    latencies_ms: list[int]


@dataclass(frozen=True, slots=True)
class FailureGroup:
    reason: str
    error: str
    n: int
    example: int


class ResultRow(NamedTuple):
    """An item that ended, as exported. `input`, `response`, `parsed` and `metadata` are JSON text;
    `parsed` is None when it is the response; `sample` is None of an ordinary item."""

    id: int
    custom_id: str | None
    input: str
    response: str
    parsed: str | None
    metadata: str | None
    model: str | None
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    cost_usd: float | None
    attempts: int
    finished_at: int
    sample: int | None = None
    reason: str | None = None
    error: str | None = None


class UnknownCall(NamedTuple):
    """A call that was sent, and whose answer nobody knows. `booked_usd`: what a budget has counted
    for it, if there was one. `seq` is 0 while its worker is only known to be dead."""

    seq: int
    item_id: int
    recipe_id: int
    input: str
    booked_usd: float | None


class AnswerDetails(NamedTuple):
    """What only some formats of the export need of an item that ended."""

    recipe_id: int
    http_status: int | None
    request_id: str | None
    body: str | None


def is_enqueued_with(db: sqlite3.Connection, experiment_id: int, recipe_id: int) -> bool:
    """Whether the experiment accepts items with this recipe."""
    which = {"experiment_id": experiment_id, "recipe_id": recipe_id}
    return db.execute(QUERIES["known_as"], which).fetchone() is not None


def last_bad_answer(db: sqlite3.Connection, item_id: int) -> tuple[str, str] | None:
    """The newest answer of an item that its parser could not use, and why."""
    row = db.execute(QUERIES["last_bad_answer"], {"item_id": item_id}).fetchone()
    return None if row is None else (row[0], row[1])


def experiments(db: sqlite3.Connection) -> list[Experiment]:
    return [Experiment(*row) for row in db.execute(QUERIES["experiments"])]


def counts(db: sqlite3.Connection, experiment_ids: Sequence[int] | None = None) -> Counts:
    """By the counters: as fast at ten million items as at ten."""
    found = Counts()
    for experiment_id, state, reason, n in db.execute(QUERIES["counters"]):
        if experiment_ids is None or experiment_id in experiment_ids:
            setattr(found, state, getattr(found, state) + n)
            if state == State.FAILED:
                found.reasons[reason] += n
    for experiment_id, calls, unknown, ms, *tokens, cost_usd in db.execute(QUERIES["totals"]):
        if experiment_ids is None or experiment_id in experiment_ids:
            found.calls += calls
            found.unknown_calls += unknown
            found.latency_ms += ms
            found.prompt_tokens += tokens[0]
            found.completion_tokens += tokens[1]
            found.cached_tokens += tokens[2]
            found.reasoning_tokens += tokens[3]
            found.cost_usd += cost_usd
    return found


def unknown_calls(db: sqlite3.Connection, after: int, limit: int) -> list[UnknownCall]:
    """The next ones after attempt `after`: `limit` of them, or fewer when their items are big. Ends
    with an empty page."""
    which = {"after": after, "limit": limit}
    return _page_of_calls(db.execute(QUERIES["unknown_calls"], which))


def calls_of_worker(db: sqlite3.Connection, worker_id: int, limit: int) -> list[UnknownCall]:
    """What a worker that died had under way, as far as nobody has taken over from it."""
    which = {"worker_id": worker_id, "limit": limit}
    return _page_of_calls(db.execute(QUERIES["calls_of_worker"], which))


def _page_of_calls(rows: sqlite3.Cursor) -> list[UnknownCall]:
    page, chars = [], 0
    for columns in rows:
        page.append(UnknownCall(*columns))
        chars += len(page[-1].input)
        if chars > _PAGE_CHARS:
            break
    return page


def pace(db: sqlite3.Connection, now: int, span_s: float = 60.0) -> Pace:
    """How fast items finish, over the last minute."""
    since = {"since": now - int(span_s * 1000), "limit": 100_000}
    items, first = db.execute(QUERIES["recent_finishes"], since).fetchone()
    latencies = [ms for (ms,) in db.execute(QUERIES["recent_latencies"], {"limit": 1000})]
    measured_s = (now - first) / 1000 if items > 1 else span_s
    return Pace(items, max(measured_s, 1.0), latencies)


def recent_usage(db: sqlite3.Connection) -> list[tuple[int, int]]:
    return db.execute(QUERIES["recent_usage"], {"limit": 200}).fetchall()


def failures(
    db: sqlite3.Connection, experiment_id: int, reason: str | None, limit: int
) -> list[FailureGroup]:
    which = {"experiment_id": experiment_id, "reason": reason, "limit": limit}
    return [FailureGroup(*row) for row in db.execute(QUERIES["failures_by_message"], which)]


def find_items(db: sqlite3.Connection, given: str, experiment_id: int | None) -> list[int]:
    """The numbers of the items that `given` names: by the user's id in any experiment, with all
    their samples, or, if there is none, by the number of the one. `#17` is always a number."""
    ids = [e.id for e in experiments(db)] if experiment_id is None else [experiment_id]
    keys = [key_of_id(id_, given) for id_ in ids]
    found = [db.execute(QUERIES["item_by_key"], {"key": key}).fetchone() for key in keys]
    firsts = [row[0] for row in found if row]
    named = [one for first in firsts for one in (first, *_other_samples(db, first))]
    number = given.removeprefix("#")
    if named or not (number.isascii() and number.isdecimal()) or len(number) > 18:
        return named
    return [int(number)] if item(db, int(number)) else []


def _other_samples(db: sqlite3.Connection, item_id: int) -> list[int]:
    return [one for (one,) in db.execute(QUERIES["other_samples"], {"item_id": item_id})]


def has_samples(db: sqlite3.Connection, experiment_id: int) -> bool:
    which = {"experiment_id": experiment_id}
    return db.execute(QUERIES["any_samples"], which).fetchone() is not None


def item(db: sqlite3.Connection, item_id: int) -> dict[str, Any] | None:
    """One item with its attempts, as a dict by column."""
    found = _dicts(db, "item", {"item_id": item_id})
    if not found:
        return None
    return found[0] | {"calls": _dicts(db, "attempts_of_item", {"item_id": item_id})}


def recipe_json(db: sqlite3.Connection, recipe_id: int) -> str:
    (body,) = db.execute(QUERIES["recipe"], {"recipe_id": recipe_id}).fetchone()
    return str(body)


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
    (seq,) = db.execute(QUERIES["last_id"], {"name": "results"}).fetchone()
    return int(seq)


def _dicts(db: sqlite3.Connection, query: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    cursor = db.execute(QUERIES[query], parameters)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
