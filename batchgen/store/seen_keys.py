"""What is known in memory of the keys that are stored: most items of a pool are met once, and to
know that there is no other takes no table.

Numbers are made of keys by the thousand, a column of bytes at a time: a loop over the keys takes
ten times as long, and meanwhile no other thread works.
"""

import sys
from array import array
from collections.abc import Sequence
from itertools import compress
from operator import and_
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmap import mmap

_KEY_BYTES = 16
_FILTER_BYTES = 1 << 23  # a bit for each 26 bits of a key: of ten million, 14 % look like others
MOST_IN_SET = 150_000  # a set of a few more takes twice the room
_HIGHEST = 7 if sys.byteorder == "little" else 0  # of a number of eight bytes
_BIT_OF = bytes(1 << (byte & 7) for byte in range(256))
_SEVEN_BITS = bytes(byte & 127 for byte in range(256))


class SeenKeys:
    """The keys of the newest items, which the store has not sorted in, and in a few bits all keys
    once it `has_all`, as it has from the start where nothing is stored.

    Of the newest ones it has half of each, so that `may_have` is as good as sure. As long as none
    of them is met again that `is_enough`; then they are given up, and the store looks them up in a
    table. `added` are all that it was given. While the newest `are_all`, nothing else is stored.
    """

    def __init__(self, *, is_enough: bool = True, are_all: bool = False) -> None:
        self._newest: set[float] = set()
        self._sorted: list[array[float]] = []  # eight bytes a key, where a set takes 60
        self._filter: mmap | None = None
        self.is_enough = is_enough
        self.are_all = are_all
        self.has_all = are_all
        self.added = 0

    def add(self, keys: Sequence[bytes]) -> None:
        """Keys of new items."""
        self.added += len(keys)
        if self.has_all:
            self.add_stored(keys)
        if self.is_enough:
            self._newest.update(_halves(keys))
            if self.has_all and len(self._newest) >= MOST_IN_SET:
                self._sorted.append(array("d", sorted(self._newest)))
                self._newest = set()

    def add_stored(self, keys: Sequence[bytes]) -> None:
        """Keys that have been sorted in."""
        bits = self._filter = self._filter or _empty_filter()
        for place, bit in zip(*_places(keys), strict=True):
            bits[place] |= bit

    def likely(self, keys: Sequence[bytes]) -> list[bytes]:
        """Those of the keys that may be known; that others are not is sure."""
        if not self.has_all:
            return list(keys)
        if self._filter is None:
            return []
        places, bits = _places(keys)
        return [*compress(keys, map(and_, map(self._filter.__getitem__, places), bits))]

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


def _halves(keys: Sequence[bytes]) -> "array[float]":
    """Of each seven bytes, as a number between 2^-15 and 2: these are sorted in half the time that
    whole numbers of this size take."""
    columns = bytearray(b"".join(keys))
    columns[_HIGHEST::_KEY_BYTES] = b"\x3f" * len(keys)
    return array("d", columns)[:: _KEY_BYTES // 8]


def _places(keys: Sequence[bytes]) -> tuple["array[int]", bytearray]:
    """Where each key has its bit in the filter: in which byte, and which one of that."""
    columns = bytearray(b"".join(keys))
    bits = columns[11::_KEY_BYTES].translate(_BIT_OF)
    columns[14::_KEY_BYTES] = columns[14::_KEY_BYTES].translate(_SEVEN_BITS)
    columns[15::_KEY_BYTES] = bytes(len(keys))
    places = array("I", columns)[3 :: _KEY_BYTES // 4]
    if sys.byteorder == "big":
        places.byteswap()
    return places, bits


def _has_any(run: "array[float]", halves: "array[float]") -> bool:
    from bisect import bisect_left  # here: few commands have use for it

    n = len(run)
    for half in halves:
        place = bisect_left(run, half)
        if place < n and run[place] == half:
            return True
    return False
