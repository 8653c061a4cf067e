"""The rate that --adaptive finds, in virtual time, against the limiters that servers have."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from batchgen.limits.adaptive import LearnedRate
from batchgen.limits.buckets import Limits
from tests.kits.virtual_time import (
    START,
    Crew,
    Outage,
    Run,
    Server,
    Straying,
    Worker,
    deep,
    run,
    silent,
    silent_deep,
    silent_window,
    tight,
    window,
)

ADAPTIVE = Limits(adaptive=True)
MakeServer = Callable[[float], Server]


def slow_case(value: float) -> Any:
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.mark.quick("60")
@pytest.mark.parametrize(
    ("workers", "latency_s"), [(1, 0.05), (4, 1.0), (4, 20.0)], ids=lambda value: f"{value:g}"
)
@pytest.mark.parametrize("rpm", [60, 300, slow_case(1200), slow_case(6000)])
@pytest.mark.parametrize("server", [tight, silent, deep, window])
def test_a_minute_after_the_start_the_limit_is_used_and_hardly_ever_hit(
    server: MakeServer, rpm: int, workers: int, latency_s: float
) -> None:
    slots = int(rpm / 60 * latency_s * 3 / workers) + 10
    seen = run(
        server(rpm), ADAPTIVE, seconds=240, workers=workers, slots=slots, latency_s=latency_s
    )
    assert seen.share(rpm, 60, 240) >= 0.9
    # What is refused in a cycle, of the calls in it; a window's end is met by several at once.
    assert seen.refused(60, 240) < (0.14 if server is window else 0.05)


@pytest.mark.parametrize("server", [tight, silent, deep, window])
def test_with_20_calls_a_minute_one_429_is_much_and_learning_takes_longer(
    server: MakeServer,
) -> None:
    seen = run(server(20), ADAPTIVE, seconds=480)
    assert seen.share(20, 60, 480) >= 0.85
    assert seen.refused(60, 480) < 0.2


def busy(server: Server, share: float, seed: int, *, rpm: int) -> Run:
    """Two workers that could send half as much again as the server allows."""
    slots = int(rpm / 60 * 0.75) + 10
    straying = Straying(server, share, seed)
    return run(straying, ADAPTIVE, seconds=240, workers=2, slots=slots, latency_s=1.0, seed=seed)


@pytest.mark.quick("0.1")
@pytest.mark.parametrize("seed", [1, slow_case(2), slow_case(3)])
@pytest.mark.parametrize("share", [0.03, 0.1])
def test_strays_alone_cost_next_to_nothing(share: float, seed: int) -> None:
    """Of 50 slots, with a second an answer and no limit."""
    free = Straying(tight(1e9), share, seed)
    seen = run(free, ADAPTIVE, seconds=120, slots=50, latency_s=1.0, seed=seed)
    assert seen.share(3000, 20, 120) >= 0.9
    assert seen.refused(20, 120) == pytest.approx(share, abs=0.02)


@pytest.mark.quick("deep")
@pytest.mark.parametrize("share", [slow_case(0.03), 0.1])
@pytest.mark.parametrize("rpm", [600, slow_case(6000)])
@pytest.mark.parametrize("server", [tight, silent, deep, silent_deep, window])
def test_a_limit_is_found_among_strays(server: MakeServer, rpm: int, share: float) -> None:
    seen = busy(server(rpm), share, 1, rpm=rpm)
    assert seen.share(rpm, 60, 240) >= 0.9
    assert seen.refused(60, 240) < share + 0.1


def test_a_window_that_says_nothing_is_mostly_used() -> None:
    """While a server accepts nothing at all, the rate stays."""
    seen = run(silent_window(600), ADAPTIVE, seconds=240, workers=2, slots=25, latency_s=1.0)
    assert seen.share(600, 60, 240) >= 0.7


def after_a_rest(server: Server, seconds: float, then_rpm: int) -> Run:
    """What a worker sees that begins so long after another one had found the limit, which may be
    another one then."""
    first = Crew(server, ADAPTIVE, 1.0)
    first.wake(Worker(300), START)
    first.work(START + 150)
    server.per_s = then_rpm / 60
    begin_s = START + 150 + seconds
    second = Crew(server, ADAPTIVE, 1.0, shared=first.shared)
    second.wake(Worker(300, begin_s), begin_s)
    second.work(begin_s + 60)
    return Run([(at_s + START - begin_s, taken) for at_s, taken in second.calls])


@pytest.mark.quick("deep-3")
@pytest.mark.parametrize("seconds", [3, 3600 * 30])
@pytest.mark.parametrize("server", [tight, silent, deep])
def test_what_was_found_is_used_at_once_by_the_next_run(server: MakeServer, seconds: float) -> None:
    seen = after_a_rest(server(600), seconds, 600)
    assert seen.share(600, 0, 10) >= 0.9
    assert seen.refused(0, 20) < 0.03


@pytest.mark.slow
def test_what_was_found_is_not_believed_for_ever() -> None:
    lowered = after_a_rest(tight(6000), 3600 * 30, 600)
    assert lowered.share(600, 10, 60) >= 0.9
    assert lowered.refused(10, 60) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("server", [tight, deep])
def test_a_limit_of_a_thousand_calls_a_second_is_found(server: MakeServer) -> None:
    seen = run(server(60_000), ADAPTIVE, seconds=90, workers=4, slots=1000)
    assert seen.share(60_000, 60, 90) >= 0.9
    assert seen.refused(60, 90) < 0.02


@pytest.mark.quick("0.3333333333333333-tight")
@pytest.mark.parametrize("server", [tight, silent, deep])
@pytest.mark.parametrize("factor", [3, 1 / 3])
def test_a_limit_that_changes_is_found_again(server: MakeServer, factor: float) -> None:
    after = 600 * factor
    seen = run(server(600), ADAPTIVE, seconds=420, workers=2, then=(120, after))
    assert seen.share(after, 300, 420) >= 0.9
    assert seen.refused(300, 420) < 0.1


def test_a_limit_that_is_far_higher_than_it_was_is_searched_for_anew() -> None:
    seen = run(deep(60), ADAPTIVE, seconds=480, workers=2, then=(120, 1800))
    assert seen.share(1800, 420, 480) >= 0.9
    assert seen.refused(420, 480) < 0.02


@pytest.mark.quick("None")
@pytest.mark.parametrize("retry_after_s", [None, 30.0])
def test_a_server_that_refused_everything_for_a_while_is_soon_used_again(
    retry_after_s: float | None,
) -> None:
    server = Outage(tight(600), 120, 420, retry_after_s)
    seen = run(server, ADAPTIVE, seconds=840, workers=2)
    assert seen.share(600, 780, 840) >= 0.9
    assert seen.refused(480, 840) < 0.03


@pytest.mark.quick("tight")
@pytest.mark.parametrize("server", [tight, window])
def test_a_limit_of_the_users_is_never_exceeded(server: MakeServer) -> None:
    limits = Limits(rpm=300, adaptive=True)
    seen = run(server(600), limits, seconds=180)
    assert seen.refused(0, 180) == 0
    sent = [at_s for at_s, _ in seen.calls]
    assert 280 <= max(sum(0 <= at_s - first < 60 for at_s in sent) for first in sent) <= 300


def test_without_a_limit_of_the_servers_the_slots_are_soon_all_at_work() -> None:
    seen = run(tight(1e9), ADAPTIVE, seconds=30, slots=100, latency_s=1.0)
    assert seen.share(6000, 15, 30) >= 0.95


def test_the_rate_doubles_with_each_second_in_which_it_limited_the_calls() -> None:
    learned, seen = LearnedRate(), []
    for _ in range(4):
        seen.append(learned.per_s)
        for _ in range(10):
            learned = learned.limited_for(0.1)
    assert seen == pytest.approx([1, 2, 4, 8])


def test_a_long_time_without_a_look_is_no_long_time_of_growth() -> None:
    assert LearnedRate().limited_for(3600.0).per_s == LearnedRate().limited_for(2.0).per_s


def test_the_first_burst_halves_the_rate_and_later_ones_take_a_little() -> None:
    first = LearnedRate(limited_s=5.0).refused([1000] * 5, now=1100, paused_until=0)
    assert (first.ceiling_per_s, first.per_s) == (32, 16)
    grown = LearnedRate(
        ceiling_per_s=32,
        cut_share=0.5,
        limited_s=20,
        cut_at=1100,
        cut_effective_at=1300,
        taken_since_cut=600,
    )
    second = grown.refused([21_000], now=21_100, paused_until=0)
    assert second.ceiling_per_s == pytest.approx(31, rel=0.02)
    assert second.per_s == pytest.approx(31 * 0.92, rel=0.02)


def test_calls_sent_before_a_cut_took_effect_belong_to_its_burst() -> None:
    cut = LearnedRate(limited_s=5.0).refused([1000] * 5, now=1100, paused_until=4000)
    assert cut.cut_effective_at == 4000
    assert cut.refused([900, 1200, 4000], now=4100, paused_until=9000).per_s == cut.per_s
    assert cut.refused([900, 4001], now=4100, paused_until=0).per_s == cut.per_s  # a stray
    served = replace(cut, taken_since_cut=20)
    assert served.refused([900, *[4001] * 5], now=4100, paused_until=0).per_s < cut.per_s


def test_a_burst_right_after_a_cut_shows_how_much_too_high_the_rate_was() -> None:
    """As after a slow start against a bucket that had a minute's worth in it."""
    cut = LearnedRate(
        ceiling_per_s=512,
        cut_share=0.5,
        limited_s=0.05,
        cut_at=1000,
        cut_effective_at=1200,
        taken_since_cut=10,
    )
    assert cut.refused([1900] * 5, now=2000, paused_until=0).per_s < 128
