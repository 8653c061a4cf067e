"""What the replies of a provider of batches mean. Pure."""

from collections.abc import Callable
from typing import Any

from batchgen.endpoints import CHAT
from batchgen.items import Failure, Reason, Reply, Trouble
from batchgen.llm.batches.protocol import BatchServerError, Refused, Seen, Unclear
from batchgen.llm.error_replies import read_error, status_told
from batchgen.text.foreign_json import load_json, shorten

# Of an error, that the server may have done all the same what it was asked for.
_MAY_BE_DONE = (408, 409, 425)


def is_success(status: int | None) -> bool:
    return status is not None and 200 <= status < 300


def json_of(reply: Reply) -> Any:
    """The JSON of a reply that says to be a success. Raises BatchServerError for any other."""
    body = load_json(reply.body) if reply.fault is None and is_success(reply.status) else None
    if body is None:
        raise BatchServerError(failure_of(reply))
    return body


def made_of(reply: Reply, read: Callable[[Any], Seen | None]) -> Seen | Refused | Unclear:
    """What came of asking for a batch; `read` finds one in the body of a reply."""
    if reply.fault is not None:
        failure = failure_of(reply)
        return Unclear(failure.message) if reply.sent else Refused(failure)
    status = reply.status or 0
    if is_success(status):
        seen = read(load_json(reply.body))
        return seen or Unclear(failure_of(reply).message)
    failure = failure_of(reply)
    is_unclear = status >= 500 or status in _MAY_BE_DONE
    return Unclear(failure.message) if is_unclear else Refused(failure)


def failure_of(reply: Reply) -> Failure:
    """Of a reply that is not what was asked for."""
    if reply.fault is not None:
        trouble = None if reply.sent else Trouble.UNREACHABLE
        return Failure(reply.fault, shorten(reply.fault_message), trouble=trouble)
    status, body = reply.status or 0, load_json(reply.body)
    if is_success(status):
        told = status_told(body) if isinstance(body, dict) else None
        if told is None or is_success(told):
            said = shorten(reply.body) or "an empty body"
            return Failure(Reason.BAD_RESPONSE, f"{status}, but not what was asked for: {said}")
        status = told
    found = read_error(reply, status, body, CHAT)
    if isinstance(found, Failure):
        return found
    return Failure(Reason.REJECTED, f"{status} {shorten(reply.body)}")
