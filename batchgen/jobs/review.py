"""What people say of answers: said of one item, and listed."""

import json
from collections.abc import Sequence
from math import sqrt
from typing import Any

from msgspec import Struct

from batchgen.clock import timestamp
from batchgen.errors import UsageError
from batchgen.jobs.lookup import chosen_experiments, rows_called
from batchgen.store import (
    ReadStore,
    Review,
    ReviewChange,
    ReviewCounts,
    ReviewedItem,
    ReviewFilter,
    Store,
    Verdict,
)
from batchgen.text.json_text import dump_json, storable, strict_decoder

STATES = (Verdict.ACCEPTED.value, Verdict.REJECTED.value, "earlier")
"""How reviews stand: with a verdict that counts, or of an answer that is the item's no more."""
_PAGE = 500
_LISTED = 10
_QUANTILE = 1.959963984540054  # of the normal distribution: 95 % lie within so many deviations


class Said(Struct, frozen=True):
    """What is said of an item; `review` None: nothing. `id` is the user's or, without one, the
    item's `number`."""

    id: str | int
    number: int
    sample: int | None
    experiment: str
    review: Review | None

    def to_json(self) -> dict[str, Any]:
        sample = {} if self.sample is None else {"sample": self.sample}
        return {
            "id": self.id, "number": self.number, **sample, "experiment": self.experiment,
            **_said_json(self.review),
        }  # fmt: skip


class ReviewList(Struct, frozen=True):
    """The reviews of an experiment, or of a step of it, in the order of the pool; `left_out` says
    that there are more of them."""

    experiment: str
    counts: ReviewCounts
    reviews: tuple[ReviewedItem, ...]
    left_out: bool = False

    def to_json(self) -> dict[str, Any]:
        names = (
            "accepted",
            "rejected",
            "undecided",
            "edited",
            "earlier",
        )  # all reviews are counted
        counts = {name: getattr(self.counts, name) for name in names}
        reviews = [
            {
                "id": one.custom_id or one.item_id, "number": one.item_id,
                **({} if one.sample is None else {"sample": one.sample}),
                **({} if one.step is None else {"step": one.step}), **_said_json(one),
            }
            for one in self.reviews
        ]  # fmt: skip
        return {"experiment": self.experiment, **counts, "reviews": reviews}


class Share(Struct, frozen=True):
    """`part` of `whole` rows, and between which shares of all rows the true one lies: by Wilson's
    score interval, which holds in 95 of 100 samples drawn at random, and stays within 0 and 1
    however few there are."""

    part: int
    whole: int

    @property
    def bounds(self) -> tuple[float, float]:
        n, z2 = self.whole, _QUANTILE**2
        if n == 0:
            return 0.0, 1.0
        share = self.part / n
        middle = (share + z2 / (2 * n)) / (1 + z2 / n)
        half = _QUANTILE * sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
        low = 0.0 if self.part == 0 else middle - half
        return low, 1.0 if self.part == n else middle + half


async def say_of(
    store: Store, given: str, experiment: str | None, step: str | None, change: ReviewChange
) -> Said:
    """Say this of the answer that the item has now. Raises UsageError for an item that is not
    there, or of which there are several, and where `Reviews.put` does."""
    said = await said_of(store, given, experiment, step)
    item = await store.item(said.number)
    seq = (item and item.result_seq) or 0  # 0: `put` says that there is none
    return _with(said, await store.reviews.put(said.number, seq, change))


async def take_back(
    store: Store, given: str, experiment: str | None, step: str | None
) -> Said:  # fmt: skip
    """Take back the last that was said of the item. Raises UsageError as `say_of`, and where
    nothing was said."""
    said = await said_of(store, given, experiment, step)
    seq = said.review.result_seq if said.review else 0
    return _with(said, await store.reviews.undo(said.number, seq))


async def said_of(
    store: ReadStore, given: str, experiment: str | None, step: str | None
) -> Said:  # fmt: skip
    """What is said of the item now. Raises UsageError as `say_of`."""
    number = await _only_row(store, given, experiment, step)
    item = await store.item(number)
    if item is None:
        raise UsageError(f"item {number} is not there (any more).")
    found = await store.reviews.of_items([number])
    id_ = item.custom_id or number
    return Said(id_, number, item.sample, item.experiment, found.get(number))


async def list_reviews(
    store: ReadStore, name: str, step: str | None = None, which: ReviewFilter | None = None,
    limit: int | None = None,
) -> ReviewList:  # fmt: skip
    """All that was said of the items of an experiment, or of the rows of one `step`; `limit`
    reviews at most."""
    ids = [one.id for one in await chosen_experiments(store, name, step)]
    counts, found, after = await store.reviews.counts(ids), list[ReviewedItem](), 0
    most = None if limit is None else limit + 1
    while most is None or len(found) < most:
        wanted = _PAGE if most is None else min(_PAGE, most - len(found))
        page = await store.reviews.page(ids, which or ReviewFilter(), after, wanted)
        if not page:
            break
        found += page
        after = page[-1].item_id
    whole = f"{name}/{step}" if step is not None else name
    shown = found if limit is None else found[:limit]
    return ReviewList(whole, counts, tuple(shown), len(shown) < len(found))


def filter_of(state: str | None) -> ReviewFilter:
    """By one of `STATES`; None: all."""
    if state is None:
        return ReviewFilter()
    if state == STATES[-1]:
        return ReviewFilter(current=False)
    return ReviewFilter(Verdict(state), current=True)


def edit_json(text: str) -> str:
    """A value that a user gives as JSON, on one line. Raises UsageError for what is none."""
    try:
        return dump_json(strict_decoder.decode(storable(text)))
    except RecursionError:
        raise UsageError("edit: is nested too deep.") from None
    except ValueError as exc:
        raise UsageError(f'edit: is not JSON ({exc}); a text stands in quotes: "like this".') from (
            None
        )  # fmt: skip


async def _only_row(
    store: ReadStore, given: str, experiment: str | None, step: str | None
) -> int:  # fmt: skip
    numbers = await rows_called(store, given, experiment, step)
    if len(numbers) > 1:
        raise UsageError(
            f"{len(numbers)} rows are called {given!r}: give the number of one of them, which are "
            f"{_listed(numbers)}."
        )
    return numbers[0]


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(f"#{number}" for number in numbers[:_LISTED])
    return f"{shown} and so on" if len(numbers) > _LISTED else shown


def _with(said: Said, review: Review | None) -> Said:
    return Said(said.id, said.number, said.sample, said.experiment, review)


def _said_json(review: Review | None) -> dict[str, Any]:
    """A verdict, a note and an edit that are not there are null; `current`: it counts."""
    if review is None:
        return {"verdict": None, "note": None, "edited": None}
    edited = {} if review.edited is None else {"edited": json.loads(review.edited)}
    return {
        "verdict": review.verdict, "note": review.note, "edited": None, **edited,
        "reviewed_at": timestamp(review.reviewed_at), "current": bool(review.is_current),
    }  # fmt: skip
