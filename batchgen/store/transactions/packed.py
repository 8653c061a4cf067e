"""Texts by the thousand as parameters of one statement.

A row to a statement, as `executemany` makes it, takes Python's lock for each: while another thread
works, each waits for its turn. One statement for all of them lets go of it once.
"""

from collections.abc import Iterable


def packed(texts: Iterable[str]) -> tuple[bytes, list[int]]:
    """The bytes of all texts, and a number for each: at which byte it begins, from 1 on, times
    2^32, plus how many it has."""
    pieces = [text.encode() for text in texts]
    spans, begin = [], 1
    for piece in pieces:
        spans.append(begin << 32 | len(piece))
        begin += len(piece)
    return b"".join(pieces), spans
