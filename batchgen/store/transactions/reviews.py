"""What people say of answers: each review is of one result, and of no other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from msgspec import UnsetType
from msgspec.json import decode

from batchgen.clock import now_ms
from batchgen.errors import UsageError
from batchgen.items import State
from batchgen.store.review_records import (
    Review,
    ReviewChange,
    ReviewCounts,
    ReviewedItem,
    ReviewFilter,
)
from batchgen.store.transactions.rows import bounded, dicts_of, listed, row_of, rows_of
from batchgen.text.json_text import dump_json, storable

if TYPE_CHECKING:
    from batchgen.store.database import Database, Reads
    from batchgen.store.transaction import Transaction

ALL = ReviewFilter()


class KnownReviews:
    """The side of `Reviews` that only reads."""

    def __init__(self, database: "Reads") -> None:
        self._db = database

    async def of_items(self, item_ids: Sequence[int]) -> dict[int, Review]:
        """What was said of these items, by their numbers; of most nothing."""
        return await self._db.read(reviews_of, item_ids)

    async def counts(
        self, experiment_ids: Sequence[int], most: int | None = None
    ) -> ReviewCounts:  # fmt: skip
        """Of the reviews in these experiments or steps. It takes time for each review that there
        is, and none for all other items; no more than `most` reviews are looked at."""
        return await self._db.read(count_reviews, experiment_ids, most)

    async def any(self, experiment_ids: Sequence[int]) -> bool:
        """Whether anything was said of any item of theirs."""
        return bool(await self._db.read(review_page, experiment_ids, ALL, 0, 1))

    async def page(
        self, experiment_ids: Sequence[int], which: ReviewFilter = ALL, after: int = 0,
        limit: int = 500,
    ) -> list[ReviewedItem]:  # fmt: skip
        """The next reviews after item `after`, in the order of the pool; an empty page at the
        end."""
        return await self._db.read(review_page, experiment_ids, which, after, limit)

    async def beside(
        self, experiment_id: int, which: ReviewFilter, item_id: int, *, back: bool
    ) -> int | None:
        """The item with such a review that comes after an item in the pool or, `back`, before it;
        None: there is none."""
        return await self._db.read(review_beside, experiment_id, which, item_id, back=back)


class Reviews(KnownReviews):
    """The side of the store that is about reviews: each method is one transaction or snapshot."""

    def __init__(self, database: "Database") -> None:
        super().__init__(database)
        self._db: Database = database

    async def put(self, item_id: int, result_seq: int, change: ReviewChange) -> Review | None:
        """Say this of the result that the reviewer has seen; what is said of it then, None if
        nothing is left. Raises UsageError when the item has another result by now, or none, and for
        an edit that is no text where the answer is one."""
        return await self._db.write(put_review, item_id, result_seq, change, now_ms())

    async def undo(self, item_id: int, result_seq: int) -> Review | None:
        """Take back the last that was said of that result: what was said before it stands again,
        and of that nothing can be taken back but all. What is said then, None if nothing is left.
        Raises UsageError when there was nothing."""
        return await self._db.write(undo_review, item_id, result_seq, now_ms())


class _Standing(NamedTuple):
    """How an item stands, and what was said of it."""

    state: str
    result_seq: int | None
    is_text: bool
    reviewed_seq: int | None
    verdict: str | None
    note: str | None
    edited: str | None
    before: str | None


def put_review(
    db: "Transaction", item_id: int, result_seq: int, change: ReviewChange, now: int
) -> Review | None:
    found = _standing(db, item_id)
    if found.state != State.DONE:
        raise UsageError(f"item {item_id} is {found.state}: it has no answer that can be reviewed.")
    if found.result_seq != result_seq:
        raise UsageError(
            f"item {item_id} has another answer by now than the one that was looked at; nothing "
            "was noted. Look at it again."
        )
    _check_edit(item_id, found, change.edited)
    is_first = found.reviewed_seq != result_seq
    old = _said(None, None, None) if is_first else _said(*found[4:7])
    new = {name: _changed(old[name], getattr(change, name)) for name in old}
    if new == old and not is_first:  # said twice, and taken back once
        return reviews_of(db, [item_id])[item_id]
    return _write(db, item_id, result_seq, new, None if is_first else dump_json(old), now)


def undo_review(db: "Transaction", item_id: int, result_seq: int, now: int) -> Review | None:
    found = _standing(db, item_id)
    if found.reviewed_seq is None:
        raise UsageError(f"item {item_id}: nothing was said of it that could be taken back.")
    if found.reviewed_seq != result_seq:
        raise UsageError(
            f"item {item_id}: what was said of it is of another answer than the one that was "
            "looked at; nothing was taken back. Look at it again."
        )
    old = _said(None, None, None) if found.before is None else decode(found.before)
    return _write(db, item_id, result_seq, old, None, now)


def _standing(db: "Transaction", item_id: int) -> _Standing:
    found = row_of(db, "standing_for_review", _Standing, {"item_id": item_id})
    if found is None:
        raise UsageError(f"item {item_id} is not there (any more).")
    return found


def _check_edit(item_id: int, found: _Standing, edited: str | UnsetType | None) -> None:
    if isinstance(edited, str) and found.is_text and not isinstance(decode(edited), str):
        raise UsageError(
            f"item {item_id}: its answer is a text (parser raw), so what takes its place must be "
            'one: as JSON, "in quotes".'
        )


def _said(verdict: str | None, note: str | None, edited: str | None) -> dict[str, str | None]:
    return {"verdict": verdict, "note": note, "edited": edited}


def _changed(old: str | None, new: str | UnsetType | None) -> str | None:
    """An empty note is none."""
    return old if isinstance(new, UnsetType) else storable(new) if new else None


def _write(
    db: "Transaction", item_id: int, result_seq: int, said: dict[str, str | None],
    before: str | None, now: int,
) -> Review | None:  # fmt: skip
    if not any(said.values()):
        db.execute("delete_review", {"item_id": item_id})
        return None
    row = {"item_id": item_id, "result_seq": result_seq, "before": before, "now": now, **said}
    db.execute("write_review", row)
    return Review(item_id, result_seq, said["verdict"], said["note"], said["edited"], now)


def reviews_of(db: "Transaction", item_ids: Sequence[int]) -> dict[int, Review]:
    found = rows_of(db, "reviews_of_items", Review, {"ids": listed(list(item_ids))})
    return {review.item_id: review for review in found}


def count_reviews(
    db: "Transaction", experiment_ids: Sequence[int], most: int | None = None
) -> ReviewCounts:  # fmt: skip
    which = {"ids": listed(list(experiment_ids)), "most": 2**62 if most is None else most}
    (found,) = dicts_of(db, "count_reviews", which)
    return ReviewCounts(**{**found, "is_part": bool(found["is_part"])})


def review_page(
    db: "Transaction", experiment_ids: Sequence[int], which: ReviewFilter, after: int, limit: int
) -> list[ReviewedItem]:
    parameters = {
        "ids": listed(list(experiment_ids)), "after": after, "limit": limit, **_filter(which),
    }  # fmt: skip
    page, _ = bounded(rows_of(db, "review_page", ReviewedItem, parameters), _chars_of)
    return page


def review_beside(
    db: "Transaction", experiment_id: int, which: ReviewFilter, item_id: int, *, back: bool
) -> int | None:
    if not back:
        found = review_page(db, [experiment_id], which, item_id, 1)
        return found[0].item_id if found else None
    parameters = {"experiment_id": experiment_id, "before": item_id, **_filter(which)}
    row = db.execute("review_before", parameters).fetchone()
    return None if row is None else int(row[0])


def _filter(which: ReviewFilter) -> dict[str, object]:
    verdict = None if which.verdict is None else which.verdict.value
    return {"verdict": verdict, "current": which.current}


def _chars_of(review: ReviewedItem) -> int:
    return len(review.note or "") + len(review.edited or "")
