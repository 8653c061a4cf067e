"""Replies that are no answer, as failures; and the JSON of those that are. Pure."""

from typing import Any

from batchgen.endpoints.usage import usage_of
from batchgen.items import Failure, Reason, Reply
from batchgen.text.foreign_json import dump_whole, shorten, text_or_none


def unusable(problem: str, finish_reason: str | None, body: dict[str, Any]) -> Failure:
    """A success that cannot be used."""
    return _failure(Reason.BAD_RESPONSE, problem, finish_reason, body)


def nothing_in(reply: Reply, body: dict[str, Any], member: str) -> str:
    """The problem of a success that lacks what its answer should be in."""
    return f"{reply.status}, but no {member} in it: {_said(body) or shorten(reply.body)}"


def refused(
    refusal: Any, text: str, finish_reason: str | None, body: dict[str, Any]
) -> Failure:  # fmt: skip
    """The model refused, or a filter stopped it; what it said of that is the message."""
    words = refusal if isinstance(refusal, str) else ""
    problem = shorten(words or text or "stopped by the content filter")
    return _failure(Reason.REFUSAL, problem, finish_reason, body)


def without_text(body: dict[str, Any]) -> str | None:
    """A body from which the text was taken, which is stored on its own, as JSON. It reads back the
    same, except that NaN and the infinities, which JSON does not have, and numbers too long to be
    read become null. None: nested too deep."""
    try:
        return dump_whole(body)
    except RecursionError:
        return None


def _failure(
    reason: Reason, problem: str, finish_reason: str | None, body: dict[str, Any]
) -> Failure:  # fmt: skip
    return Failure(
        reason, problem, finish_reason=finish_reason,
        usage=usage_of(body), model=text_or_none(body.get("model")),
    )  # fmt: skip


def _said(body: dict[str, Any]) -> str:
    """What a server says where it should answer: some put it elsewhere than into an error."""
    base = body.get("base_resp")  # MiniMax
    said = base.get("status_msg") if isinstance(base, dict) else None
    return shorten(said) if isinstance(said, str) else ""
