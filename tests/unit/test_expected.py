"""How many rows a run on chains still has before it."""

from typing import Any

import pytest

from batchgen.jobs.expected import expected_pending
from batchgen.jobs.experiments import StepSummary
from batchgen.store import Counts, Experiment


def step(number: int, **counts: Any) -> StepSummary:
    first_id = 1 if number else None
    experiment = Experiment(number + 1, f"e/{number}", 0, "", first_id, f"s{number}", number)
    return StepSummary(experiment, Counts(**counts))


@pytest.mark.parametrize(
    ("steps", "until", "expected"),
    [
        ([step(0, pending=10), step(1), step(2)], None, 30),
        ([step(0, pending=8, running=2), step(1), step(2)], None, 28),
        ([step(0, pending=5, done=5), step(1, pending=3, done=12)], None, 5 + 15 + 3),
        ([step(0, pending=5, done=4, failed=1), step(1, done=2)], None, 5 + 2),
        ([step(0, done=5), step(1, pending=2, done=3)], None, 2),
        ([step(1, pending=2, done=3)], None, 2),
        ([step(0, pending=90, done=10), step(1, pending=2, done=8, ended=8)], 12, 2 + 2 + 2),
        ([step(0, pending=90, done=10), step(1, done=10, ended=10)], 10, 0),
        ([], None, 0),
    ],
)
def test_rows_that_will_be_made_are_expected(
    steps: list[StepSummary], until: int | None, expected: int
) -> None:
    assert expected_pending(steps, until) == expected
