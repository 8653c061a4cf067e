"""Reads what a server sent: is it an answer, and if not, what is wrong with it? Pure.

Servers lie in many ways (200 with an error inside, an error as plain text, `code` as a number, a
429 that means "no credit"), so nothing here trusts the shape of a reply, and nothing raises.
"""

import email.utils
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from json import JSONDecodeError
from typing import Any, Literal

from batchgen.items import Answer, Failure, Reason, Reply, Trouble, Usage
from batchgen.limits import AnnouncedLimit
from batchgen.llm.message import text_of, thought_of
from batchgen.text.json_text import is_storable, storable

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
_FILTERED = re.compile(
    r"content_filter|content_policy|content management policy|requires moderation|was flagged",
    re.IGNORECASE,
)
UNKNOWN_MODEL = "the server does not know the model. Check model.model and model.base_url."
_UNAVAILABLE = frozenset({502, 503, 504, 529})
_LONGEST_WAIT_S = 6 * 3600.0  # a server that asks for more is wrong, or means "never"
_MESSAGE_CHARS = 500
# What no server can mean. Beyond these a number is taken for one that was not said: a sum of
# such would not fit where it is kept, and a limit would hold the work up for ever.
_MOST_TOKENS = 20_000_000  # twice the largest context of any model
_LARGEST_LIMIT = 1e12


def read_reply(reply: Reply) -> Answer | Failure:
    """What a reply is: an answer, or a failure with its reason."""
    if reply.fault is not None:
        return Failure(reply.fault, _shorten(reply.fault_message), trouble=_trouble_of(reply))
    body, status = _load(reply.body), reply.status or 0
    if not 200 <= status < 300:
        return _read_error(reply, status, body)
    if not isinstance(body, dict):
        shown = _shorten(reply.body) or "an empty body"
        return Failure(Reason.BAD_RESPONSE, f"{status}, but not JSON: {shown}")
    error = body.get("error")
    if error and not body.get("choices"):
        return _read_error(reply, _status_inside(error), body)
    return _read_completion(reply, body)


def _trouble_of(reply: Reply) -> Trouble | None:
    if reply.reused:
        return Trouble.STALE_CONNECTION
    unreachable = reply.fault is Reason.CONNECTION and not reply.sent
    return Trouble.UNREACHABLE if unreachable else None


def parse_retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """How many seconds a server asks to wait, or None when it does not say.

    In this order: `retry-after-ms`, `retry-after` as seconds or as an HTTP date, and the longest of
    the vendors' `x-ratelimit-reset*` ("1s", "6m0s", "250ms", seconds). Header names are lower-case.
    """
    wait_s = _asked_wait_s(headers, now)
    if wait_s is None:
        resets = [v for k, v in headers.items() if k.startswith("x-ratelimit-reset")]
        wait_s = max((s for s in map(_duration_s, resets) if s is not None), default=None)
    return None if wait_s is None else min(wait_s, _LONGEST_WAIT_S)


def announced_limit(
    headers: Mapping[str, str], of: Literal["requests", "tokens"]
) -> AnnouncedLimit | None:
    """What the server says of its limit of requests or tokens; None unless it says all of it."""
    names = _LIMIT_HEADERS[of]
    if names[0] not in headers:
        return None
    remaining, limit = (_number(headers.get(name), 1.0) for name in names[:2])
    reset_s = _duration_s(headers.get(names[2], ""))
    if remaining is None or not limit or reset_s is None or max(remaining, limit) > _LARGEST_LIMIT:
        return None
    return AnnouncedLimit(limit, remaining, reset_s)


_LIMIT_HEADERS = {
    of: tuple(f"x-ratelimit-{what}-{of}" for what in ("remaining", "limit", "reset"))
    for of in ("requests", "tokens")
}


def _asked_wait_s(headers: Mapping[str, str], now: datetime) -> float | None:
    wait_s = _number(headers.get("retry-after-ms"), 0.001)
    if wait_s is None:
        wait_s = _number(headers.get("retry-after"), 1.0)
    if wait_s is None:
        wait_s = _seconds_until(headers.get("retry-after"), now)
    return None if wait_s is None else min(max(wait_s, 0.0), _LONGEST_WAIT_S)


