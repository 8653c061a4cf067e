"""Batches as OpenAI has them, and with it most others: `/files` and `/batches`."""

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

# A word that is not here may be that of one that runs: nothing is taken for a last word but these.
_STANDINGS = {
    "completed": Standing.COMPLETED,
    "failed": Standing.FAILED,
    "expired": Standing.EXPIRED,
    "cancelled": Standing.CANCELLED,
    "canceled": Standing.CANCELLED,
}


class OpenAIBatches(FileBatches):
    """OpenAI, Azure, Groq, DashScope, DeepInfra, Novita, LiteLLM, ogx ..."""

    most_requests = 50_000
    most_bytes = 200 * 1000 * 1000
    path = "/batches"
    stopping = frozenset(("cancelling", "canceling"))

    def request_body(self, request: Request) -> Mapping[str, Any]:
        custom_id, path, body = request
        return {"custom_id": custom_id, "method": "POST", "url": path, "body": body}

    def order_body(self, order: Order) -> Mapping[str, Any]:
        return {
            "input_file_id": order.input_file,
            "endpoint": order.path,
            "completion_window": order.window,
            "metadata": {METADATA_KEY: order.token},
        }

    def seen_in(self, body: Any) -> Seen | None:
        batch_id = text_in(body, "id")
        if batch_id is None:
            return None
        status, counts = text_in(body, "status") or "", body.get("request_counts")
        return as_it_went(
            Seen(
                batch_id=batch_id,
                standing=_STANDINGS.get(status.lower(), Standing.RUNNING),
                status=status,
                input_file=text_in(body, "input_file_id"),
                token=token_in(body),
                total=count_in(counts, "total") or None,
                answered=count_in(counts, "completed"),
                failed=count_in(counts, "failed"),
                output_file=text_in(body, "output_file_id"),
                error_file=text_in(body, "error_file_id"),
                created_at=ms_in(body, "created_at"),
                expires_at=ms_in(body, "expires_at"),
                problems=tuple(_problems(body.get("errors"))),
            )
        )

    def page_query(self, place: Place) -> Mapping[str, str]:
        after = {} if place.last is None else {"after": place.last}
        return {"limit": str(PAGE_SIZE), **after}

    def count_or_more(self, body: Mapping[str, Any]) -> int | bool | None:
        told = body.get("has_more")
        return told if isinstance(told, bool) else None


def _problems(errors: Any) -> Iterator[LineProblem]:
    """Why validation failed."""
    found = errors.get("data") if isinstance(errors, dict) else errors
    for one in found if isinstance(found, list) else ():
        if isinstance(one, dict):
            message = shorten(text_in(one, "message"))
            yield LineProblem(text_in(one, "code") or "", message, count_in(one, "line") or None)
