"""What servers say of their limits: how many calls still go out, and when the next."""

import math

import pytest

from batchgen.limits.announced import AnnouncedLimit, ServerAllowance
from batchgen.limits.buckets import Limits
from batchgen.llm.announcements import announced_limit

NOW = 1_000_000


def after_reply(
    requests: AnnouncedLimit | None = None, tokens: AnnouncedLimit | None = None
) -> ServerAllowance:
    """After the reply to a first call, which was sent at NOW."""
    allowance = ServerAllowance()
    allowance.observe(requests, tokens, allowance.sent(), NOW)
    return allowance


def test_a_server_that_says_nothing_has_room() -> None:
    assert ServerAllowance().calls_left(1000, NOW) == math.inf
    assert ServerAllowance().next_at(1000, NOW) is None


def test_what_is_left_goes_down_with_each_call_and_fills_up_again() -> None:
    allowance = after_reply(AnnouncedLimit(limit=60, remaining=2, reset_s=58))
    assert allowance.calls_left(1, NOW) == 2
    allowance.sent()
    allowance.sent()
    assert (allowance.calls_left(1, NOW), allowance.next_at(1, NOW)) == (0, NOW + 1000)
    assert allowance.calls_left(1, NOW + 1000) == 1
    assert allowance.next_at(1, NOW + 1000) is None


def test_nobody_waits_longer_than_until_the_limit_resets() -> None:
    allowance = after_reply(AnnouncedLimit(limit=10, remaining=0, reset_s=1.5))
    assert (allowance.calls_left(1, NOW), allowance.next_at(1, NOW)) == (0, NOW + 1500)
    assert allowance.calls_left(1, NOW + 1500) == math.inf


def test_each_of_several_workers_takes_its_part() -> None:
    allowance = after_reply(AnnouncedLimit(limit=60, remaining=9, reset_s=51))
    allowance.workers = 3
    assert allowance.calls_left(1, NOW) == 3
    for _ in range(3):
        allowance.sent()
    assert (allowance.calls_left(1, NOW), allowance.next_at(1, NOW)) == (0, NOW + 3000)


def test_a_server_that_says_no_more_holds_nobody_up() -> None:
    """Such as one that tells of its limits in some replies only."""
    allowance = after_reply(AnnouncedLimit(limit=10, remaining=9, reset_s=6))
    for _ in range(100):
        allowance.sent()
    assert allowance.next_at(1, NOW + 100) == NOW + 6000
    assert allowance.calls_left(1, NOW + 6000) == math.inf
    assert allowance.next_at(1, NOW + 6000) is None


def test_replies_that_come_late_are_no_news() -> None:
    allowance = ServerAllowance()
    first, second = allowance.sent(), allowance.sent()
    allowance.observe(AnnouncedLimit(60, 58, 2), None, second, NOW + 10)
    allowance.observe(AnnouncedLimit(60, 59, 1), None, first, NOW)
    assert allowance.calls_left(1, NOW + 10) == 58


def test_tokens_are_enough_for_so_many_calls() -> None:
    allowance = after_reply(tokens=AnnouncedLimit(limit=60_000, remaining=2500, reset_s=57.5))
    assert allowance.calls_left(1000, NOW) == 2.5
    allowance.sent()
    allowance.sent()
    assert (allowance.calls_left(1000, NOW), allowance.next_at(1000, NOW)) == (0.5, NOW + 500)


def test_a_call_that_is_larger_than_the_limit_goes_out_when_nothing_is_used() -> None:
    allowance = after_reply(tokens=AnnouncedLimit(limit=600, remaining=0, reset_s=60))
    assert allowance.next_at(1000, NOW) == NOW + 60_000
    assert allowance.calls_left(1000, NOW + 60_000) == math.inf


@pytest.mark.parametrize(
    ("expected", "per_minute"),
    [
        (AnnouncedLimit(limit=600, remaining=599, reset_s=0.1), 600),
        (AnnouncedLimit(limit=10_000, remaining=9_999, reset_s=8.64), None),  # a day's
        (AnnouncedLimit(limit=600, remaining=9, reset_s=0.1), None),  # a second's worth at once
        (AnnouncedLimit(limit=600, remaining=600, reset_s=0), None),
    ],
)
def test_a_limit_for_a_minute_bounds_the_rate_that_is_learned(
    expected: AnnouncedLimit, per_minute: int | None
) -> None:
    allowance = after_reply(expected)
    assert allowance.rpm == per_minute
    assert Limits(adaptive=True).below(per_minute) == Limits(per_minute, adaptive=True)
    assert Limits(50, adaptive=True).below(per_minute) == Limits(50, adaptive=True)
    assert Limits().below(per_minute) == Limits()


def headers_of(limit: str, remaining: str, reset: str) -> dict[str, str]:
    return {
        "x-ratelimit-limit-requests": limit,
        "x-ratelimit-remaining-requests": remaining,
        "x-ratelimit-reset-requests": reset,
    }


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (headers_of("5000", "4999", "12ms"), AnnouncedLimit(5000, 4999, 0.012)),
        (headers_of("60", "0", "6m0s"), AnnouncedLimit(60, 0, 360)),
        (headers_of("60", "0", "2.5"), AnnouncedLimit(60, 0, 2.5)),
        (headers_of("0", "0", "1s"), None),
        (headers_of("many", "0", "1s"), None),
        (headers_of("60", "-1", "1s"), None),
        (headers_of("60", "0", "soon"), None),
        ({"x-ratelimit-remaining-requests": "0"}, None),
        ({}, None),
    ],
)
def test_headers_are_read_when_they_say_all_of_it(
    headers: dict[str, str], expected: AnnouncedLimit | None
) -> None:
    assert announced_limit(headers, "requests") == expected
    assert announced_limit(headers, "tokens") is None
