"""Reads what a server sent: is it an answer, and if not, what is wrong with it? Pure.

Servers lie in many ways (200 with an error inside, an error as plain text, `code` as a number, a
429 that means "no credit"), so nothing here trusts a shape, and nothing raises.
"""

import email.utils
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from batchgen.items import Answer, Failure, Reason, Reply, Usage

_NO_CREDIT = re.compile(
    r"insufficient_quota|billing|insufficient[ _]credit|insufficient[ _]balance|"
    r"exceeded your current quota|credit balance|out of credits",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(
    r"model_not_found|(?:invalid|unknown) model|"
    r"model\b[^\n]{0,200}?\b(?:not found|not exist|does not exist|not supported|is not available)",
    re.IGNORECASE,
)
_FILTERED = re.compile(r"content_filter|content_policy|content management policy", re.IGNORECASE)
_LONGEST_WAIT_S = 6 * 3600.0  # a server that asks for more is wrong or means "never"
_MESSAGE_CHARS = 500


def read_reply(reply: Reply) -> Answer | Failure:
    """What a call brought: an answer, or the reason why there is none."""
    if reply.fault is not None:
        return Failure(
            reply.fault,
            reply.fault_message,
            down=reply.fault is Reason.CONNECTION and not reply.sent,
            stale=reply.reused,
        )
    body = _load(reply.body)
    if reply.status != 200:
        return _read_error(reply, reply.status or 0, body)
    if not isinstance(body, dict):
        return Failure(Reason.BAD_RESPONSE, f"200, but not JSON: {_shorten(reply.body)}")
    error = body.get("error")
    if error and not body.get("choices"):
        return _read_error(reply, _status_inside(error), body)
    return _read_completion(body)


def parse_retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """How many seconds a server asks to wait, or None when it does not say.

    In this order: `retry-after-ms`, `retry-after` as seconds or as an HTTP date, and the longest of
    the vendors' `x-ratelimit-reset*` ("1s", "6m0s", "250ms", seconds). Header names are lower-case.
    """
    wait_s = _number(headers.get("retry-after-ms"), 0.001)
    if wait_s is None:
        wait_s = _number(headers.get("retry-after"), 1.0)
    if wait_s is None:
        wait_s = _seconds_until(headers.get("retry-after"), now)
    if wait_s is None:
        resets = [v for k, v in headers.items() if k.startswith("x-ratelimit-reset")]
        wait_s = max((s for s in map(_duration_s, resets) if s is not None), default=None)
    return None if wait_s is None else min(max(wait_s, 0.0), _LONGEST_WAIT_S)


def _read_error(reply: Reply, status: int, body: Any) -> Failure:
    message = f"{status} {_error_message(body, reply.body)}".strip()
    code = _error_code(body)
    said = f"{code} {message}"
    usage = _usage(body)
    if status in (401, 403):
        return Failure(Reason.REJECTED, message, halt=_HALT[status], usage=usage)
    if status == 402 or (status == 429 and _NO_CREDIT.search(said)):
        return Failure(Reason.RATE_LIMIT, message, halt=_HALT[402], usage=usage)
    if status in (400, 404) and _NO_MODEL.search(said):
        return Failure(Reason.REJECTED, message, halt=_HALT[404], usage=usage)
    if status == 429:
        wait_s = parse_retry_after(reply.headers, _came_at(reply))
        return Failure(Reason.RATE_LIMIT, message, retry_after_s=wait_s, usage=usage)
    if status >= 500 or status in (408, 409):
        wait_s = parse_retry_after(reply.headers, _came_at(reply))
        return Failure(Reason.SERVER, message, retry_after_s=wait_s, usage=usage)
    if status == 400 and _FILTERED.search(said):
        return Failure(Reason.REFUSAL, message, usage=usage)
    if 300 <= status < 400:
        target = reply.headers.get("location", "elsewhere")
        message = f"{status} redirects to {_shorten(target)}; set model.base_url to the real place"
    if 200 <= status < 300:
        return Failure(Reason.BAD_RESPONSE, f"not a chat completion: {message}", usage=usage)
    return Failure(Reason.REJECTED, message, usage=usage)


def _came_at(reply: Reply) -> datetime:
    return datetime.fromtimestamp((reply.started_at + reply.latency_ms) / 1000, UTC)


_HALT = {
    401: "the server does not accept the API key. Check model.api_key (or OPENAI_API_KEY).",
    402: "quota or credit is used up. Add credit with your provider.",
    403: "the API key may not do this. Check the key's permissions, project and region.",
    404: "the server does not know the model. Check model.model and model.base_url.",
}


def _read_completion(body: dict[str, Any]) -> Answer | Failure:
    usage, model = _usage(body), _text_or_none(body.get("model"))
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return Failure(Reason.BAD_RESPONSE, "200, but no choices in it", usage=usage, model=model)
    finish_reason = _text_or_none(choice.get("finish_reason"))
    text = _content(message.get("content"))
    refusal = message.get("refusal")
    if refusal or finish_reason == "content_filter":
        said = _shorten(str(refusal or text or "stopped by the content filter"))
        return Failure(Reason.REFUSAL, said, finish_reason=finish_reason, usage=usage, model=model)
    if not text and finish_reason != "length" and not message.get("tool_calls"):
        return Failure(
            Reason.BAD_RESPONSE, "200, but the answer is empty",
            finish_reason=finish_reason, usage=usage, model=model,
        )  # fmt: skip
    return Answer(text, _without_text(body, message, text), finish_reason, model, usage)


def _without_text(body: dict[str, Any], message: dict[str, Any], text: str) -> str:
    """The body as JSON, without the text, which is stored on its own. Reads back the same."""
    if message.get("content") == text:
        message["content"] = None
    rest = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return rest if _storable(rest) else json.dumps(body, separators=(",", ":"))


def _content(content: Any) -> str:
    """The text of a message: a string, or the text parts of a list of parts, one after another."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str):
        return ""
    return content if _storable(content) else _mend_surrogates(content)


def _storable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _mend_surrogates(text: str) -> str:
    """UTF-8 cannot hold half a surrogate pair; pairs become their character, halves U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


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
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
    return value if fits else None


def _error_message(body: Any, raw: str | None) -> str:
    """What the server says is wrong, wherever it says it."""
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
    return f"{error.get('code')} {error.get('type')}"


def _status_inside(error: Any) -> int:
    """Some proxies answer 200 and put the real status into the error's code."""
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and 400 <= code < 600 else 200


def _load(body: str | None) -> Any:
    try:
        return json.loads(body or "")
    except (ValueError, RecursionError):
        return None


def _shorten(text: str | None) -> str:
    words = " ".join((text or "").split()) if len(text or "") < 100_000 else (text or "")[:1000]
    if not _storable(words):
        words = _mend_surrogates(words)
    return words if len(words) <= _MESSAGE_CHARS else words[: _MESSAGE_CHARS - 1] + "…"


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and _storable(value) else None


def _number(text: str | None, unit_s: float) -> float | None:
    try:
        seconds = float(text or "") * unit_s
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _seconds_until(text: str | None, now: datetime) -> float | None:
    try:
        at = email.utils.parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now.timestamp()


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _duration_s(text: str) -> float | None:
    parts = _DURATION.findall(text)
    if parts and _DURATION.sub("", text).strip() == "":
        return sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    seconds = _number(text, 1.0)
    return seconds if seconds is not None and seconds < _LONGEST_WAIT_S else None
