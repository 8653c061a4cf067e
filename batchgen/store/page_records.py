"""What is asked, and read, of the store for a page of rows out of very many."""

from enum import StrEnum

from msgspec import Struct

from batchgen.items import State


class Order(StrEnum):
    """newest: those that have ended, the last one first. pool: as the items came."""

    NEWEST = "newest"
    POOL = "pool"


class Listing(Struct, frozen=True):
    """Rows of some experiments, in an order; those in a `state`, or all (in the order `newest` all
    that have ended). Pending, running and stale ones have an order of their own: the pending ones
    that in which they are claimed, the others that of the pool. `reason` is that of failed ones.
    """

    experiment_ids: tuple[int, ...]
    order: Order = Order.NEWEST
    state: State | None = None
    reason: str | None = None


class Stretch(Struct, frozen=True):
    """A part of a listing: `rows` are the places and the numbers of those found on the way, in the
    direction of it; `looked_at` so many were on the way. `end` is the place where it goes on; None:
    nothing comes any more."""

    rows: list[tuple[str, int]]
    looked_at: int
    end: str | None


class Origin(Struct, frozen=True):
    """The item that a row of a later step comes from, in the first step: what it was given, of
    which this is the beginning. `way` are the rows from it to this one, each by its experiment and
    its place in the list that it was made of."""

    id: int
    custom_id: str | None
    sample: int | None
    input: str
    way: tuple[tuple[int, int], ...]


class PageRow(Struct, frozen=True):
    """A row as a table shows it. `input`, `answer`, `error` and `parsed` are the beginnings of
    texts, of so many bytes; input and parsed are JSON. `parsed` is None where it is the answer.
    `origin` is None of an item's own row."""

    id: int
    experiment_id: int
    custom_id: str | None
    sample: int | None
    state: str
    reason: str | None
    error: str | None
    input: str
    input_bytes: int
    answer: str | None
    answer_bytes: int | None
    parsed: str | None
    parsed_bytes: int | None
    tries: int
    latency_ms: int | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: float | None
    finished_at: int | None
    available_at: int | None
    result_seq: int | None
    origin: Origin | None = None

    @property
    def is_parsed_whole(self) -> bool:
        """Whether all of `parsed` is there."""
        return self.parsed is not None and len(self.parsed.encode()) == self.parsed_bytes


class RandomRows(Struct, frozen=True):
    """Done rows of an experiment, each as likely as any other, in the order in which they were
    drawn. The same `seed` and `upto` (the newest result that could be drawn) give the same again,
    but for rows that have another result since. `is_all`: the experiment had no others."""

    item_ids: tuple[int, ...]
    seed: int
    upto: int
    is_all: bool


class ShownAttempt(Struct, frozen=True):
    """One call for an item; `response` and `body` are the beginnings of texts of so many bytes, and
    are as in `StoredAttempt`."""

    seq: int
    finished_at: int
    latency_ms: int | None
    outcome: str
    reason: str | None
    error: str | None
    http_status: int | None
    request_id: str | None
    model: str | None
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    cost_usd: float | None
    response: str | None
    response_bytes: int | None
    body: str | None
    body_bytes: int | None
    server: str | None
    batch: int | None = None


class Call(Struct, frozen=True):
    """A call for an item, without its texts."""

    seq: int
    item_id: int
    finished_at: int
    latency_ms: int | None
    outcome: str
    reason: str | None


class Slowest(Struct, frozen=True):
    """The calls that took longest, the slowest one first. Not `is_whole`: of minutes with very many
    calls there is only the slowest one."""

    calls: list[Call]
    is_whole: bool


class AttemptText(Struct, frozen=True):
    """All that came back from a call for an item, as in `StoredAttempt`."""

    item_id: int
    outcome: str
    error: str | None
    response: str | None
    body: str | None


class ResultValue(Struct, frozen=True):
    """What an item once ended with: `parsed` is JSON, None where it is the `response`; `parser`
    is the spec of what has read that."""

    seq: int
    item_id: int
    state: str
    reason: str | None
    error: str | None
    parsed: str | None
    response: str | None
    attempt_seq: int | None
    parser: str | None
    finished_at: int


class Sample(Struct, frozen=True):
    """A sample of an item: its row, its number, and how it stands."""

    id: int
    sample: int
    state: str


class FormerResult(Struct, frozen=True):
    """What an item ended with before it was parsed or asked again: `text` is the beginning of its
    value (JSON) or, where that was the answer, of the answer; `parser` the spec of what has read
    that. None: it failed without one."""

    seq: int
    state: str
    reason: str | None
    error: str | None
    finished_at: int
    parser: str | None
    text: str | None
