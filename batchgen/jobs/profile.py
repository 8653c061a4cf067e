"""What the values of an experiment look like, field by field, of rows that are drawn at random."""

import json
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from statistics import median_high, median_low
from typing import Any

from msgspec import Struct

from batchgen.jobs.review_queue import target_of
from batchgen.store import ReadStore
from batchgen.where import literal_text, path_text

MOST_ROWS = 1000
FEW = 10  # of so many distinct values all may be told
TYPES = ("boolean", "number", "text", "list", "object")  # of what is there and not null
_READ_AT_ONCE = 50
# What is kept of values, so that memory is bounded whatever they are.
_MOST_FIELDS, _DEEPEST = 100, 8
_MOST_DISTINCT, _MOST_MEASURED = 2000, 10_000
_LONGEST, _SHOWN = 300, 120
_TOP = 5


class TopValue(Struct, frozen=True):
    """A value that `n` rows have: its text, or its JSON, or the beginning of it. `where` is a
    condition that holds for these rows; None: there is none."""

    shown: str
    n: int
    where: str | None


class Spread(Struct, frozen=True):
    least: float
    median: float
    most: float


class FieldProfile(Struct, frozen=True):
    """A field of the values, by its path; the empty path is the value itself. `path` is how a
    condition names it. In `missing` rows it is not there, and in `nulls` it is null; `types` has
    how many are of which type. `distinct` values it has, if not `is_cut` (then there are more), and
    in `duplicates` rows one that a row before has, too. `numbers` is of those that are numbers,
    `lengths` of texts in characters, `elements` of lists. `top` are the most frequent."""

    keys: tuple[str, ...]
    path: str
    missing: int
    nulls: int
    types: tuple[tuple[str, int], ...]
    distinct: int
    is_cut: bool
    duplicates: int
    top: tuple[TopValue, ...]
    numbers: Spread | None = None
    lengths: Spread | None = None
    elements: Spread | None = None


class Profile(Struct, frozen=True):
    """Of so many `rows`, of which `duplicates` have a whole value that a row before has, too.
    `is_cut`: there are more fields, or deeper ones, than these."""

    rows: int
    duplicates: int
    fields: tuple[FieldProfile, ...]
    is_cut: bool = False


class Sampled(Struct, frozen=True):
    """The profile of rows that were drawn by a `seed`, of a `step` where there are several, whose
    names are `steps`. `drawn` were to be looked at, `of` so many done ones."""

    experiment: str
    step: str | None
    steps: tuple[str, ...]
    seed: int
    drawn: int
    of: int
    profile: Profile


async def sampled(
    store: ReadStore, name: str, step: str | None, rows: int, seed: int, budget_s: float
) -> Sampled:
    """Of up to so many random done rows, as far as there is time to read them; the same seed draws
    the same. Raises UsageError for an experiment or a step that is not there."""
    until_s = time.monotonic() + budget_s
    target = await target_of(store, name if step is None else f"{name}/{step}")
    drawn = await store.pages.random_done(target.experiment_id, rows, seed)
    profiler = Profiler()
    for at in range(0, len(drawn.item_ids), _READ_AT_ONCE):
        ids: Sequence[int] = drawn.item_ids[at : at + _READ_AT_ONCE]
        while ids:
            page, ids = await store.pages.results(ids)
            for row in page:
                if row.reason is None:  # another one has failed since
                    profiler.add(json.loads(row.parsed or row.response))
        if time.monotonic() > until_s:
            break
    counts = await store.counts([target.experiment_id])
    return Sampled(
        target.experiment, target.step, target.steps, seed, len(drawn.item_ids), counts.done,
        profiler.profile(),
    )  # fmt: skip


def profile_of(values: Iterable[Any]) -> Profile:
    """Of values of JSON, in constant memory."""
    profiler = Profiler()
    for value in values:
        profiler.add(value)
    return profiler.profile()


