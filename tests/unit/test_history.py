"""Rates, and how they went: what changed between looks."""

import pytest
from msgspec.structs import replace

from batchgen.display.drawing import sparkline
from batchgen.display.history import History, Interval
from batchgen.store import Counts
from tests.kits.looks import counts, status, watched


def test_the_first_look_knows_no_change() -> None:
    history = watched(40)
    assert (list(history.intervals), history.recent, history.items_per_s) == ([], None, 0.0)
    assert (history.tokens_per_s, history.elapsed_s, history.retried) == (0.0, 0.0, 0)


def test_an_interval_is_what_changed_since_the_look_before() -> None:
    history = watched(40, 46)
    (interval,) = history.intervals
    assert interval._replace(cost_usd=round(interval.cost_usd, 6)) == Interval(
        2.0, 6, 6, 3000, 600, 0.06
    )
    assert (interval.items_per_s, interval.tokens_per_s, interval.latency_s) == (3.0, 300.0, 0.5)
    assert interval.usd_per_h == pytest.approx(108)
    assert (history.items_per_s, history.tokens_per_s) == (3.0, 300.0)


def test_what_failed_counts_as_finished() -> None:
    history = History()
    history.add(status(counts(pending=10)), 0.0)
    history.add(status(counts(done=2, failed=4, pending=4)), 3.0)
    assert history.items_per_s == 2.0


def test_retried_are_the_calls_since_the_first_look() -> None:
    history = History()
    for now_s, retried in enumerate([7, 7, 9]):
        history.add(status(Counts(pending=3, retried=retried)), now_s)
    assert (history.retried, history.elapsed_s) == (2, 2.0)


def test_a_young_one_looks_back_half_a_minute() -> None:
    history = watched(*(10 * n for n in range(21)), *[200] * 10)  # 40 s of work, 20 s of none
    assert history.items_per_s == pytest.approx(50 / 30)


def test_an_old_one_looks_back_a_quarter_of_its_time_up_to_ten_minutes() -> None:
    done = [100 if second > 310 else 0 for second in range(0, 401, 10)]
    assert watched(*done, every_s=10).items_per_s == 1.0  # 100 in the last 100 seconds
    done = [700 if second > 6700 else 100 for second in range(0, 7201, 10)]
    assert watched(*done, every_s=10).items_per_s == 1.0  # 600 in the last 600 seconds


def test_a_bounded_number_of_intervals_is_kept() -> None:
    assert len(watched(*[0] * 5000, every_s=0.5).intervals) == 1200


def test_an_interval_in_which_a_total_went_back_is_left_out() -> None:
    history = watched(40, 46, 10, 14)  # failed ones were put back
    assert [interval.items for interval in history.intervals] == [6, 4]


def test_two_looks_at_one_instant_are_one() -> None:
    history = watched(40, 40, every_s=0.0)
    assert list(history.intervals) == []
    history.add(status(counts(done=44)), 102.0)
    assert [interval.items_per_s for interval in history.intervals] == [2.0]


def test_calls_whose_end_nobody_saw_do_not_make_the_latency_smaller() -> None:
    history = watched(10)
    seen = replace(counts(done=12), calls=32, unknown_calls=20)
    history.add(status(seen), 102.0)
    assert history.intervals[0].latency_s == 0.5


def test_of_lines_of_provider_batches_there_is_no_latency() -> None:
    history = watched(10)
    seen = replace(counts(done=12), latency_ms=counts(done=10).latency_ms)
    history.add(status(seen), 102.0)
    assert history.intervals[0].latency_s is None


@pytest.mark.parametrize(
    ("values", "width", "line"),
    [
        ([], 10, ""),
        ([0.0, 0.0], 10, "▁▁"),
        ([0.0, 1.0, 2.0, 7.0], 10, "▁▂▃█"),
        ([9.0, 7.0, 3.5, None, 0.0], 4, "█▅ ▁"),
        ([None], 4, " "),
        ([1.0], 0, ""),
        ([1.0], -3, ""),
    ],
)
def test_sparkline(values: list[float | None], width: int, line: str) -> None:
    assert sparkline(values, width) == line


def test_the_time_in_which_the_database_was_away_is_left_out() -> None:
    history = watched(40, 46)  # at 100 and 102 s
    history.add(status(counts(done=50, pending=950)), 702.0, asked_s=104.0)
    assert (history.items_per_s, history.elapsed_s) == (3.0, 602.0)
    history.add(status(counts(done=56, pending=944)), 704.0, asked_s=703.9)
    assert history.items_per_s == 3.0
