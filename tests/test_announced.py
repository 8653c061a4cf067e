"""What servers say of their limits: how many calls still go out, and when the next."""

import math

import pytest

from batchgen.limits.announced import Announced, ServerRoom
from batchgen.limits.buckets import Limits
from batchgen.llm.responses import announced

NOW = 1_000_000


def heard(requests: Announced | None = None, tokens: Announced | None = None) -> ServerRoom:
    """After the reply to a first call, which was sent at NOW."""
    room = ServerRoom()
    room.hear(requests, tokens, room.sent(), NOW)
    return room


def test_a_server_that_says_nothing_has_room() -> None:
    assert ServerRoom().left(1000, NOW) == math.inf
    assert ServerRoom().next_at(1000, NOW) is None


def test_what_is_left_goes_down_with_each_call_and_fills_up_again() -> None:
    room = heard(Announced(limit=60, remaining=2, reset_s=58))
    assert room.left(1, NOW) == 2
    room.sent()
    room.sent()
    assert (room.left(1, NOW), room.next_at(1, NOW)) == (0, NOW + 1000)
    assert room.left(1, NOW + 1000) == 1
    assert room.next_at(1, NOW + 1000) is None


def test_nobody_waits_longer_than_until_the_limit_resets() -> None:
    room = heard(Announced(limit=10, remaining=0, reset_s=1.5))
    assert (room.left(1, NOW), room.next_at(1, NOW)) == (0, NOW + 1500)
    assert room.left(1, NOW + 1500) == math.inf


def test_each_of_several_workers_takes_its_part() -> None:
    room = heard(Announced(limit=60, remaining=9, reset_s=51))
    room.workers = 3
    assert room.left(1, NOW) == 3
    for _ in range(3):
        room.sent()
    assert (room.left(1, NOW), room.next_at(1, NOW)) == (0, NOW + 3000)


def test_a_server_that_says_no_more_holds_nobody_up() -> None:
    """Such as one that tells of its limits in some replies only."""
    room = heard(Announced(limit=10, remaining=9, reset_s=6))
    for _ in range(100):
        room.sent()
    assert room.next_at(1, NOW + 100) == NOW + 6000
    assert (room.left(1, NOW + 6000), room.next_at(1, NOW + 6000)) == (math.inf, None)


def test_replies_that_come_late_are_no_news() -> None:
    room = ServerRoom()
    first, second = room.sent(), room.sent()
    room.hear(Announced(60, 58, 2), None, second, NOW + 10)
    room.hear(Announced(60, 59, 1), None, first, NOW)
    assert room.left(1, NOW + 10) == 58


def test_tokens_are_enough_for_so_many_calls() -> None:
    room = heard(tokens=Announced(limit=60_000, remaining=2500, reset_s=57.5))
    assert room.left(1000, NOW) == 2.5
    room.sent()
    room.sent()
    assert (room.left(1000, NOW), room.next_at(1000, NOW)) == (0.5, NOW + 500)


def test_a_call_that_is_larger_than_the_limit_goes_out_when_nothing_is_used() -> None:
    room = heard(tokens=Announced(limit=600, remaining=0, reset_s=60))
    assert room.next_at(1000, NOW) == NOW + 60_000
    assert room.left(1000, NOW + 60_000) == math.inf


@pytest.mark.parametrize(
    ("said", "per_minute"),
    [
        (Announced(limit=600, remaining=599, reset_s=0.1), 600),
        (Announced(limit=10_000, remaining=9_999, reset_s=8.64), None),  # a day's
        (Announced(limit=600, remaining=9, reset_s=0.1), None),  # a second's worth at once
        (Announced(limit=600, remaining=600, reset_s=0), None),
    ],
)
def test_a_limit_for_a_minute_bounds_the_rate_that_is_learned(
    said: Announced, per_minute: int | None
) -> None:
    room = heard(said)
    assert room.requests_per_minute == per_minute
    assert Limits(adaptive=True).below(per_minute) == Limits(per_minute, adaptive=True)
    assert Limits(50, adaptive=True).below(per_minute) == Limits(50, adaptive=True)
    assert Limits().below(per_minute) == Limits()


def told(limit: str, remaining: str, reset: str) -> dict[str, str]:
    return {
        "x-ratelimit-limit-requests": limit,
        "x-ratelimit-remaining-requests": remaining,
        "x-ratelimit-reset-requests": reset,
    }


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (told("5000", "4999", "12ms"), Announced(5000, 4999, 0.012)),
        (told("60", "0", "6m0s"), Announced(60, 0, 360)),
        (told("60", "0", "2.5"), Announced(60, 0, 2.5)),
        (told("0", "0", "1s"), None),
        (told("many", "0", "1s"), None),
        (told("60", "-1", "1s"), None),
        (told("60", "0", "soon"), None),
        ({"x-ratelimit-remaining-requests": "0"}, None),
        ({}, None),
    ],
)
def test_headers_are_read_when_they_say_all_of_it(
    headers: dict[str, str], said: Announced | None
) -> None:
    assert announced(headers, "requests") == said
    assert announced(headers, "tokens") is None
