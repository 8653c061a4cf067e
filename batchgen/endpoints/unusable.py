"""Replies that are no answer, as failures; and the JSON of those that are. Pure."""

from collections.abc import Iterator
from typing import Any

from batchgen.endpoints.finish import Finish, finish_of, finish_reason_of
from batchgen.endpoints.usage import usage_of
from batchgen.items import Failure, Reason, Reply
from batchgen.text.foreign_json import dump_whole, shorten, text_or_none


def unusable(problem: str, finish_reason: str | None, body: dict[str, Any]) -> Failure:
    """A success that cannot be used, unless a filter is why."""
    if blocked := _blocked(body):
        return _failure(Reason.REFUSAL, blocked, finish_reason, body)
    return _failure(Reason.BAD_RESPONSE, problem, finish_reason, body)


def nothing_in(reply: Reply, body: dict[str, Any], member: str) -> Failure:
    """A success that lacks what its answer should be in."""
    choice = _first(body.get("choices"))
    finish_reason = finish_reason_of(choice.get("finish_reason"))
    if failure := ended_badly(finish_reason, body):
        return failure
    problem = f"{reply.status}, but no {member} in it: {_said(body) or shorten(reply.body)}"
    return unusable(problem, finish_reason, body)


def ended_badly(finish_reason: str | None, body: dict[str, Any]) -> Failure | None:
    """A filter stopped it, or the server broke it off; None: neither did. What came before is in
    the body only: what is said is the same for all whom it meets."""
    match finish_of(finish_reason):
        case Finish.FILTERED:
            problem = f"stopped by the content filter (finish_reason {finish_reason})"
            return _failure(Reason.REFUSAL, problem, finish_reason, body, has_begun=True)
        case Finish.BROKEN:
            problem = f"the server broke the answer off (finish_reason {finish_reason})"
            return _failure(Reason.SERVER, problem, finish_reason, body, has_begun=True)
    return None


def refused(
    refusal: Any, text: str, finish_reason: str | None, body: dict[str, Any]
) -> Failure:  # fmt: skip
    """The model refused, or a filter stopped it; what it said of that is the message."""
    words = refusal if isinstance(refusal, str) else ""
    problem = shorten(words or text or "stopped by the content filter")
    return _failure(Reason.REFUSAL, problem, finish_reason, body, has_begun=True)


def without_text(body: dict[str, Any]) -> str | None:
    """A body from which the text was taken, which is stored on its own, as JSON. It reads back the
    same, except that NaN and the infinities, which JSON does not have, and numbers too long to be
    read become null. None: nested too deep."""
    try:
        return dump_whole(body)
    except RecursionError:
        return None


def _failure(
    reason: Reason, problem: str, finish_reason: str | None, body: dict[str, Any],
    *, has_begun: bool = False,
) -> Failure:  # fmt: skip
    return Failure(
        reason, problem, finish_reason=finish_reason,
        usage=usage_of(body), model=text_or_none(body.get("model")),
        has_begun=has_begun,
    )  # fmt: skip


def _said(body: dict[str, Any]) -> str:
    """What a server says where it should answer: some put it elsewhere than into an error."""
    base = body.get("base_resp")  # MiniMax
    said = base.get("status_msg") if isinstance(base, dict) else None
    return shorten(said) if isinstance(said, str) else ""


def _blocked(body: dict[str, Any]) -> str | None:
    """Why a filter lets nothing through, if the body says so beside an answer that is empty."""
    for name in ("promptFeedback", "prompt_feedback"):  # Gemini
        feedback = body.get(name)
        for reason in ("blockReason", "block_reason"):
            if isinstance(feedback, dict) and feedback.get(reason):
                return shorten(f"blocked by the content filter: {feedback[reason]}")
    caught = ", ".join(_caught(body))
    return f"stopped by the content filter: {shorten(caught)}" if caught else None


def _caught(body: dict[str, Any]) -> Iterator[str]:
    """What Azure's filters found in the prompt or the answer."""
    for name in ("prompt_filter_results", "choices"):
        results = _first(body.get(name)).get("content_filter_results")
        for kind, result in results.items() if isinstance(results, dict) else ():
            if isinstance(result, dict) and result.get("filtered") is True:
                yield str(kind)


def _first(values: Any) -> dict[str, Any]:
    """The first of them, if it is an object."""
    first = values[0] if isinstance(values, list) and values else None
    return first if isinstance(first, dict) else {}
