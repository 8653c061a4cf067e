"""Limits of requests and tokens, in virtual time: never more than allowed, and not much less."""

import heapq
import random

import pytest
from msgspec.structs import replace

from batchgen.limits.buckets import Limits, Returned, SharedRate, allowance
from batchgen.limits.tokens import TokenMeter
from tests.kits.virtual_time import run, tight

START_MS = 1_700_000_000_000


def busiest(sent: list[tuple[float, float]], window_s: float = 60.0) -> float:
    """The most in any window, of (second, amount)."""
    most, now, start = 0.0, 0.0, 0
    for at_s, amount in sent:
        now += amount
        while at_s - sent[start][0] >= window_s:
            now -= sent[start][1]
            start += 1
        most = max(most, now)
    return most


@pytest.mark.quick("1-1", "1-7", "1-60", "4-7", "4-121")
@pytest.mark.parametrize(
    "rpm", [1, 2, 3, 7, 30, 60, 121, 122, 123, 600, pytest.param(6000, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("ahead", [False, True], ids=["in turn", "ahead"])
def test_no_sixty_seconds_see_more_requests_than_allowed(
    rpm: int, workers: int, ahead: bool
) -> None:
    limits, minutes = Limits(rpm=rpm), 10 if rpm < 600 else 3
    seen = run(
        tight(1e9), limits, seconds=60 * minutes, workers=workers, slots=rpm, latency_s=1.0,
        ahead=ahead,
    )  # fmt: skip
    sent = [(at_s, 1.0) for at_s, _ in seen.calls]
    assert busiest(sent) <= rpm
    assert len(sent) >= rpm * minutes * 0.97 - 1


@pytest.mark.quick("60", "600")
@pytest.mark.parametrize("rpm", [60, 600, 6000])
def test_requests_are_spread_over_the_minute(rpm: int) -> None:
    seen = run(tight(1e9), Limits(rpm=rpm), seconds=60, workers=4)
    sent = [(at_s, 1.0) for at_s, _ in seen.calls]
    assert busiest(sent, window_s=1.0) <= max(2, rpm / 60 * 1.55)


def test_claims_are_in_batches_no_more_than_ten_a_second() -> None:
    limits, shared, looks = Limits(rpm=60_000), SharedRate(), 0
    now = START_MS
    while now < START_MS + 10_000:
        shared = shared.filled(limits, 1, now)
        allowed = allowance(shared, limits, 500, 1, now)
        shared = shared.taken(allowed.calls, 0)
        assert allowed.next_at is not None
        now, looks = allowed.next_at, looks + 1
    assert looks <= 101


def test_a_clock_set_back_neither_gives_nor_takes() -> None:
    limits = Limits(rpm=60)
    before = SharedRate().filled(limits, 1, START_MS).taken(1, 0)
    before = replace(before, paused_until=START_MS + 5000)
    back = before.filled(limits, 1, START_MS - 3_600_000)
    assert (back.requests, back.paused_until) == (before.requests, START_MS - 3_595_000)
    again = back.filled(limits, 1, START_MS - 3_590_000)
    assert allowance(again, limits, 9, 1, again.updated_at).calls == 1


def test_clocks_that_differ_a_little_give_nothing_twice() -> None:
    """Those of two machines, one of which is behind."""
    limits, shared = Limits(rpm=6000), SharedRate().filled(Limits(rpm=6000), 1, START_MS)
    shared = shared.taken(round(shared.requests), 0)
    level = shared.requests
    for at in range(0, 1000, 10):
        shared = shared.filled(limits, 1, START_MS + at).filled(limits, 1, START_MS + at - 30)
        shared = shared.taken(1, 0)
    assert shared.updated_at == START_MS + 990
    assert shared.requests + 100 - level == pytest.approx(0.99 * 6001 / 61.5)


def test_the_wait_is_over_when_there_is_room() -> None:
    limits = Limits(rpm=30)
    empty = SharedRate().filled(limits, 1, START_MS).taken(1, 0)
    wait = allowance(empty, limits, 9, 1, START_MS)
    assert wait.calls == 0
    assert wait.limited_to_rpm == 30
    assert wait.next_at is not None
    for at, calls in ((wait.next_at - 2, 0), (wait.next_at, 1)):
        assert allowance(empty.filled(limits, 1, at), limits, 9, 1, at).calls == calls


# Tokens


def used_tokens(
    per_minute: int, *, max_tokens: int | None, latency_s: float, seconds: float = 300
) -> list[tuple[float, float]]:
    """(second sent, tokens used) of calls that use 150 tokens, one more for each two bytes of the
    item, and an answer of 50 to 350."""
    rng, limits, shared = random.Random(3), Limits(tpm=per_minute), SharedRate()
    meter, idle, now = TokenMeter(max_tokens), 200, float(START_MS)
    under_way: list[tuple[float, int, int, int]] = []  # ends, bytes, reserved, used
    sent: list[tuple[float, float]] = []
    while now < START_MS + seconds * 1000:
        back = 0
        while under_way and under_way[0][0] <= now:
            _, item_bytes, reserved, used = heapq.heappop(under_way)
            meter.observe(item_bytes, used)
            back, idle = back + reserved - used, idle + 1
        call = meter.estimate
        shared = shared.settled(Returned(tokens=back), int(now)).filled(limits, call.mean, int(now))
        for _ in range(allowance(shared, limits, idle, call.mean, int(now)).calls):
            item_bytes = rng.randrange(100, 1500)
            used = 150 + item_bytes // 2 + rng.randrange(50, 350)
            shared, idle = shared.taken(1, call.of(item_bytes)), idle - 1
            ends = now + latency_s * 1000 * rng.uniform(0.5, 1.5)
            heapq.heappush(under_way, (ends, item_bytes, call.of(item_bytes), used))
            sent.append(((now - START_MS) / 1000, used))
        now += rng.uniform(20, 120)
    return sent


@pytest.mark.parametrize("latency_s", [0.5, 10.0])
@pytest.mark.parametrize("per_minute", [6000, 60_000, 2_000_000])
def test_the_tokens_of_a_minute_stay_within_the_limit_but_for_the_error_of_the_estimate(
    per_minute: int, latency_s: float
) -> None:
    sent = used_tokens(per_minute, max_tokens=2000, latency_s=latency_s)
    assert busiest(sent) <= per_minute * 1.03 + 700
    if per_minute < 1_000_000 or latency_s < 1:  # else the slots are what limits
        late = sum(used for at_s, used in sent if at_s >= 60)
        assert late >= per_minute * 4 * 0.8


def test_a_call_larger_than_the_limit_is_sent_all_the_same() -> None:
    sent = used_tokens(600, max_tokens=None, latency_s=0.5)
    assert 2 <= len(sent) <= 6


def test_no_call_is_claimed_while_tokens_are_owed() -> None:
    limits = Limits(tpm=61_500)
    owed = SharedRate().filled(limits, 1, START_MS).taken(1, 5000)
    wait = allowance(owed, limits, 9, 1, START_MS)
    assert wait.calls == 0
    assert wait.next_at == pytest.approx(START_MS + 4600, abs=10)


# What a call uses


def test_before_the_first_answer_a_call_may_use_all_that_it_can() -> None:
    assert TokenMeter(5012).estimate.of(400) == 5112
    assert TokenMeter(None).estimate.of(400) == 700


def test_longer_items_are_known_to_use_more() -> None:
    meter = TokenMeter(None)
    for item_bytes in (100, 200, 300, 400) * 5:
        meter.observe(item_bytes, 500 + item_bytes // 4)
    assert [meter.estimate.of(n) for n in (0, 100, 2000)] == [500, 525, 1000]
    assert meter.estimate.mean == pytest.approx(562.5)


def test_items_of_one_length_tell_no_slope() -> None:
    meter = TokenMeter(None)
    for tokens in (100, 200, 300):
        meter.observe(50, tokens)
    assert meter.estimate.of(50) == meter.estimate.of(5000) == 200


def test_no_more_than_a_minutes_worth_of_tokens_is_owed() -> None:
    """One answer that says it used a billion tokens would hold everybody up for days."""
    limits = Limits(tpm=200_000)
    owing = SharedRate().filled(limits, 50, START_MS).settled(Returned(tokens=-1e9), START_MS)
    found = allowance(owing.filled(limits, 50, START_MS), limits, 9, 50, START_MS)
    assert found.calls == 0
    assert found.next_at is not None
    assert 30_000 < found.next_at - START_MS < 65_000
