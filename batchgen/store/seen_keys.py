"""The keys of the newest items in memory: most items of a pool are met once, and to know that
there is no other takes no table."""

from array import array
from collections.abc import Iterable


class SeenKeys:
    """Keys, 60 bytes of memory each. As long as none is met again it `is_enough`; of one that may
    have been it is not sure, as it has half of each. Then it is given up, and the store looks them
    up in a table."""

    def __init__(self, *, is_enough: bool = True) -> None:
        self._halves: set[int] = set()
        self.is_enough = is_enough

    def add(self, keys: Iterable[bytes]) -> None:
        self._halves.update(_halves(keys))

    def may_have(self, keys: Iterable[bytes]) -> bool:
        """Whether any of these was seen; False is sure."""
        return bool(self._halves) and not self._halves.isdisjoint(_halves(keys))

    def give_up(self) -> None:
        self._halves, self.is_enough = set(), False

    def begin_anew(self) -> None:
        self._halves, self.is_enough = set(), True


def _halves(keys: Iterable[bytes]) -> "array[int]":
    """Of each seven bytes, as a number of eight takes half as much again."""
    return array("Q", b"".join([key[:7] + b"\0" for key in keys]))
