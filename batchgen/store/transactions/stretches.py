"""Stretches of listings: rows out of very many, to and fro, found by an index or within so many
numbers, never by a count or a sort of a table."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from batchgen.errors import UsageError
from batchgen.items import State
from batchgen.store.page_records import Listing, Order, Stretch
from batchgen.store.transactions.rows import listed

if TYPE_CHECKING:
    from batchgen.store.transaction import Transaction

_LAST = (1 << 63) - 1
_MOST_IN_FLIGHT = 10_000


def stretch(
    db: "Transaction", listing: Listing, place: str | None, *, back: bool, limit: int
) -> Stretch:  # fmt: skip
    if listing.state is State.PENDING:
        return _pending(db, listing, place, back=back, limit=limit)
    at = None if place is None else _number(place)
    if listing.state is State.RUNNING:
        return _running(db, listing, at, back=back, limit=limit)
    if listing.order is Order.NEWEST and listing.state is not State.STALE:
        # The newest comes first, so it goes to lower numbers unless it goes back.
        return _between(db, _BY_RESULTS, listing, at, db.newest("results"), up=back, limit=limit)
    if listing.state in (State.FAILED, State.STALE):
        return _by_index(db, listing, at, back=back, limit=limit)
    return _between(db, _BY_ROWS, listing, at, db.newest("items"), up=not back, limit=limit)


class _Ways(NamedTuple):
    """The statements that go up and down, and over how many numbers at once."""

    up: str
    down: str
    span: int


_BY_RESULTS = _Ways("results_after", "results_before", 10_000)  # each leads to its row
_BY_ROWS = _Ways("rows_after", "rows_before", 50_000)


def _between(
    db: "Transaction", ways: _Ways, listing: Listing, at: int | None, newest: int, *,
    up: bool, limit: int,
) -> Stretch:  # fmt: skip
    """Rows whose places are numbers with gaps: of so many numbers at most."""
    span, first = ways.span, (0 if up else newest + 1) if at is None else min(at, newest + 1)
    last = min(first + span + 1, newest + 1) if up else max(first - span - 1, 0)
    which = {
        "after": min(first, last), "before": max(first, last), "limit": limit,
        "experiment_ids": listed(listing.experiment_ids),
        "state": None if listing.state is None else listing.state.value,
    }  # fmt: skip
    found = db.execute(ways.up if up else ways.down, which).fetchall()
    rows = [
        (str(place), int(id_))
        for place, id_, reason in found
        if listing.reason in (None, reason)
    ]  # fmt: skip
    if len(found) == limit:
        reached = int(found[-1][0])
        return Stretch(rows, abs(reached - first), str(reached))
    is_end = last >= newest + 1 if up else last <= 0
    looked_at = max(0, abs(last - first) - 1)
    # The last number is none of those that were looked at.
    return Stretch(rows, looked_at, None if is_end else str(last - 1 if up else last + 1))


def _by_index(
    db: "Transaction", listing: Listing, at: int | None, *, back: bool, limit: int
) -> Stretch:  # fmt: skip
    """Failed or stale rows, in the order of the pool: of several experiments the lists of each,
    merged."""
    name = _STATEMENTS[listing.state is State.STALE, back]
    found = list[tuple[int, str | None]]()
    for id_ in listing.experiment_ids:
        which = {"experiment_id": id_, "limit": limit, "after": at or 0,
                 "before": _LAST if at is None else at}  # fmt: skip
        found += [(row[0], row[1] if len(row) > 1 else None) for row in db.execute(name, which)]
    found.sort(key=lambda one: one[0], reverse=back)
    page = found[:limit]
    rows = [(str(id_), id_) for id_, reason in page if listing.reason in (None, reason)]
    return Stretch(rows, len(page), str(page[-1][0]) if len(page) == limit else None)


_STATEMENTS = {
    (False, False): "failed_after",
    (False, True): "failed_before",
    (True, False): "stale_page",
    (True, True): "stale_before",
}


def _running(
    db: "Transaction", listing: Listing, at: int | None, *, back: bool, limit: int
) -> Stretch:  # fmt: skip
    which = {"experiment_ids": listed(listing.experiment_ids), "limit": _MOST_IN_FLIGHT}
    ids = [int(id_) for (id_,) in db.execute("running_rows", which)]
    after = [id_ for id_ in ids if at is None or (id_ < at if back else id_ > at)]
    after += _at_providers(db, listing, at, back=back, limit=limit + 1)
    after.sort(reverse=back)
    page = after[:limit]
    end = str(page[-1]) if len(page) < len(after) else None
    return Stretch([(str(id_), id_) for id_ in page], len(page), end)


def _at_providers(
    db: "Transaction", listing: Listing, at: int | None, *, back: bool, limit: int
) -> list[int]:  # fmt: skip
    """The next rows of each batch, of which one may have very many."""
    which = {"experiment_ids": listed(listing.experiment_ids)}
    holders = db.execute("holders_of_batches", which).fetchall()
    place = {"before": 2**62 if at is None else at} if back else {"after": at or 0}
    query = "page_of_batch_before" if back else "page_of_batch"
    pages = [db.execute(query, {"worker_id": id_, "limit": limit, **place}) for (id_,) in holders]
    return [int(item_id) for page in pages for (item_id,) in page]


class _Place(NamedTuple):
    """Of a pending row: which of its experiment's three lists it is in, its priority or the time
    from which on it is tried, and its number."""

    experiment_id: int
    kind: str
    rank: int
    item_id: int

    def __str__(self) -> str:
        return f"{self.kind}.{self.experiment_id}.{self.rank}.{self.item_id}"

    @classmethod
    def of(cls, text: str) -> "_Place":
        kind, *numbers = text.split(".")
        if kind not in _KINDS or len(numbers) != 3:
            raise _no_place(text)
        experiment_id, rank, item_id = map(_number, numbers)
        return cls(experiment_id, kind, rank, item_id)


_Fetch = Callable[["Transaction", int, "_Place | None", bool, int], list["_Place"]]


def _pending(
    db: "Transaction", listing: Listing, place: str | None, *, back: bool, limit: int
) -> Stretch:  # fmt: skip
    """One list after another: of each experiment first what is tried again, then what a worker died
    at, then what was never tried."""
    at = None if place is None else _Place.of(place)
    lists = [(id_, kind) for id_ in listing.experiment_ids for kind in _KINDS]
    if back:
        lists.reverse()
    if at is not None:
        if at[:2] not in lists:
            raise _no_place(str(place))
        lists = lists[lists.index(at[:2]) :]
    found = list[_Place]()
    for id_, kind in lists:
        fetch, from_ = _KINDS[kind], at if at and at[:2] == (id_, kind) else None
        found += fetch(db, id_, from_, back, limit - len(found))
        if len(found) >= limit:
            break
    rows = [(str(one), one.item_id) for one in found]
    return Stretch(rows, len(rows), rows[-1][0] if len(rows) >= limit else None)


def _waiting(
    db: "Transaction", id_: int, at: _Place | None, back: bool, limit: int
) -> list[_Place]:  # fmt: skip
    end = _LAST if back else -1
    which = {
        "experiment_id": id_, "limit": limit, "at": at.rank if at else end,
        "after": at.item_id if at else 0, "before": at.item_id if at else _LAST,
    }  # fmt: skip
    found = db.execute("waiting_before" if back else "waiting_after", which)
    return [_Place(id_, "waiting", due, item_id) for due, item_id in found]


def _crashed(
    db: "Transaction", id_: int, at: _Place | None, back: bool, limit: int
) -> list[_Place]:  # fmt: skip
    which = {"experiment_id": id_, "limit": _MOST_IN_FLIGHT}
    ids = [item_id for (item_id,) in db.execute("crashed_rows", which)]
    if at:
        ids = [one for one in ids if (one < at.item_id if back else one > at.item_id)]
    return [_Place(id_, "crashed", 0, one) for one in (ids[::-1] if back else ids)[:limit]]


def _fresh(
    db: "Transaction", id_: int, at: _Place | None, back: bool, limit: int
) -> list[_Place]:  # fmt: skip
    found = list[_Place]()
    priority = at.rank if at else _next_priority(db, id_, -_LAST if back else _LAST, back)
    while priority is not None and len(found) < limit:
        here = at.item_id if at and at.rank == priority else None
        which = {
            "experiment_id": id_, "priority": priority, "limit": limit - len(found),
            "after": here or 0, "before": _LAST if here is None else here,
        }  # fmt: skip
        rows = db.execute("fresh_before" if back else "fresh_after", which)
        found += [_Place(id_, "fresh", priority, item_id) for (item_id,) in rows]
        priority = _next_priority(db, id_, priority, back)
    return found


def _next_priority(db: "Transaction", id_: int, priority: int, back: bool) -> int | None:
    name = "next_higher_priority" if back else "next_lower_priority"
    row = db.execute(name, {"experiment_id": id_, "priority": priority}).fetchone()
    return None if row is None else int(row[0])


_KINDS: dict[str, _Fetch] = {"waiting": _waiting, "crashed": _crashed, "fresh": _fresh}


def _number(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 18):
        raise _no_place(text)
    return int(text)


def _no_place(text: str) -> UsageError:
    return UsageError(f"{text[:60]!r} is no place in this list of rows.")
