"""What a pass over a pool keeps in memory, of pools of any size: a few bytes for each item."""

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

_PAGE = 1 << 12
_IN_A_BYTE = 255


class MetItems:
    """How many copies of each item the pass has met: a byte for each, and for those of which there
    are hundreds a number besides."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._many: dict[int, int] = {}

    def count(self, item_ids: Iterable[int]) -> dict[int, int]:
        """Of those that were met."""
        ids = [*item_ids]
        if not self._pages or not ids or self._is_series_unmet(ids):
            return {}
        counts = {}
        for id_ in ids:
            page = self._pages.get(id_ // _PAGE)
            if page is not None and (n := page[id_ % _PAGE]):
                counts[id_] = n if n < _IN_A_BYTE else self._many[id_]
        return counts

    def note(self, copies: Mapping[int, int]) -> None:
        """So many of each by now."""
        if copies and (series := _series_of(copies)) and max(copies.values()) == 1:
            for number, begin, end in _parts(series):
                on_page = self._pages.setdefault(number, bytearray(_PAGE))
                on_page[begin:end] = b"\1" * (end - begin)
            return
        for id_, n in copies.items():
            page = self._pages.get(id_ // _PAGE)
            if page is None:
                page = self._pages[id_ // _PAGE] = bytearray(_PAGE)
            page[id_ % _PAGE] = min(n, _IN_A_BYTE)
            if n >= _IN_A_BYTE:
                self._many[id_] = n

    def _is_series_unmet(self, ids: Sequence[int]) -> bool:
        """As of most pools that are known; False: it may be."""
        series = _series_of(ids)
        return bool(series) and all(
            page.count(0, begin, end) == end - begin
            for number, begin, end in _parts(series)
            if (page := self._pages.get(number)) is not None
        )


def _series_of(ids: Collection[int]) -> range:
    """The numbers in their order, if there is no gap between them; else none. None of them is there
    twice."""
    first, last = min(ids), max(ids)
    return range(first, last + 1) if last - first + 1 == len(ids) else range(0)


def _parts(series: range) -> Iterator[tuple[int, int, int]]:
    """Of each page that has some of them: its number, where they begin on it, and end."""
    for number in range(series[0] // _PAGE, series[-1] // _PAGE + 1):
        begin, end = series[0] - number * _PAGE, series[-1] + 1 - number * _PAGE
        yield number, max(0, begin), min(_PAGE, end)


class NewKeys:
    """Keys of rows that would be new, numbered from `first` on: of each eight bytes, and where it
    stands by these (a table of places + 1, of which a third at least is free)."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._keys = array("Q")
        self._places = array("I", bytes(4 << 12))

    def find(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """Those of the keys that are here, with their numbers."""
        if not self._keys:
            return {}
        found = {}
        for key, number in zip(keys, _numbers(keys), strict=True):
            place = self._places[self._slot(number)]
            if place:
                found[key] = self._first + place - 1
        return found

    def add(self, keys: Sequence[bytes]) -> None:
        """None of them is here yet; in the order of their numbers."""
        place = len(self._keys)
        self._keys += _numbers(keys)
        if len(self._keys) * 3 > len(self._places) * 2:
            self._places = array("I", bytes(4 << (len(self._keys) * 3).bit_length()))
            place = 0
        for number in self._keys[place:]:
            place += 1
            self._places[self._slot(number)] = place

    def _slot(self, number: int) -> int:
        """Where it stands, or may."""
        last = len(self._places) - 1  # a power of two
        slot = number & last
        while (place := self._places[slot]) and self._keys[place - 1] != number:
            slot = (slot + 1) & last
        return slot


def _numbers(keys: Iterable[bytes]) -> "array[int]":
    return array("Q", b"".join([key[:8] for key in keys]))
