"""What an error reply means: whose fault it is, and whether any other request would work. Pure.

An error may be plain text, may have its `code` as a number, and may be a 429 that means "no
credit": nothing here trusts its shape, and nothing raises. What each vendor calls things is in
vendor_words.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from batchgen.endpoints import Endpoint, endpoint_of_url
from batchgen.endpoints.usage import usage_of
from batchgen.items import Answer, Failure, Reason, Reply, Trouble
from batchgen.llm.announcements import asked_wait_s, parse_retry_after
from batchgen.llm.vendor_words import Says, says, status_of_minimax, status_of_name
from batchgen.text.foreign_json import dump_whole, shorten
from batchgen.text.json_text import storable

# "This model is only supported in v1/responses", "Did you mean to use v1/completions?"
_BETTER_ENDPOINT = re.compile(
    r"(?:only (?:supported|available)|did you mean to|must be) (?:used )?(?:in|at|via|with|use|to)"
    r"\W{0,3}(?:the )?/?v1(/[a-z]+(?:/completions)?)\b",
    re.IGNORECASE,
)
_NO_SUCH_API = re.compile(
    r"model does not support (?:the )?[\w ]{1,30} API\b|"
    r"does not support (?:embeddings|responses)\b|"
    r"not allowed to generate embeddings from this model",
    re.IGNORECASE,
)
# "Limit 30000, Requested 45712", "Limit 10000, Used 9500, Requested 700"
_LIMIT_AND_REQUESTED = re.compile(
    r"\blimit:? (\d[\d,]{0,11})\b.{0,40}?\brequested:? (\d[\d,]{0,11})\b", re.IGNORECASE
)
WRONG_ENDPOINT = "the server does not have this model at this endpoint."
UNKNOWN_MODEL = "the server does not know the model. Check model.model and model.base_url."
# Of many items one after another, in words that nobody knows.
REFUSES_NOW = (
    "the server refuses now what it answered before. Check model.model, its other parameters, and "
    "the account of the key."
)
# A conflict, a generation that failed (424, TGI), no room for a flexible tier (498, Groq).
_OF_THE_SERVER = (408, 409, 424, 425, 498)
_TROUBLES = {
    **dict.fromkeys((498, 502, 503, 529), Trouble.UNAVAILABLE),
    504: Trouble.TOO_LATE,
}


def read_error(reply: Reply, status: int, body: Any, endpoint: Endpoint) -> Answer | Failure:
    """The failure that an error is, or the answer that a slip of the model is; `status` is the one
    that counts, wherever the server put it."""
    if isinstance(body, list) and body:  # Gemini
        body = body[0]
    said = _error_message(body, reply.body)
    message, codes, usage = f"{status} {said}".strip(), tuple(_codes(body)), usage_of(body)
    if status in _FILTER_STATUSES and says(Says.FILTERED, codes, said):
        return Failure(Reason.REFUSAL, message, usage=usage)
    if status in (400, 422) and says(Says.SLIP, codes, said):
        return _slip(message, body)
    if 300 <= status < 400:
        message = f"{status} redirects to {shorten(reply.headers.get('location', 'elsewhere'))}"
    halt = _why_other_endpoint(status, message) or _why_halt(status, codes, said)
    if status == 429 and _is_larger_than_the_limit(said):
        return Failure(Reason.REJECTED, message, usage=usage)
    if status == 429:
        wait_s = None if halt else parse_retry_after(reply.headers, _received_at(reply))
        return Failure(Reason.RATE_LIMIT, message, retry_after_s=wait_s, halt=halt, usage=usage)
    if status >= 500 or status in _OF_THE_SERVER:
        # Some servers tell in every reply when a rate limit resets; that is not a wait for a 5xx.
        wait_s = asked_wait_s(reply.headers, _received_at(reply))
        return Failure(
            Reason.SERVER, message, retry_after_s=wait_s, halt=halt, usage=usage,
            trouble=_TROUBLES.get(status),
        )  # fmt: skip
    if 200 <= status < 300:
        return Failure(Reason.BAD_RESPONSE, f"not {endpoint.answer}: {message}", usage=usage)
    # A 403 may be about what the item says.
    is_sure = halt != _HALT[403] or says(Says.NOT_HERE, codes, said)
    return Failure(Reason.REJECTED, message, halt=halt, is_sure=is_sure, usage=usage)


def _is_larger_than_the_limit(said: str) -> bool:
    """Whether this request alone is: it would be refused for ever."""
    if not (found := _LIMIT_AND_REQUESTED.search(said)):
        return False
    limit, requested = (int(number.replace(",", "")) for number in found.groups())
    return requested > limit


def _why_halt(status: int, codes: tuple[str, ...], said: str) -> str | None:
    """Why no request at all would work, or None when the error concerns this request only."""
    if status in (401, 402):
        return _HALT[status]
    if 300 <= status < 400:
        return _HALT[300]
    for meaning, statuses, halt in _HALTS:
        if status in statuses and says(meaning, codes, said):
            is_passing = halt == 402 and says(Says.COMES_BACK, (), said)
            return None if is_passing else _HALT[halt]
    return _HALT[403] if status == 403 else None


def _slip(message: str, body: dict[str, Any]) -> Answer:
    """The model did not write what it was asked for, and the server checked that. What it wrote is
    an answer that its parser cannot use."""
    error = body.get("error")
    place = error if isinstance(error, dict) else body
    written = place.pop("failed_generation", None)
    text = storable(written) if isinstance(written, str) else ""
    said = {"index": 0, "message": {"role": "assistant", "content": None}, "finish_reason": None}
    rest = dump_whole({**body, "choices": [said]})
    return Answer(text, rest, None, None, usage_of(body), slip=message)


def _why_other_endpoint(status: int, message: str) -> str | None:
    """Why nothing would be answered at this endpoint, and which one is better if it says so."""
    better = _BETTER_ENDPOINT.search(message) if status in (400, 403, 404) else None
    if better and (endpoint := endpoint_of_url(better[1])):
        return f"{WRONG_ENDPOINT} Set model.endpoint: {endpoint.name}."
    is_wrong = status in (400, 403, 404, 501) and _NO_SUCH_API.search(message)
    return f"{WRONG_ENDPOINT} Check model.endpoint and model.model." if is_wrong else None


def _received_at(reply: Reply) -> datetime:
    return datetime.fromtimestamp((reply.started_at + reply.latency_ms) / 1000, UTC)


_HALT = {
    300: "the server sends us elsewhere. Set model.base_url to the real place.",
    400: "the server wants an API version that it knows. Set model.query, for example "
    "{api-version: 2024-10-21}.",
    401: "the server does not accept the API key. Check model.api_key (or OPENAI_API_KEY), or the "
    "key in model.headers.",
    402: "quota or credit is used up. Add credit with your provider.",
    403: "the API key may not do this. Check the key's permissions, project and region.",
    404: UNKNOWN_MODEL,
}


# Where a meaning is looked for, and the halt that it is; the first that fits counts.
_HALTS = (
    (Says.NO_KEY, (400, 403), 401),
    (Says.NO_CREDIT, (400, 403, 412, 429), 402),
    (Says.NOT_HERE, (400, 403), 403),
    (Says.WRONG_VERSION, (400, 404), 400),
    (Says.NO_MODEL, (400, 403, 404, 503), 404),
)
_FILTER_STATUSES = (400, 403, 421, 422, 451)


def _error_message(body: Any, raw: str | None) -> str:
    """What the server says is wrong, wherever in the body it says so."""
    error = body.get("error") if isinstance(body, dict) else None
    base = body.get("base_resp") if isinstance(body, dict) else None
    for place in (error, base, body):
        if isinstance(place, dict):
            for key in ("message", "detail", "error", "msg", "status_msg"):
                if isinstance(place.get(key), str) and place[key]:
                    return shorten(place[key])
        elif isinstance(place, str) and place:
            return shorten(place)
    return shorten(raw)


def _codes(body: Any) -> Iterator[str]:
    """What an error is called, wherever in the body it says so."""
    body = body if isinstance(body, dict) else {}
    base, error = body.get("base_resp"), body.get("error")
    if isinstance(base, dict) and is_code(base.get("status_code")):
        yield f"base_resp {base['status_code']}"
    inner = error.get("innererror") if isinstance(error, dict) else None
    for place in (error, inner, body):
        if isinstance(place, dict):
            codes = (place.get(name) for name in ("code", "type", "status"))
            yield from (str(code) for code in codes if isinstance(code, str) or is_code(code))


def status_told(body: dict[str, Any]) -> int | None:
    """The status of an error in a reply that says to be a success; 200: it is one, of a kind that
    nobody knows. None: there is no error in it."""
    if error := body.get("error"):
        return status_inside(error)
    base = body.get("base_resp")
    if isinstance(base, dict) and is_code(code := base.get("status_code")) and code:
        return status_of_minimax(code)
    if "code" in body and any(isinstance(body.get(name), str) for name in ("message", "msg")):
        return status_inside(body)
    return None


def is_code(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def status_inside(error: Any) -> int:
    """The real status: some proxies put it into the error's code while they answer 200, and in the
    middle of a stream an error has at best a name."""
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, str) and len(code) == 3 and code.isascii() and code.isdigit():
        code = int(code)
    if isinstance(code, int) and 400 <= code < 600:
        return code
    names = [error.get(name) for name in _NAMES] if isinstance(error, dict) else []
    told = (status_of_name(name) for name in names if isinstance(name, str))
    return next(filter(None, told), 200)


_NAMES = ("code", "type", "status", "error_type")
