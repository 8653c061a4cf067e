"""What a worker reports: there and back as JSON, and which news cannot wait."""

from typing import Any

import pytest
from msgspec.structs import replace

from batchgen.worker.report import BudgetWait, Held, HeldBy, Straggler, WorkerReport

REPORT = WorkerReport(
    halted="no quota", trouble="429 慢", calls=17, failed_calls={"429": 3}, late_after_ms=900,
    held_by=Held(HeldBy.BUDGET, 1_700_000_000_000, 120.5, "rpm", 3, BudgetWait(9, 0.5, 7, 0.25)),
    stragglers=(Straggler(7, 1_699_999_999_000), Straggler(9, 5)),
)  # fmt: skip


@pytest.mark.parametrize("report", [REPORT, WorkerReport()])
def test_a_report_comes_back_as_it_was(report: WorkerReport) -> None:
    assert WorkerReport.from_json(report.to_json()) == report


def test_a_worker_that_has_not_reported_is_as_a_new_one() -> None:
    assert WorkerReport.from_json(None) == WorkerReport()


def test_what_another_version_added_is_left_out() -> None:
    assert WorkerReport.from_json('{"calls": 3, "mood": "good"}') == WorkerReport(calls=3)


@pytest.mark.parametrize(
    ("change", "is_urgent"),
    [
        ({"halted": None}, True),
        ({"held_by": None}, True),
        ({"held_by": Held(HeldBy.LIMIT, per_minute=60.0)}, True),
        ({"held_by": Held(HeldBy.BUDGET, 1_700_000_009_000)}, False),
        ({"trouble": "503", "calls": 18, "stragglers": ()}, False),
    ],
)
def test_what_holds_a_worker_is_urgent_and_how_far_it_is_is_not(
    change: dict[str, Any], is_urgent: bool
) -> None:
    assert replace(REPORT, **change).is_urgent_after(REPORT) is is_urgent
