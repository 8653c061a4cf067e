"""How each server of a run is doing, put together from what its workers report."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from batchgen.clock import timestamp
from batchgen.worker.report import Held, ServerReport, WorkerReport


class ServerStatus(Struct, frozen=True):
    """`calls`, by all workers that live; `failed_calls` of these, by HTTP status or reason, and
    `per_minute` answers in the last minute. `trouble` is what went wrong last, where nothing went
    well since `trouble_at`. `left_out` says why it takes no part, since
    `left_out_at` (epoch ms); `held_by`, what keeps it from being sent more."""

    name: str
    calls: int = 0
    in_flight: int = 0
    failed_calls: Mapping[str, int] = {}
    per_minute: int = 0
    held_by: Held | None = None
    trouble: str = ""
    trouble_at: int | None = None
    left_out: str | None = None
    left_out_at: int | None = None

    def with_report(self, report: ServerReport) -> "ServerStatus":
        """With another worker's; it is held or left out if it is for all of them."""
        is_left_out = self.left_out is not None and report.left_out is not None
        at = min(self.left_out_at or 0, report.left_out_at or 0) if is_left_out else None
        return replace(
            self,
            calls=self.calls + report.calls,
            in_flight=self.in_flight + report.in_flight,
            failed_calls=Counter(self.failed_calls) + Counter(report.failed_calls),
            per_minute=self.per_minute + report.per_minute,
            held_by=report.held_by and self.held_by,
            trouble=report.trouble and self.trouble,
            trouble_at=max(report.trouble_at or 0, self.trouble_at or 0) or None,
            left_out=self.left_out if is_left_out else None,
            left_out_at=at,
        )

    def to_json(self, waits_for: str | None) -> dict[str, Any]:
        """`waits_for`: what keeps it from being sent more, in words."""
        at = self.left_out_at
        return {
            "name": self.name, "calls": self.calls, "in_flight": self.in_flight,
            "answers_per_minute": self.per_minute, "failed_calls": dict(self.failed_calls),
            "waits_for": waits_for, "trouble": self.trouble or None, "left_out": self.left_out,
            "left_out_since": None if at is None else timestamp(at),
        }  # fmt: skip


def servers_of(reports: Iterable[WorkerReport]) -> tuple[ServerStatus, ...]:
    """Of all workers together, in the order in which they name them."""
    found: dict[str, ServerStatus] = {}
    for report in (server for worker in reports for server in worker.servers):
        known = found.get(report.key)
        found[report.key] = known.with_report(report) if known else _status_of(report)
    return tuple(found.values())


def _status_of(report: ServerReport) -> ServerStatus:
    return ServerStatus(
        report.name, report.calls, report.in_flight, report.failed_calls, report.per_minute,
        report.held_by, report.trouble, report.trouble_at, report.left_out, report.left_out_at,
    )  # fmt: skip