def _read_error(reply: Reply, status: int, body: Any) -> Failure:
    if isinstance(body, list) and body:  # Gemini
        body = body[0]
    message = f"{status} {_error_message(body, reply.body)}".strip()
    searched = f"{_error_code(body)} {message}"
    usage = _usage(body)
    if status in (400, 403) and _FILTERED.search(searched):
        return Failure(Reason.REFUSAL, message, usage=usage)
    if 300 <= status < 400:
        message = f"{status} redirects to {_shorten(reply.headers.get('location', 'elsewhere'))}"
    halt = _why_halt(status, searched)
    if status == 429 or halt == _HALT[402]:
        wait_s = None if halt else parse_retry_after(reply.headers, _received_at(reply))
        return Failure(Reason.RATE_LIMIT, message, retry_after_s=wait_s, halt=halt, usage=usage)
    if status >= 500 or status in (408, 409):
        # Some servers tell in every reply when a rate limit resets; that is not a wait for a 5xx.
        wait_s = _asked_wait_s(reply.headers, _received_at(reply))
        return Failure(
            Reason.SERVER, message, retry_after_s=wait_s, usage=usage,
            trouble=Trouble.UNAVAILABLE if status in _UNAVAILABLE else None,
        )  # fmt: skip
    if 200 <= status < 300:
        return Failure(Reason.BAD_RESPONSE, f"not a chat completion: {message}", usage=usage)
    return Failure(Reason.REJECTED, message, halt=halt, usage=usage)


def _why_halt(status: int, error: str) -> str | None:
    """Why no request at all would work, or None when the error concerns this request only."""
    if status in (401, 402, 403):
        return _HALT[status]
    if status == 400 and _NO_KEY.search(error):
        return _HALT[401]
    if status in (400, 429) and _NO_CREDIT.search(error):
        return _HALT[402]
    if status in (400, 404) and _NO_MODEL.search(error):
        return _HALT[404]
    return _HALT[300] if 300 <= status < 400 else None


def _received_at(reply: Reply) -> datetime:
    return datetime.fromtimestamp((reply.started_at + reply.latency_ms) / 1000, UTC)


_HALT = {
    300: "the server sends us elsewhere. Set model.base_url to the real place.",
    401: "the server does not accept the API key. Check model.api_key (or OPENAI_API_KEY).",
    402: "quota or credit is used up. Add credit with your provider.",
    403: "the API key may not do this. Check the key's permissions, project and region.",
    404: UNKNOWN_MODEL,
}


def _read_completion(reply: Reply, body: dict[str, Any]) -> Answer | Failure:
    usage, model = _usage(body), _text_or_none(body.get("model"))
    found = _first_choice(body)
    if found is None:
        problem = f"{reply.status}, but no choices in it: {_said(body) or _shorten(reply.body)}"
        return Failure(Reason.BAD_RESPONSE, problem, usage=usage, model=model)
    choice, message = found
    if error := choice.get("error"):  # OpenRouter: the model failed while it wrote
        return _read_error(reply, _status_inside(error), {**body, "error": error})
    finish_reason = _text_or_none(choice.get("finish_reason"))
    text = text_of(message)
    refusal = message.get("refusal")
    if refusal or finish_reason == "content_filter":
        words = refusal if isinstance(refusal, str) else ""
        problem = _shorten(words or text or "stopped by the content filter")
        return Failure(
            Reason.REFUSAL, problem, finish_reason=finish_reason, usage=usage, model=model
        )
    has_answer = text or finish_reason == "length" or any(map(message.get, _OTHER_ANSWERS))
    rest = _without_text(body, message, text) if has_answer else None
    if rest is None:
        problem = "nested too deep" if has_answer else _empty(message)
        return Failure(
            Reason.BAD_RESPONSE, f"{reply.status}, but {problem}",
            finish_reason=finish_reason, usage=usage, model=model,
        )  # fmt: skip
    return Answer(text, rest, finish_reason, model, usage)


def _said(body: dict[str, Any]) -> str:
    """What a server says where it should answer: some put it elsewhere than into an error."""
    base = body.get("base_resp")  # MiniMax
    said = base.get("status_msg") if isinstance(base, dict) else None
    return _shorten(said) if isinstance(said, str) else ""


def _empty(message: dict[str, Any]) -> str:
    only = ", there is only reasoning in it" if thought_of(message) else ""
    return f"the answer is empty{only}"


