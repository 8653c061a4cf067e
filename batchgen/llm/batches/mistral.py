"""Batches as Mistral has them: `/files`, and `/batch/jobs`."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from batchgen.llm.batches.listing import Place
from batchgen.llm.batches.members import (
    METADATA_KEY,
    as_it_went,
    count_in,
    ms_in,
    text_in,
    token_in,
)
from batchgen.llm.batches.protocol import LineProblem, Seen, Standing
from batchgen.llm.batches.server import PAGE_SIZE, FileBatches, Order, Request
from batchgen.text.foreign_json import shorten

_STANDINGS = {
    "SUCCESS": Standing.COMPLETED,
    "FAILED": Standing.FAILED,
    "TIMEOUT_EXCEEDED": Standing.EXPIRED,
    "CANCELLED": Standing.CANCELLED,
}
_WINDOW = re.compile(r"(\d{1,4})([hd])")


class MistralBatches(FileBatches):
    """A job has its model, an endpoint and a time in hours; its lines have no URL."""

    most_requests = 1_000_000  # that wait or run, of a workspace
    most_bytes = 512 * 1000 * 1000
    path = "/batch/jobs"
    stopping = frozenset(("CANCELLATION_REQUESTED",))

    def request_body(self, request: Request) -> Mapping[str, Any]:
        return {"custom_id": request.custom_id, "body": request.body}

    def order_body(self, order: Order) -> Mapping[str, Any]:
        return {
            "input_files": [order.input_file],
            "endpoint": order.path,
            "model": order.model,
            "metadata": {METADATA_KEY: order.token},
            "timeout_hours": _hours_of(order.window),
        }

    def seen_in(self, body: Any) -> Seen | None:
        batch_id = text_in(body, "id")
        if batch_id is None:
            return None
        status, input_files = text_in(body, "status") or "", body.get("input_files")
        first = input_files[:1] if isinstance(input_files, list) else []
        return as_it_went(
            Seen(
                batch_id=batch_id,
                standing=_STANDINGS.get(status, Standing.RUNNING),
                status=status,
                input_file=next((one for one in first if isinstance(one, str)), None),
                token=token_in(body),
                total=count_in(body, "total_requests") or None,
                answered=count_in(body, "succeeded_requests"),
                failed=count_in(body, "failed_requests"),
                output_file=text_in(body, "output_file"),
                error_file=text_in(body, "error_file"),
                created_at=ms_in(body, "created_at"),
                problems=tuple(_problems(body.get("errors"))),
            )
        )

    def page_query(self, place: Place) -> Mapping[str, str]:
        return {"page": str(place.pages), "page_size": str(PAGE_SIZE), "order_by": "-created"}

    def count_or_more(self, body: Mapping[str, Any]) -> int | bool | None:
        total = body.get("total")
        return total if isinstance(total, int) else None


def _hours_of(window: str) -> int | str:
    """A window that is no number of hours goes as it is, for the provider to refuse."""
    found = _WINDOW.fullmatch(window)
    return int(found[1]) * (24 if found[2] == "d" else 1) if found else window


def _problems(errors: Any) -> Iterator[LineProblem]:
    for one in errors if isinstance(errors, list) else ():
        if message := shorten(text_in(one, "message")):
            yield LineProblem("", message, None)
