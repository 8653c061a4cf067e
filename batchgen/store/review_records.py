"""What people said of answers: what is written of it, and what is read."""

from enum import StrEnum

from msgspec import UNSET, Struct, UnsetType


class Verdict(StrEnum):
    """What a reviewer decides."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"


class ReviewChange(Struct, frozen=True):
    """What is said of an answer; what is not given stays as it was, and None takes it away.
    `edited` is JSON on one line, in place of the parsed value."""

    verdict: Verdict | UnsetType | None = UNSET
    note: str | UnsetType | None = UNSET
    edited: str | UnsetType | None = UNSET


class Review(Struct, frozen=True):
    """What was said of an item's result `result_seq`. It counts while `is_current`: the item is
    done, and still has that result. `edited` is JSON text."""

    item_id: int
    result_seq: int
    verdict: str | None
    note: str | None
    edited: str | None
    reviewed_at: int
    is_current: bool = True


class ReviewedItem(Review, frozen=True):
    """The same with what the item is called: its own id, its experiment, and of a chain the
    step."""

    custom_id: str | None = None
    sample: int | None = None
    experiment: str = ""
    step: str | None = None


class ReviewCounts(Struct, frozen=True):
    """Items by what was said of them. `undecided` have a note or an edit and no verdict; of the
    first four only those are counted whose review is of the result that they have; `earlier` are
    the others. Where it `is_part` there are further reviews that were not looked at."""

    accepted: int = 0
    rejected: int = 0
    undecided: int = 0
    edited: int = 0
    earlier: int = 0
    is_part: bool = False

    @property
    def decided(self) -> int:
        return self.accepted + self.rejected


class ReviewFilter(Struct, frozen=True):
    """Which reviews a page has: those with this `verdict` (None: whatever it is), and only those
    that are `current` (False: only of earlier answers; None: both)."""

    verdict: Verdict | None = None
    current: bool | None = None