def _first_choice(body: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The first choice of a chat completion, and its message."""
    choices = body.get("choices") if isinstance(body, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    return (choice, message) if choice and isinstance(message, dict) else None


# What a message may hold in place of text.
_OTHER_ANSWERS = ("tool_calls", "function_call", "audio")


def _without_text(body: dict[str, Any], message: dict[str, Any], text: str) -> str | None:
    """The body as JSON, without the text, which is stored on its own. It reads back the same,
    except that NaN and the infinities, which JSON does not have, and numbers too long to be read
    become null. None: nested too deep."""
    if message.get("content") == text:
        message["content"] = None
    try:
        return _dump(body)
    except RecursionError:
        return None


def with_text(rest: str, text: str) -> str:
    """The whole body again, as JSON, from the two parts that an answer is stored as (`Answer.rest`
    and its text)."""
    body = json.loads(rest)
    message = body["choices"][0]["message"]
    was_cut_out = bool(text) or not any(map(message.get, _OTHER_ANSWERS))
    if was_cut_out and message.get("content", text) is None:
        message["content"] = text
    return _dump(body)


def parts_beside_text(rest: str | None) -> dict[str, str]:
    """What an answer has beside its text: its `reasoning`, `tool_calls` and `logprobs`, those that
    are there, each as JSON text. `rest` is `Answer.rest`, or the body of an unusable reply.

    An old `function_call` becomes a list of one tool call.
    """
    first = _first_choice(_load(rest))
    if first is None:
        return {}
    choice, message = first
    call = message.get("function_call")
    found = {
        "reasoning": thought_of(message),
        "tool_calls": message.get("tool_calls")
        or (call and [{"type": "function", "function": call}]),
        "logprobs": choice.get("logprobs"),
    }
    return {name: _dump(value) for name, value in found.items() if value}


def _dump(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return _dump(json.loads(json.dumps(value), parse_constant=lambda _: None))
    return text if is_storable(text) else json.dumps(value, separators=(",", ":"))


def _usage(body: Any) -> Usage:
    usage = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(usage, dict):
        return Usage()
    prompt = usage.get("prompt_tokens_details")
    completion = usage.get("completion_tokens_details")
    return Usage(
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        _count(prompt.get("cached_tokens")) if isinstance(prompt, dict) else None,
        _count(completion.get("reasoning_tokens")) if isinstance(completion, dict) else None,
    )


def _count(value: Any) -> int | None:
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS
    return value if fits else None


def _error_message(body: Any, raw: str | None) -> str:
    """What the server says is wrong, wherever in the body it says so."""
    error = body.get("error") if isinstance(body, dict) else None
    for place in (error, body):
        if isinstance(place, dict):
            for key in ("message", "detail", "error", "msg"):
                if isinstance(place.get(key), str) and place[key]:
                    return _shorten(place[key])
        elif isinstance(place, str) and place:
            return _shorten(place)
    return _shorten(raw)


def _error_code(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return ""
    codes = (error.get("code"), error.get("type"))
    return " ".join(code for code in codes if isinstance(code, str))


def _status_inside(error: Any) -> int:
    """The real status, which some proxies put into the error's code while they answer 200."""
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, str) and len(code) == 3 and code.isascii() and code.isdigit():
        code = int(code)
    return code if isinstance(code, int) and 400 <= code < 600 else 200


def _load(body: str | None) -> Any:
    """The body as JSON; None: it is none, or nested too deep. A number that is longer than Python
    reads spoils nothing else: it is taken for infinite."""
    try:
        try:
            return json.loads(body or "")
        except JSONDecodeError:
            return None
        except ValueError:
            return json.loads(body or "", parse_int=_int_or_infinite)
    except (ValueError, RecursionError):
        return None


def _int_or_infinite(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def _shorten(text: str | None) -> str:
    words = " ".join((text or "").split()) if len(text or "") < 100_000 else (text or "")[:1000]
    words = storable(words)
    return words if len(words) <= _MESSAGE_CHARS else words[: _MESSAGE_CHARS - 1] + "…"


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and is_storable(value) else None


def _number(text: str | None, unit_s: float) -> float | None:
    try:
        seconds = float(text or "") * unit_s
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _seconds_until(text: str | None, now: datetime) -> float | None:
    try:
        at = email.utils.parsedate_to_datetime(text or "")
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now.timestamp()
    except (ValueError, OverflowError, TypeError):
        return None


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@lru_cache(maxsize=1000)  # each reply has two, and most have the same
def _duration_s(text: str) -> float | None:
    parts = _DURATION.findall(text)
    if parts and _DURATION.sub("", text).strip() == "":
        told_s = sum(float(number) * _UNIT_S[unit] for number, unit in parts)
        return min(told_s, _LONGEST_WAIT_S)
    seconds = _number(text, 1.0)
    return seconds if seconds is not None and seconds < _LONGEST_WAIT_S else None
