"""Reads what a server sent: is it an answer, and if not, what is wrong with it? Pure.

Servers lie in many ways (200 with an error inside, no JSON at all, half an answer), so nothing here
trusts the shape of a reply, and nothing raises.
"""

from batchgen.endpoints.chat import ErrorInside, read_completion
from batchgen.items import Answer, Failure, Reason, Reply, Trouble
from batchgen.llm.error_replies import read_error, status_inside
from batchgen.text.foreign_json import load_json, shorten


def read_reply(reply: Reply) -> Answer | Failure:
    """What a reply is: an answer, or a failure with its reason."""
    if reply.fault is not None:
        return Failure(reply.fault, shorten(reply.fault_message), trouble=_trouble_of(reply))
    body, status = load_json(reply.body), reply.status or 0
    if not 200 <= status < 300:
        return read_error(reply, status, body)
    if not isinstance(body, dict):
        shown = shorten(reply.body) or "an empty body"
        return Failure(Reason.BAD_RESPONSE, f"{status}, but not JSON: {shown}")
    error = body.get("error")
    if error and not body.get("choices"):
        return read_error(reply, status_inside(error), body)
    found = read_completion(reply, body)
    if isinstance(found, ErrorInside):
        return read_error(reply, status_inside(found.error), {**body, "error": found.error})
    return found


def _trouble_of(reply: Reply) -> Trouble | None:
    if reply.reused:
        return Trouble.STALE_CONNECTION
    unreachable = reply.fault is Reason.CONNECTION and not reply.sent
    return Trouble.UNREACHABLE if unreachable else None
