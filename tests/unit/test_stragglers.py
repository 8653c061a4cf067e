"""Which calls are late, at times that the tests choose."""

from collections import deque

import pytest

from batchgen.worker.stragglers import CallsInFlight, percentile

ANSWERS = deque([100] * 98 + [200, 5000], maxlen=100)  # p99 is 200 ms


def calls_in_flight(latencies_ms: "deque[int]" = ANSWERS) -> CallsInFlight:
    calls = CallsInFlight(latencies_ms)
    calls.began(7, 10_000)
    calls.began(8, 10_300)
    return calls


@pytest.mark.parametrize(("now", "late"), [(10_600, []), (10_601, [7]), (10_901, [7, 8])])
def test_a_call_is_late_after_three_times_the_p99(now: int, late: list[int]) -> None:
    assert [item_id for item_id, _ in calls_in_flight().stragglers(now)] == late


def test_the_longest_under_way_comes_first_with_when_it_began() -> None:
    calls = calls_in_flight()
    calls.began(7, 10_400)  # once more, later
    assert calls.stragglers(20_000) == [(8, 10_300), (7, 10_400)]


def test_a_call_that_ended_is_late_no_more() -> None:
    calls = calls_in_flight()
    calls.ended(7)
    calls.ended(99)  # never seen: no matter
    assert calls.stragglers(20_000) == [(8, 10_300)]


def test_with_fewer_than_thirty_answers_nobody_can_say() -> None:
    latencies_ms = deque([100] * 29)
    calls = calls_in_flight(latencies_ms)
    assert (calls.late_after_ms(60_000), calls.stragglers(60_000)) == (None, [])
    latencies_ms.append(100)
    assert calls.late_after_ms(61_000) == 300


def test_new_answers_count_within_a_second_and_not_for_each() -> None:
    latencies_ms = deque([100] * 30, maxlen=30)
    calls = calls_in_flight(latencies_ms)
    assert calls.late_after_ms(20_000) == 300
    latencies_ms.extend([400] * 30)
    assert [calls.late_after_ms(now) for now in (20_999, 21_000)] == [300, 1200]


@pytest.mark.parametrize(
    ("values", "fraction", "value"),
    [
        ([7], 0.5, 7),
        ([1, 2], 0.5, 1),
        ([1, 2, 3], 0.5, 2),
        (range(1, 101), 0.99, 99),
        ([1, 2], 1, 2),
    ],
)
def test_percentiles_are_by_nearest_rank(values: list[int], fraction: float, value: int) -> None:
    assert percentile(values, fraction) == value
