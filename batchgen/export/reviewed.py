"""Results with what people said of them. Only an export that asks for it, by --reviewed or by one
of these names in --where, has edits in it; and then each stands where the parsed value stood."""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from json import loads
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict, replace

from batchgen.store import ResultRow, Verdict
from batchgen.text.json_text import dump_json

if TYPE_CHECKING:
    from batchgen.store import ChainRow, ReadStore, Review

EDITED = "edited"
"""What a line says, or a column, where an edit stands in it."""


class Reviewed(StrEnum):
    """Which rows an export has, by what was said of them."""

    ACCEPTED = "accepted"
    NOT_REJECTED = "not-rejected"

    def takes(self, verdict: str | None) -> bool:
        if self is Reviewed.ACCEPTED:
            return verdict == Verdict.ACCEPTED
        return verdict != Verdict.REJECTED


class ReviewedRow(ResultRow, frozen=True, kw_only=True):
    """A result with the `review` that is of it. Where that has an edit, `parsed` is the edit or,
    where the answer is the parsed value, `response`; and `unedited` is what stood there."""

    review: "Review"
    unedited: str | None = None


async def with_reviews(store: "ReadStore", rows: Sequence[ResultRow]) -> list[ResultRow]:
    """The rows, with the reviews of those that have one of just this result."""
    found = await store.reviews.of_items([row.id for row in rows])
    return [reviewed(row, found.get(row.id)) for row in rows] if found else list(rows)


async def chains_with_reviews(store: "ReadStore", rows: "Sequence[ChainRow]") -> "list[ChainRow]":
    """The same of rows of chains."""
    results = [row.result for row in rows if row.result is not None]
    found = {row.id: row for row in await with_reviews(store, results)}
    return [replace(row, result=found.get(row.id)) for row in rows]


def reviewed(row: ResultRow, review: "Review | None") -> ResultRow:
    """The same of one row, and the review of its item."""
    if review is None or review.result_seq != row.result_seq:
        return row
    given = asdict(row)
    if review.edited is None:
        return ReviewedRow(**given, review=review)
    place = "response" if row.parsed is None else "parsed"
    unedited = given[place]
    given[place] = review.edited
    return ReviewedRow(**given, review=review, unedited=unedited)


def review_of(row: ResultRow) -> "Review | None":
    return row.review if isinstance(row, ReviewedRow) else None


def verdict_of(row: ResultRow) -> str | None:
    return row.review.verdict if isinstance(row, ReviewedRow) else None


def is_edited(row: ResultRow) -> bool:
    return isinstance(row, ReviewedRow) and row.unedited is not None


def as_stored(row: ResultRow) -> ResultRow:
    """Without an edit."""
    if not isinstance(row, ReviewedRow) or row.unedited is None:
        return row
    if row.parsed is None:
        return replace(row, response=row.unedited, unedited=None)
    return replace(row, parsed=row.unedited, unedited=None)


def answer_of(row: ResultRow) -> str | None:
    """The answer as a text, with the edit in it. None: the answer is not the parsed value, so
    nobody knows how the edit would stand in it."""
    text: str = loads(row.response)
    if not isinstance(row, ReviewedRow) or row.unedited is None or row.parsed is None:
        return text
    stood, stands = loads(row.unedited), loads(row.parsed)
    if text == stood:
        return stands if isinstance(stands, str) else None
    return dump_json(stands) if _is_json_of(stood, text) else None


def _is_json_of(value: Any, text: str) -> bool:
    try:
        return bool(loads(text) == value)
    except ValueError:
        return False


def _edit_of(row: ResultRow) -> Any:
    review = review_of(row)
    return None if review is None or review.edited is None else loads(review.edited)


def _note_of(row: ResultRow) -> str | None:
    review = review_of(row)
    return None if review is None else review.note


REVIEW_VALUES: Mapping[str, Callable[[ResultRow], Any]] = {
    "review": verdict_of, "note": _note_of, EDITED: _edit_of,
}  # fmt: skip
REVIEW_NAMES = tuple(REVIEW_VALUES)
"""What a condition may name besides what a line has."""
