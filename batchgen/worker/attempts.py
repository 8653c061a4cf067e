"""A call as it is kept for good, of the reply that it brought."""

from msgspec.structs import replace

from batchgen.items import Answer, Attempt, Failure, Reply
from batchgen.llm.decide import MAY_BE_CHARGED
from batchgen.text.json_text import storable

_MOST_CHARS_OF_FAILURE = 1024 * 1024


def attempt_of(
    reply: Reply, verdict: Answer | Failure, cost_usd: float | None, server: str = ""
) -> Attempt:
    """All that came back, and what it cost; `server` is the key of the one that was asked."""
    request_id = reply.headers.get("x-request-id")
    kept = Attempt(
        finished_at=reply.started_at + reply.latency_ms,
        latency_ms=reply.latency_ms,
        http_status=reply.status,
        request_id=None if request_id is None else storable(request_id),
        model=verdict.model,
        finish_reason=verdict.finish_reason,
        usage=verdict.usage,
        cost_usd=cost_usd,
        server=server,
        response=verdict.text if isinstance(verdict, Answer) else None,
        vector=verdict.vector if isinstance(verdict, Answer) else None,
        body=verdict.rest if isinstance(verdict, Answer) else None,
    )
    return kept if isinstance(verdict, Answer) else _failed(kept, verdict, reply)


def _failed(kept: Attempt, failure: Failure, reply: Reply) -> Attempt:
    may_be_charged = failure.has_begun or failure.reason in MAY_BE_CHARGED
    return replace(
        kept, reason=failure.reason, error=failure.message,
        body=reply.body and reply.body[:_MOST_CHARS_OF_FAILURE],
        may_be_charged=reply.sent and may_be_charged,
    )  # fmt: skip
