"""Reads what a server sent: is it an answer, and if not, what is wrong with it? Pure.

Servers lie in many ways (200 with an error inside, no JSON at all, half an answer), so nothing here
trusts the shape of a reply, and nothing raises.
"""

from msgspec.structs import replace

from batchgen.endpoints import Endpoint, ErrorInside
from batchgen.items import Answer, Failure, Reason, Reply, Trouble
from batchgen.llm.error_replies import read_error, status_inside, status_told
from batchgen.text.foreign_json import load_json, shorten


def read_reply(reply: Reply, endpoint: Endpoint) -> Answer | Failure:
    """What a reply of the endpoint is: an answer, or a failure with its reason."""
    if reply.fault is not None:
        return Failure(reply.fault, shorten(reply.fault_message), trouble=_trouble_of(reply))
    body, status = load_json(reply.body), reply.status or 0
    if not 200 <= status < 300:
        return read_error(reply, status, body, endpoint)
    if not isinstance(body, dict):
        shown = shorten(reply.body) or "an empty body"
        return Failure(Reason.BAD_RESPONSE, f"{status}, but not JSON: {shown}")
    if not any(map(body.get, _ANSWERS)) and body.get("status") != "failed":
        told = status_told(body)
        if told is not None:
            return read_error(reply, told, body, endpoint)
    found = endpoint.read(reply, body)
    if isinstance(found, ErrorInside):
        told = found.status or status_inside(found.error)
        error = read_error(reply, told, {**body, "error": found.error}, endpoint)
        return replace(error, has_begun=found.has_begun) if isinstance(error, Failure) else error
    return found


# Where an answer is: what stands beside it is no reason to throw it away.
_ANSWERS = ("choices", "output", "data")


def _trouble_of(reply: Reply) -> Trouble | None:
    if reply.reused:
        return Trouble.STALE_CONNECTION
    unreachable = reply.fault is Reason.CONNECTION and not reply.sent
    return Trouble.UNREACHABLE if unreachable else None
