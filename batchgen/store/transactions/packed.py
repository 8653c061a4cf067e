"""Texts by the thousand as parameters of one statement.

A row to a statement, as `executemany` makes it, takes Python's lock for each: while another thread
works, each waits for its turn. One statement for all of them lets go of it once.
"""

from collections.abc import Iterable

from batchgen.items import NewItem


class PackedItems(list[NewItem]):
    """Items whose texts are packed already: by who reads them, while another thread writes those
    before them."""

    def __init__(self, items: Iterable[NewItem]) -> None:
        super().__init__(items)
        self.texts, self.spans = packed(item.input_json for item in self)


def packed(texts: Iterable[str]) -> tuple[bytes, list[int]]:
    """The bytes of all texts, and a number for each: at which byte it begins, from 1 on, times
    2^32, plus how many it has."""
    pieces = [text.encode() for text in texts]
    spans, begin = [], 1
    for piece in pieces:
        spans.append(begin << 32 | len(piece))
        begin += len(piece)
    return b"".join(pieces), spans
