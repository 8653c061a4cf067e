"""Whose fault it is that nobody has been answered: pure rules, without a server or a database."""

from collections.abc import Sequence
from itertools import count

import pytest

from batchgen.store.trial import (
    MOST_CALLS,
    MOST_FIRST_CALLS,
    Seen,
    SuspectRow,
    left_to_themselves,
    may_be_too_long,
    room,
    room_after_refusals,
    row,
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


NOTHING = Seen()
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
    why = withdrawn(suspects(*found), Seen(in_flight), nobody_left=nobody_left)
    assert (why and why.items) == condemned


@pytest.mark.parametrize(
    ("share", "enough"), [(0.01, 2), (0.09, 4), (0.3, 8), (0.5, 14), (0.9, 20)]
)
def test_where_many_are_refused_for_themselves_it_takes_more(share: float, enough: int) -> None:
    found = [FORBIDDEN] * 5 + [FORBIDDEN_PROBE] * enough
    seen = Seen(0, 1000, int(1000 * share))
    assert withdrawn(suspects(*found[:-1]), seen) is None
    assert withdrawn(suspects(*found), seen) is not None


def room_beside(found: list[tuple[str, int]], seen: Seen = NOTHING, **more: int) -> int:
    """Of fifty calls, at the moment when the newest was refused, or so many ms later."""
    refused = suspects(*found)
    now = max(one.ended_at for one in refused) + more.pop("after_ms", 0)
    return room_after_refusals(row(refused, seen), 50, seen, now, **more)


def test_once_many_were_refused_only_what_tells_more_goes_out() -> None:
    assert room_beside([FORBIDDEN] * 4) == 50
    assert room_beside([FORBIDDEN] * 5) == 2
    assert room_beside([FORBIDDEN] * 5, probes_in_flight=1) == 1
    assert room_beside([FORBIDDEN] * 5 + [FORBIDDEN_PROBE] * 2) == 0


def test_without_words_that_say_why_it_takes_a_row() -> None:
    assert room_beside([FRONT] * 9) == 50
    assert room_beside([FRONT] * 10) == 4
    assert room_beside([FRONT] * 50, Seen(50)) == 50  # these may all be answered
    assert room_beside([FRONT] * 51, Seen(50)) == 4
    assert room_beside([FRONT] * 51, Seen(50), probes_in_flight=3) == 1
    assert room_beside([FRONT] * 51 + [PROBE] * 4, Seen(0)) == 0


def test_where_many_were_refused_so_before_a_row_is_longer() -> None:
    half_before = {"calls": 1000, "refused": 530}
    assert room_beside([FRONT] * 60, Seen(30, **half_before)) == 50
    assert room_beside([FRONT] * 70, Seen(30, **half_before)) == 4


def test_probes_that_are_under_way_for_far_longer_than_a_refusal_takes_let_the_others_go() -> None:
    row_ = [FRONT] * 20
    assert room_beside(row_, Seen(4), probes_in_flight=4, after_ms=1000) == 0
    assert room_beside(row_, Seen(4), probes_in_flight=4, after_ms=1100) == 50
    assert room_beside(row_, Seen(0), probes_in_flight=0, after_ms=1100) == 4


@pytest.mark.parametrize(
    ("found", "in_flight", "nobody_left", "condemned"),
    [
        ([FRONT] * 10 + [PROBE] * 4, 0, False, 14),
        ([FRONT] * 10 + [PROBE] * 3, 0, False, None),
        ([FRONT] * 14, 0, False, None),  # there may be a block of bad ones
        ([FRONT] * 10 + [PROBE] * 4, 2, False, None),
        ([FRONT] * 40, 0, True, None),
    ],
)
def test_a_row_without_words_and_probes_tell_that_all_are_refused(
    found: list[tuple[str, int]], in_flight: int, nobody_left: bool, condemned: int | None
) -> None:
    why = withdrawn(suspects(*found), Seen(in_flight), nobody_left=nobody_left)
    assert (why and why.items) == condemned


@pytest.mark.parametrize(
    ("refused", "answered", "may_be"),
    [
        (range(900, 1000), range(100, 900), True),  # the end of a pool sorted by length
        ([910, 920, 930, 890], range(100, 900), True),
        ([15] * 20, [14] * 100, False),  # "item 999", "item 1000"
        ([500] * 20, range(100, 900), False),
        ([950] * 20, [*[300] * 200, 2000], True),  # one of its own length
        ([950] * 20, [], False),
    ],
)
def test_what_is_longer_than_what_was_answered_may_be_too_long(
    refused: Sequence[int], answered: Sequence[int], may_be: bool
) -> None:
    assert may_be_too_long(list(refused), list(answered)) == may_be


def test_when_nobody_asks_any_more_few_that_were_refused_after_answers_failed_by_themselves() -> (
    None
):
    few = [one._replace(halt="why") for one in suspects(*[FRONT] * 9, FORBIDDEN)]
    assert [one.alike for one in left_to_themselves(few)] == ["400 request"] * 9
    assert left_to_themselves(suspects(*[FRONT] * 9)) == []  # on trial
    assert left_to_themselves([one._replace(halt="why") for one in suspects(*[FRONT] * 10)]) == []


def test_all_calls_of_a_trial_together_are_few() -> None:
    assert room(0, 0, calls=4) == 4
    assert room(0, 3, calls=4) == 1
    assert room(1, 0, calls=1000) == 4
    assert room(MOST_FIRST_CALLS, 0, calls=1000) == MOST_CALLS - MOST_FIRST_CALLS
    assert room(MOST_CALLS, 0, calls=1000) == 0
    assert room(3, 13, calls=1000) == 0
    assert room(3, 0, calls=0) == 0  # another worker asks on
