"""What is known in memory of the keys that are stored: most items of a pool are met once, and to
know that there is no other takes no table."""

from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmap import mmap

_FILTER_BYTES = 1 << 23  # a bit for each 26 bits of a key: of ten million, 14 % look like others
MOST_IN_SET = 150_000  # a set of a few more takes twice the room


class SeenKeys:
    """The keys of the newest items, which the store has not sorted in, and in a few bits all keys
    once it `has_all`.

    Of the newest ones it has half of each, so that `may_have` is as good as sure. As long as none
    of them is met again that `is_enough`; then they are given up, and the store looks them up in a
    table. `added` are all that it was given. While the newest `are_all`, nothing else is stored.
    """

    def __init__(self, *, is_enough: bool = True, are_all: bool = False) -> None:
        self._newest: set[int] = set()
        self._sorted: list[array[int]] = []  # eight bytes a key, where a set takes 60
        self._filter: mmap | None = None
        self.is_enough = is_enough
        self.are_all = are_all
        self.has_all = False
        self.added = 0

    def add(self, keys: Sequence[bytes]) -> None:
        """Keys of new items."""
        self.added += len(keys)
        if self.has_all:
            self.add_stored(keys)
        if self.is_enough:
            self._newest.update(_halves(keys))
            if self.has_all and len(self._newest) >= MOST_IN_SET:
                self._sorted.append(array("Q", sorted(self._newest)))
                self._newest = set()

    def add_stored(self, keys: Sequence[bytes]) -> None:
        """Keys that have been sorted in."""
        bits = self._filter = self._filter or _empty_filter()
        for number in _ends(keys):
            bits[number >> 9] |= 1 << (number & 7)

    def likely(self, keys: Sequence[bytes]) -> list[bytes]:
        """Those of the keys that may be known; that others are not is sure."""
        bits = self._filter
        if bits is None or not self.has_all:
            return list(keys)
        numbered = zip(keys, _ends(keys), strict=True)
        return [key for key, number in numbered if bits[number >> 9] >> (number & 7) & 1]

    def may_have(self, keys: Sequence[bytes]) -> bool:
        """Whether any of these is one of the newest; False is sure."""
        if not self._newest and not self._sorted:
            return False
        halves = _halves(keys)
        if not self._newest.isdisjoint(halves):
            return True
        return any(_has_any(run, halves) for run in self._sorted)

    def give_up(self) -> None:
        self._forget_newest()
        self.is_enough = False

    def begin_anew(self) -> None:
        """When the store has sorted in all that there are."""
        self._forget_newest()
        self.is_enough, self.are_all = True, False

    def _forget_newest(self) -> None:
        self._newest, self._sorted = set(), []


def _empty_filter() -> "mmap":
    """Zeros; they take room page by page where something is written."""
    from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap  # here: few commands have use for it

    return mmap(-1, _FILTER_BYTES, flags=MAP_PRIVATE | MAP_ANONYMOUS)


def _halves(keys: Iterable[bytes]) -> "array[int]":
    """Of each seven bytes, as a number of eight takes half as much again."""
    return array("Q", b"".join([key[:7] + b"\0" for key in keys]))


def _ends(keys: Iterable[bytes]) -> "array[int]":
    return array("I", b"".join([key[-4:] for key in keys]))


def _has_any(run: "array[int]", halves: "array[int]") -> bool:
    from bisect import bisect_left  # here: few commands have use for it

    n = len(run)
    for half in halves:
        place = bisect_left(run, half)
        if place < n and run[place] == half:
            return True
    return False
