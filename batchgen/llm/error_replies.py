"""What an error reply means: whose fault it is, and whether any other request would work. Pure.

An error may be plain text, may have its `code` as a number, and may be a 429 that means "no
credit": nothing here trusts its shape, and nothing raises.
"""

import re
from datetime import UTC, datetime
from typing import Any

from batchgen.endpoints import Endpoint, endpoint_of_url
from batchgen.endpoints.usage import usage_of
from batchgen.items import Failure, Reason, Reply, Trouble
from batchgen.llm.announcements import asked_wait_s, parse_retry_after
from batchgen.text.foreign_json import shorten

# Narrow on purpose: a halt stops everybody, and an error may quote the item's own text. "billing"
# alone is in ordinary rate limit messages of OpenAI and Groq, "current quota" in Gemini's.
_NO_KEY = re.compile(r"invalid_api_key|api_key_invalid|api key not valid", re.IGNORECASE)
_NO_CREDIT = re.compile(
    r"insufficient_quota|billing_not_active|billing[ _]hard[ _]limit|credit balance is too low|"
    r"insufficient[ _](?:credit|balance|funds)|out of credits",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(
    r"model_not_found|model_not_available|invalid_model|DeploymentNotFound|"
    r"(?:unknown|not a valid) model\b|invalid model(?: name\b|:)|"
    r"\bmodels?[ :=/]*\S{0,200} ?(?:is |was |does |do )?not (?:found|exist|available|supported)\b",
    re.IGNORECASE,
)
_WRONG_VERSION = re.compile(  # Azure's
    r"MissingApiVersion|UnsupportedApiVersion|api-version query parameter|"
    r"\bapi[- ]version\b.{0,60}(?:not supported|is required|invalid)",
    re.IGNORECASE,
)
_FILTERED = re.compile(
    r"content_filter|content_policy|content management policy|requires moderation|was flagged",
    re.IGNORECASE,
)
_NOT_HERE = re.compile(
    r"unsupported_country_region_territory|"
    r"\b(?:country|region|territory)[ ,\w]{0,40} not supported",
    re.IGNORECASE,
)
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
WRONG_ENDPOINT = "the server does not have this model at this endpoint."
UNKNOWN_MODEL = "the server does not know the model. Check model.model and model.base_url."
_UNAVAILABLE = frozenset({502, 503, 504, 529})


def read_error(reply: Reply, status: int, body: Any, endpoint: Endpoint) -> Failure:
    """The failure that an error is; `status` is the one that counts, wherever the server put
    it."""
    if isinstance(body, list) and body:  # Gemini
        body = body[0]
    message = f"{status} {_error_message(body, reply.body)}".strip()
    searched = f"{_error_code(body)} {message}"
    usage = usage_of(body)
    if status in (400, 403) and _FILTERED.search(searched):
        return Failure(Reason.REFUSAL, message, usage=usage)
    if 300 <= status < 400:
        message = f"{status} redirects to {shorten(reply.headers.get('location', 'elsewhere'))}"
    halt = _why_other_endpoint(status, message) or _why_halt(status, searched)
    if status == 429:
        wait_s = None if halt else parse_retry_after(reply.headers, _received_at(reply))
        return Failure(Reason.RATE_LIMIT, message, retry_after_s=wait_s, halt=halt, usage=usage)
    if status >= 500 or status in (408, 409):
        # Some servers tell in every reply when a rate limit resets; that is not a wait for a 5xx.
        wait_s = asked_wait_s(reply.headers, _received_at(reply))
        return Failure(
            Reason.SERVER, message, retry_after_s=wait_s, halt=halt, usage=usage,
            trouble=Trouble.UNAVAILABLE if status in _UNAVAILABLE else None,
        )  # fmt: skip
    if 200 <= status < 300:
        return Failure(Reason.BAD_RESPONSE, f"not {endpoint.answer}: {message}", usage=usage)
    # A 403 may be about what the item says.
    is_sure = halt != _HALT[403] or _NOT_HERE.search(searched) is not None
    return Failure(Reason.REJECTED, message, halt=halt, is_sure=is_sure, usage=usage)


def _why_halt(status: int, error: str) -> str | None:
    """Why no request at all would work, or None when the error concerns this request only."""
    if status in (401, 402):
        return _HALT[status]
    if status in (400, 403) and _NO_KEY.search(error):
        return _HALT[401]
    if status in (400, 403, 429) and _NO_CREDIT.search(error):
        return _HALT[402]
    if status in (400, 404) and _WRONG_VERSION.search(error):
        return _HALT[400]
    if status == 403:
        return _HALT[403]
    if status in (400, 404) and _NO_MODEL.search(error):
        return _HALT[404]
    return _HALT[300] if 300 <= status < 400 else None


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


def _error_message(body: Any, raw: str | None) -> str:
    """What the server says is wrong, wherever in the body it says so."""
    error = body.get("error") if isinstance(body, dict) else None
    for place in (error, body):
        if isinstance(place, dict):
            for key in ("message", "detail", "error", "msg"):
                if isinstance(place.get(key), str) and place[key]:
                    return shorten(place[key])
        elif isinstance(place, str) and place:
            return shorten(place)
    return shorten(raw)


def _error_code(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return ""
    codes = (error.get("code"), error.get("type"))
    return " ".join(code for code in codes if isinstance(code, str))


def status_inside(error: Any) -> int:
    """The real status, which some proxies put into the error's code while they answer 200."""
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, str) and len(code) == 3 and code.isascii() and code.isdigit():
        code = int(code)
    return code if isinstance(code, int) and 400 <= code < 600 else 200
