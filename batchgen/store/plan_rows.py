"""The rows of calls and of results, by the names of their columns. Pure."""

from typing import TYPE_CHECKING

from batchgen.items import Attempt, Done, Fail, State
from batchgen.text.spans import spans_of

if TYPE_CHECKING:
    from batchgen.steps import Followed

Row = dict[str, object]
# Enumerations and truth values are written as the texts and numbers that they are: of anything else
# sqlite3 asks for each value how it is to be stored.


def result_row(
    seq: int, item_id: int, attempt_seq: int | None, end: Done | Fail, finished_at: int,
    *, parser_id: int | None, reparsed: bool = False, answer: str | None = None,
    made_of: bytes | None = None, followed: "Followed | None" = None,
) -> Row:  # fmt: skip
    """`answer` is the text that was parsed, if known: what stands in it is not stored twice."""
    done, parsed = isinstance(end, Done), end.parsed_json if isinstance(end, Done) else None
    spans = None if answer is None or parsed is None else spans_of(answer, parsed)
    row: Row = {
        "seq": seq,
        "item_id": item_id,
        "attempt_seq": attempt_seq,
        "state": str(State.DONE if done else State.FAILED),
        "reason": None if isinstance(end, Done) else str(end.reason),
        "error": None if isinstance(end, Done) else end.error,
        "parsed": parsed if spans is None else None,
        "spans": spans,
        "parser_id": parser_id,
        "reparsed": int(reparsed),
        "finished_at": finished_at,
    }
    if made_of is not None or followed is not None:
        row["made_of"] = made_of
        row |= followed_columns(followed)
    return row


def followed_columns(followed: "Followed | None") -> Row:
    if followed is None:
        return {"children": None, "passed_over": None, "passed_on": None}
    return {
        "children": len(followed.children), "passed_over": followed.passed_over,
        "passed_on": followed.passed_on,
    }  # fmt: skip


def attempt_row(
    seq: int, worker_id: int, item_id: int, epoch: int, attempt: Attempt, server_id: int | None
) -> Row:
    usage = attempt.usage
    return {
        "seq": seq,
        "item_id": item_id,
        "epoch": epoch,
        "worker_id": worker_id,
        "server_id": server_id,
        "finished_at": attempt.finished_at,
        "latency_ms": attempt.latency_ms,
        "outcome": attempt.outcome,
        "reason": attempt.reason,
        "error": attempt.error,
        "http_status": attempt.http_status,
        "request_id": attempt.request_id,
        "model": attempt.model,
        "finish_reason": attempt.finish_reason,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cost_usd": attempt.cost_usd,
        "response": attempt.response,
        "vector": attempt.vector,
        "body": attempt.body,
    }