class Profiler:
    """Is told the values one after another."""

    def __init__(self) -> None:
        self._rows, self._duplicates, self._is_cut = 0, 0, False
        self._seen = set[bytes]()
        self._fields = dict[tuple[str, ...], _Field]()

    def add(self, value: Any) -> None:
        self._rows += 1
        digest = _digest(_json(value))
        if digest in self._seen:
            self._duplicates += 1
        elif len(self._seen) < _MOST_MEASURED:
            self._seen.add(digest)
        self._walk((), value)

    def profile(self) -> Profile:
        fields = [one.profile(keys, self._rows) for keys, one in self._fields.items()]
        return Profile(
            self._rows, self._duplicates,
            tuple(one for one in fields if not _is_object(one)), self._is_cut,
        )  # fmt: skip

    def _walk(self, keys: tuple[str, ...], value: Any) -> None:
        field = self._fields.get(keys)
        if field is None:
            if len(self._fields) > _MOST_FIELDS:
                self._is_cut = True
                return
            field = self._fields[keys] = _Field()
        field.add(value)
        if isinstance(value, dict):
            if len(keys) >= _DEEPEST:
                self._is_cut = True
                return
            for key, one in value.items():
                self._walk((*keys, key), one)


def _is_object(field: FieldProfile) -> bool:
    """Whether all rows have one, so that nothing is to be said but of what is in it."""
    is_there = not field.nulls and not field.missing
    return is_there and [name for name, _ in field.types] == ["object"]


class _Seen(Struct):
    shown: str
    value: Any  # an object where it is too long to be kept: no condition has one
    n: int = 0

    def top(self, path: str) -> TopValue:
        literal = literal_text(self.value)
        return TopValue(self.shown, self.n, None if literal is None else f"{path} == {literal}")


class _Field:
    def __init__(self) -> None:
        self._there = 0
        self._types = Counter[str]()
        self._seen = dict[str | bytes, _Seen]()
        self._is_cut, self._duplicates = False, 0
        self._numbers, self._lengths, self._elements = _Measure(), _Measure(), _Measure()

    def add(self, value: Any) -> None:
        self._there += 1
        self._types[_type_of(value)] += 1
        match value:
            case None | dict():
                return
            case bool():
                pass
            case int() | float():
                self._numbers.add(value)
            case str():
                self._lengths.add(len(value))
            case list():
                self._elements.add(len(value))
        self._count(_plain(value))

    def _count(self, value: Any) -> None:
        text = _json(value)
        key = text if len(text) <= _LONGEST else _digest(text)
        seen = self._seen.get(key)
        if seen is not None:
            self._duplicates += 1
        elif len(self._seen) >= _MOST_DISTINCT:
            self._is_cut = True
            return
        else:
            shown = value if isinstance(value, str) else text
            kept = value if len(text) <= _LONGEST else {}
            seen = self._seen[key] = _Seen(shown[: _SHOWN + 1], kept)
        seen.n += 1

    def profile(self, keys: tuple[str, ...], rows: int) -> FieldProfile:
        path = path_text("parsed", keys)
        nulls = self._types["null"]
        types = tuple((name, n) for name, n in self._types.most_common() if name != "null")
        top = sorted(self._seen.values(), key=lambda one: (-one.n, one.shown))[:_TOP]
        if len(self._seen) > FEW:
            top = [one for one in top if one.n > 1]
        return FieldProfile(
            keys, path, rows - self._there, nulls, types, len(self._seen), self._is_cut,
            self._duplicates, tuple(one.top(path) for one in top),
            self._numbers.spread, self._lengths.spread, self._elements.spread,
        )  # fmt: skip


class _Measure:
    """The least and the most of all numbers, and the median of the first ones."""

    def __init__(self) -> None:
        self._least, self._most = float("inf"), float("-inf")
        self._kept = array("d")

    def add(self, number: float) -> None:
        try:
            number = float(number)
        except OverflowError:  # a whole number with hundreds of digits
            return
        self._least, self._most = min(self._least, number), max(self._most, number)
        if len(self._kept) < _MOST_MEASURED:
            self._kept.append(number)

    @property
    def spread(self) -> Spread | None:
        if not self._kept:
            return None
        low, high = median_low(self._kept), median_high(self._kept)
        # Not half of their sum, which may be larger than any number.
        middle = low if low == high else low / 2 + high / 2
        return Spread(self._least, middle, self._most)


def _type_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "text"
        case list():
            return "list"
    return "object"


def _plain(value: Any) -> Any:
    """1.0 is 1, as conditions have it."""
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53
    return int(value) if is_whole else value


_json = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
