"""Whose fault it is that nobody has been answered: pure rules, without a server or a database."""

from itertools import count

import pytest

from batchgen.store.trial import (
    MOST_CALLS,
    MOST_FIRST_CALLS,
    SuspectRow,
    room,
    room_after_refusals,
    verdict,
    withdrawn,
)
from batchgen.store.values import Condemned


def suspects(*kinds: tuple[str, int]) -> list[SuspectRow]:
    """One each: what it failed with, and whether it was a probe. Probes go out one by one, and
    after all the others."""
    numbers = count(1)
    return [
        SuspectRow(
            number, 1, 1, alike, probe, 1, "rejected", f"said {alike}", None,
            sent_at=1000 * number if probe else 0, ended_at=1000 * number + 10 if probe else 10,
        )
        for number, (alike, probe) in zip(numbers, kinds, strict=False)
    ]  # fmt: skip


FRONT, PROBE = ("400 request", 0), ("400 request", 1)
PLACE, NONSENSE, EMPTY = ("404 place", 0), ("200 nonsense", 0), ("200 empty", 0)


@pytest.mark.parametrize(
    ("found", "nobody_left", "condemned"),
    [
        ([FRONT] * 4 + [PROBE] * 6, False, 10),
        ([FRONT] * 6 + [PROBE] * 4, False, 10),
        ([FRONT] * 5 + [PROBE] * 4, False, None),
        ([FRONT] * 16, False, None),  # the pool may begin with what is bad by itself
        ([FRONT] * 16 + [PROBE] * 3, False, None),
        ([FRONT] * 16 + [PROBE] * 4, False, 20),
        ([FRONT] * 4, False, None),
        ([FRONT] * 6 + [("404 place", 1)] * 4, False, None),
        ([FRONT] * 3, True, 3),
        ([FRONT] * 2, True, None),
        ([FRONT] * 3 + [PLACE], True, None),
        ([FRONT] * 10 + [PLACE], True, 10),
        ([(f"{number} request", 0) for number in range(MOST_CALLS)], False, 1),
        ([PLACE], True, 1),  # there is nothing at that URL
        ([NONSENSE] * 2, True, None),
        ([NONSENSE] * 3, True, 3),
        ([EMPTY] * 3, True, 3),
        ([], True, None),
    ],
)
def test_enough_different_items_that_fail_alike_condemn(
    found: list[tuple[str, int]], nobody_left: bool, condemned: int | None
) -> None:
    why = verdict(suspects(*found), nobody_left=nobody_left)
    assert (why and why.items) == condemned


def test_the_newest_of_the_items_that_failed_alike_says_why() -> None:
    found = suspects(PLACE, *[FRONT] * 6, *[PROBE] * 4)
    assert verdict(found, nobody_left=False) == Condemned(10, "400 request", "said 400 request")


@pytest.mark.parametrize(
    ("found", "condemned"),
    [
        ([FRONT] * 9, None),
        ([EMPTY] * 9, None),
        ([NONSENSE] * 3, 3),
        ([PLACE] * 3, 3),
        ([PLACE], None),
    ],
)
def test_few_that_are_left_of_a_recipe_that_was_answered_before_may_be_bad_by_themselves(
    found: list[tuple[str, int]], condemned: int | None
) -> None:
    why = verdict(suspects(*found), nobody_left=True, answered_before=True)
    assert (why and why.items) == condemned


ACCOUNT, FORBIDDEN = ("402 account", 0), ("403 forbidden", 0)
FORBIDDEN_PROBE = ("403 forbidden", 1)


@pytest.mark.parametrize(
    ("found", "in_flight", "nobody_left", "condemned"),
    [
        ([FORBIDDEN] * 5 + [FORBIDDEN_PROBE] * 2, 0, False, 7),
        ([FORBIDDEN] * 5 + [FORBIDDEN_PROBE] * 2, 1, False, None),  # it may be answered
        ([FORBIDDEN] * 8 + [FORBIDDEN_PROBE] * 2, 1, False, 10),  # it hangs
        ([FORBIDDEN] * 30 + [FORBIDDEN_PROBE], 0, False, None),  # the pool may have a bad block
        ([ACCOUNT] * 2 + [FORBIDDEN] * 2 + [FORBIDDEN_PROBE] * 2, 0, False, None),
        ([FORBIDDEN] * 40, 0, True, None),  # each tenth of the others was refused as well, perhaps
        ([ACCOUNT], 0, True, 1),
        ([ACCOUNT], 0, False, None),
        ([], 0, True, None),
    ],
)
def test_several_that_are_refused_alike_tell_that_a_key_was_withdrawn(
    found: list[tuple[str, int]], in_flight: int, nobody_left: bool, condemned: int | None
) -> None:
    why = withdrawn(suspects(*found), in_flight=in_flight, nobody_left=nobody_left)
    assert (why and why.items) == condemned


@pytest.mark.parametrize(
    ("share", "enough"), [(0.01, 2), (0.09, 4), (0.3, 8), (0.5, 14), (0.9, 20)]
)
def test_where_many_are_refused_for_themselves_it_takes_more(share: float, enough: int) -> None:
    found = [FORBIDDEN] * 5 + [FORBIDDEN_PROBE] * enough
    few = suspects(*found[:-1])
    assert withdrawn(few, in_flight=0, nobody_left=False, share=share) is None
    assert withdrawn(suspects(*found), in_flight=0, nobody_left=False, share=share) is not None


def test_once_many_were_refused_only_what_tells_more_goes_out() -> None:
    assert room_after_refusals(suspects(*[FORBIDDEN] * 4), 50) == 50
    assert room_after_refusals(suspects(*[FORBIDDEN] * 5), 50) == 2
    assert room_after_refusals(suspects(*[FORBIDDEN] * 5), 50, probes_in_flight=1) == 1
    assert room_after_refusals(suspects(*[FORBIDDEN] * 5, *[FORBIDDEN_PROBE] * 2), 50) == 0


def test_all_calls_of_a_trial_together_are_few() -> None:
    assert room(0, 0, calls=4) == 4
    assert room(0, 3, calls=4) == 1
    assert room(1, 0, calls=1000) == 4
    assert room(MOST_FIRST_CALLS, 0, calls=1000) == MOST_CALLS - MOST_FIRST_CALLS
    assert room(MOST_CALLS, 0, calls=1000) == 0
    assert room(3, 13, calls=1000) == 0
    assert room(3, 0, calls=0) == 0  # another worker asks on
