"""What was done over time, of some experiments: their minutes, as plots want them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from msgspec import Struct, field
from msgspec.json import Decoder
from msgspec.structs import replace

from batchgen.store.minutes import BEFORE, bucket_of
from batchgen.store.page_records import Slowest
from batchgen.store.transactions.rows import dicts_of, listed, rows_of
from batchgen.store.transactions.slowest import slowest_calls

if TYPE_CHECKING:
    from batchgen.store.database import Reads
    from batchgen.store.transaction import Transaction

MOST_POINTS = 600
SAMPLES = 2_000
_EVERY = (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440)
_MINUTES_AT_ONCE = 1_440
_MOST_KEPT = 3_000
_STILL_FILLED = 2  # of the last points

K = TypeVar("K", int, str)
Buckets = dict[int, float]

_buckets, _reasons = Decoder(dict[int, int]), Decoder(dict[str, int])


class Point(Struct):
    """What was done from a minute on (since 1970, UTC), until the next point. `slowest` is the
    number of the call that took longest. `latencies` (ms) are those of answers, and `lengths` their
    characters, each by bucket (`store.minutes`); `reasons` why calls failed. These three are empty
    while they are not read (`is_read`)."""

    minute: int
    done: float = 0
    failed: float = 0
    calls: float = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    slowest: int | None = None
    slowest_ms: int | None = None
    latencies: Buckets = field(default_factory=dict)
    lengths: Buckets = field(default_factory=dict)
    reasons: dict[str, float] = field(default_factory=dict)
    is_read: bool = True


class Before(Struct):
    """What had been done until a series begins."""

    done: float = 0
    failed: float = 0
    calls: float = 0
    cost_usd: float = 0.0


class Series(Struct):
    """Points of `every` minutes each, without gaps, at most 600; none where nothing was done. Those
    before minute `sampled_until` are reckoned from a sample of the calls, as the database is older
    than its minutes. Not `is_whole`: there was no time to read all of the oldest ones."""

    every: int = 1
    points: list[Point] = field(default_factory=list)
    before: Before = field(default_factory=Before)
    sampled_until: int = 0

    @property
    def is_whole(self) -> bool:
        return all(point.is_read for point in self.points)

    @property
    def calls(self) -> float:
        """With those before it."""
        return self.before.calls + sum(point.calls for point in self.points)


class Minutes:
    """The minutes of experiments. It keeps some thousand points that it has added up, and adds up
    only what has changed since."""

    def __init__(self, database: "Reads") -> None:
        self._db = database
        self._points: dict[tuple[str, int, int], Point] = {}
        self._befores: dict[tuple[str, int], Before] = {}
        self._samples: dict[str, list[_Sample]] = {}

    async def series(
        self, experiment_ids: Sequence[int], first: int | None = None, last: int | None = None,
        budget_s: float | None = None,
    ) -> Series:  # fmt: skip
        """Of these experiments together, of which one may be a step, from minute `first` to minute
        `last` (since 1970, UTC; None: as far as there is anything), and as many more as make
        whole points. Nobody changes these. With `budget_s` buckets are read for about so long, the
        newest first: asked again it goes on."""
        until_s = None if budget_s is None else time.monotonic() + budget_s
        return await self._db.read(self._series, sorted(experiment_ids), first, last, until_s)

    async def slowest(
        self, experiment_ids: Sequence[int], first: int | None, limit: int
    ) -> Slowest:
        """The calls that took longest since minute `first`; none from before minutes were kept."""
        return await self._db.read(slowest_calls, experiment_ids, first, limit)

    def _series(
        self, db: "Transaction", experiment_ids: list[int], first: int | None, last: int | None,
        until_s: float | None,
    ) -> Series:  # fmt: skip
        ids = listed(experiment_ids)
        samples = self._sampled(db, ids)
        known = db.execute("span_of_minutes", {"experiment_ids": ids}).fetchone()
        span = [one for one in (*known, *(one.minute for one in samples)) if one is not None]
        if not span:
            return Series()
        first = max(min(span), first or 0)
        is_to_the_end = last is None or last >= max(span)
        last = max(span) if last is None else last
        every = next((n for n in _EVERY if (last - first) // n + 2 <= MOST_POINTS), 0)
        every = every or (last - first) // (MOST_POINTS - 2) + 1
        first, last = first // every * every, last // every * every + every - 1
        series = Series(every)
        if is_to_the_end and (fresh := self._fresh_from(ids, every, first, last)) > first:
            self._look(db, ids, series, fresh, last, until_s)
            self._put_together(ids, series, first, last)
            if series.calls == _calls_of(db, experiment_ids):
                return _with_samples(series, samples, first, last)
        self._befores.pop((ids, first), None)
        self._look(db, ids, series, first, last, until_s)
        which = {"experiment_ids": ids, "first": first}
        self._befores[ids, first] = next(rows_of(db, "until_minute", Before, which))
        self._put_together(ids, series, first, last)
        self._forget()
        return _with_samples(series, samples, first, last)

    def _fresh_from(self, ids: str, every: int, first: int, last: int) -> int:
        """Before it nothing has changed if there are as many calls as there were: the last points
        that are known may have more by now."""
        known = first
        while known <= last and (point := self._points.get((ids, every, known))) and point.is_read:
            known += every
        is_known = (ids, first) in self._befores
        return max(first, known - _STILL_FILLED * every) if is_known else first

    def _look(
        self, db: "Transaction", ids: str, series: Series, first: int, last: int,
        until_s: float | None,
    ) -> None:  # fmt: skip
        every = series.every
        which = {"experiment_ids": ids, "first": first, "last": last, "every": every}
        found = {one.minute: one for one in rows_of(db, "points_of_minutes", Point, which)}
        changed = []
        for minute in range(first, last + 1, every):
            point, kept = found.get(minute, Point(minute)), self._points.get((ids, every, minute))
            if kept is not None and kept.is_read and kept.calls == point.calls:
                point.latencies, point.lengths, point.reasons = (
                    kept.latencies, kept.lengths, kept.reasons
                )  # fmt: skip
            elif point.calls:
                changed.append(minute)
                point.is_read = False
            self._points[ids, every, minute] = point
        for begin, end in reversed([*_spans(changed, every)]):
            of_these = {"experiment_ids": ids, "first": begin, "last": end}
            for minute, latencies, lengths, reasons in db.execute("buckets_of_minutes", of_these):
                point = found[minute // every * every]
                _count(point.latencies, _buckets.decode(latencies))
                _count(point.lengths, _buckets.decode(lengths))
                if reasons != "{}":
                    _count(point.reasons, _reasons.decode(reasons))
            for minute in range(begin, end + 1, every):
                found[minute].is_read = True
            if until_s is not None and time.monotonic() >= until_s:
                break

    def _put_together(self, ids: str, series: Series, first: int, last: int) -> None:
        every = series.every
        series.points = [self._points[ids, every, one] for one in range(first, last + 1, every)]
        series.before = self._befores[ids, first]

    def _forget(self) -> None:
        """The oldest ones; those that were put together just now stay."""
        while len(self._points) > _MOST_KEPT:
            del self._points[next(iter(self._points))]
        while len(self._befores) > _MOST_KEPT:
            del self._befores[next(iter(self._befores))]

    def _sampled(self, db: "Transaction", ids: str) -> "list[_Sample]":
        """Of calls from before minutes were kept, in their order; none where there are no such
        calls."""
        if ids not in self._samples:
            self._samples[ids] = list(_samples_of(db, ids))
        return self._samples[ids]


def _calls_of(db: "Transaction", experiment_ids: Sequence[int]) -> int:
    """All of which minutes tell."""
    return sum(
        row["calls"] - row["unknown_calls"]
        for row in dicts_of(db, "totals")
        if row["experiment_id"] in experiment_ids
    )


def _with_samples(
    series: Series, samples: "Sequence[_Sample]", first: int, last: int
) -> Series:  # fmt: skip
    of_these = [one for one in samples if first <= one.minute <= last]
    if not of_these:
        return series
    points = {point.minute: _copy(point) for point in series.points}
    before = replace(series.before)
    for one in of_these:
        one.add_to(points[one.minute // series.every * series.every], before)
    return Series(series.every, list(points.values()), before, of_these[-1].minute + 1)


def _copy(point: Point) -> Point:
    return replace(
        point, latencies=point.latencies.copy(), lengths=point.lengths.copy(),
        reasons=point.reasons.copy(),
    )  # fmt: skip


class _Sample(NamedTuple):
    """A call, and for how many of each it stands."""

    minute: int
    seq: int
    reason: str | None
    latency_ms: int | None
    length: int | None
    stands_for: Before

    def add_to(self, point: Point, before: Before) -> None:
        for name in Before.__struct_fields__:
            n = getattr(self.stands_for, name)
            setattr(point, name, getattr(point, name) + n)
            setattr(before, name, max(0, getattr(before, name) - n))
        calls = self.stands_for.calls
        if self.latency_ms is not None and self.latency_ms > (point.slowest_ms or -1):
            point.slowest, point.slowest_ms = self.seq, self.latency_ms
        if self.reason is not None:
            _count(point.reasons, {self.reason: calls})
        elif self.latency_ms is not None:
            _count(point.latencies, {bucket_of(self.latency_ms): calls})
        if self.length:
            _count(point.lengths, {bucket_of(self.length): calls})


def _samples_of(db: "Transaction", ids: str) -> Iterator[_Sample]:
    row = db.execute("before_minutes").fetchone()
    if row is None:
        return
    (newest,) = row
    seqs = sorted({1 + newest * n // SAMPLES for n in range(SAMPLES)})
    which = {"experiment_ids": ids, "seqs": listed(seqs), "first": BEFORE + 1}
    found = db.execute("sampled_calls", which).fetchall()
    if not found:
        return
    whole = next(rows_of(db, "until_minute", Before, which))
    failed = sum(reason is not None for _, _, reason, *_ in found)
    for *call, reason, latency_ms, length in found:
        minute, seq = call
        yield _Sample(minute, seq, reason, latency_ms, length, Before(
            done=0 if reason else whole.done / (len(found) - failed),
            failed=whole.failed / failed if reason else 0,
            calls=whole.calls / len(found),
            cost_usd=whole.cost_usd / len(found),
        ))  # fmt: skip


def _spans(minutes: Sequence[int], every: int) -> Iterator[tuple[int, int]]:
    """The first and the last minute of points that follow each other, a day at most."""
    begun = enumerate(minutes)
    for _, group in groupby(begun, lambda one: one[1] - one[0] * every):
        found = [minute for _, minute in group]
        at_once = max(1, _MINUTES_AT_ONCE // every)
        for at in range(0, len(found), at_once):
            some = found[at : at + at_once]
            yield some[0], some[-1] + every - 1


def _count(counted: dict[K, float], more: Mapping[K, float]) -> None:
    for key, n in more.items():
        counted[key] = counted.get(key, 0) + n
