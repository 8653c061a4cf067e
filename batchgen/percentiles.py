"""Percentiles by nearest rank. Whoever needs several sorts once."""

from collections.abc import Sequence
from math import ceil


def percentile(ordered: Sequence[int], fraction: float) -> int:
    """Of values in rising order, at least one: the lowest that this fraction is not above."""
    return ordered[max(0, ceil(fraction * len(ordered)) - 1)]
