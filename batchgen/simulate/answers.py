"""The answers of the simulated model, which depend on the request alone. Pure."""

import json
import math
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from msgspec import Struct

from batchgen.simulate.fitting import fitting_value
from batchgen.simulate.verdicts import (
    Scale,
    asked_list,
    scale_of,
    score_on,
    shown_object,
    wants_number_alone,
    yes_or_no,
)
from batchgen.text.json_text import canonical_json

# Fixed, since the time of day would make two equal requests differ.
_CREATED = 1_700_000_000
_MAX_CHOICES = 128
_NOT_ASKED = ("messages", "stream", "stream_options")  # they decide nothing of the answer
_QUOTE_LENGTH = 60
_TAG = re.compile(r"<([A-Za-z][\w.-]*)>")
_NOUNS = ("river", "garden", "letter", "harbour", "window", "engine", "market", "orchard")
_VERBS = ("follows", "answers", "crosses", "remembers", "measures", "repairs", "finds", "keeps")
_ADJECTIVES = ("quiet", "early", "narrow", "patient", "distant", "simple", "careful", "warm")


class Chat(Struct, frozen=True):
    """A valid request. `text` is its last user message, `key` identifies its messages, and `digest`
    everything that decides the answer. `endpoint` is where it was asked."""

    body: Mapping[str, Any]
    text: str
    key: str
    digest: bytes
    endpoint: str = "chat"

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "Chat | None":
        """None if `body` has no list of messages, or holds what JSON cannot (NaN, 1e999)."""
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            return None
        if not all(isinstance(message, dict) for message in messages):
            return None
        rest = {name: value for name, value in body.items() if name not in _NOT_ASKED}
        try:
            key, rest_hash = _hash(messages), _hash(rest)
        except (ValueError, RecursionError):
            return None
        digest = sha256(key + rest_hash).digest()
        return cls(body, _last_user_text(messages), key.hex()[:16], digest)


def json_object(raw: bytes) -> dict[str, Any]:
    """`raw` as a JSON object; {} if it is not one."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def completion(chat: Chat, kind: str = "ok", text: str | None = None) -> bytes:
    """The chat completion for `chat`; `text`, if given, is its text.

    `kind` is `ok` or the way in which the answer is unusable: `no_choices`, `empty`, `refusal`,
    `content_filter`, `length`, or `prose`, which has none of the form that was asked for.
    """
    write = _plain_text if kind == "prose" else _text
    texts = [write(chat, index) if text is None else text for index in range(_choices(chat.body))]
    choices = [_choice(index, kind, text) for index, text in enumerate(texts)]
    prompt_tokens = _tokens("".join(_texts(chat.body["messages"])))
    completion_tokens = sum(_tokens(choice["message"]["content"] or "") for choice in choices)
    body = {
        "id": f"chatcmpl-{chat.digest.hex()[:24]}",
        "object": "chat.completion",
        "created": _CREATED,
        "model": chat.body.get("model", "simulated"),
        "choices": {"no_choices": None, "empty": []}.get(kind, choices),
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }
    return json.dumps(body).encode()


def count_tokens(chat: Chat) -> int:
    """The tokens, in and out, that the answer will say it used."""
    texts = [_text(chat, index) for index in range(_choices(chat.body))]
    return _tokens("".join(_texts(chat.body["messages"]))) + sum(map(_tokens, texts))


def models() -> bytes:
    """The answer to GET /models."""
    model = {"id": "simulated", "object": "model", "created": _CREATED, "owned_by": "batchgen"}
    return json.dumps({"object": "list", "data": [model]}).encode()


def _hash(value: object) -> bytes:
    return sha256(canonical_json(value).encode("utf-8", "surrogatepass")).digest()


def _choice(index: int, kind: str, text: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    finish_reason = "stop"
    if kind == "refusal":
        message |= {"content": None, "refusal": "I can't help with that."}
    elif kind == "content_filter":
        message["content"] = ""
        finish_reason = "content_filter"
    elif kind == "length":
        message["content"] = text[: len(text) // 2]
        finish_reason = "length"
    return {"index": index, "message": message, "logprobs": None, "finish_reason": finish_reason}


def _choices(body: Mapping[str, Any]) -> int:
    n = body.get("n")
    return min(n, _MAX_CHOICES) if type(n) is int and n > 0 else 1


def _text(chat: Chat, index: int) -> str:
    digest = sha256(chat.digest + bytes([index])).digest()
    if schema := _schema(chat.body):
        return json.dumps(fitting_value(schema, digest, _sentence), ensure_ascii=False)
    if _wants_json_only(chat.body):
        return _json_text(chat, digest)
    asked = _asked_text(chat)
    if "JSON" in asked:
        text = _list_text(asked, digest) or _json_text(chat, digest)
    else:
        scale = scale_of(asked)
        text = _verdict(asked, digest, scale) or _prose(digest, _quote(chat.text), scale)
    tag = next(filter(None, map(_TAG.search, _texts(chat.body["messages"]))), None)
    return f"<{tag[1]}>{text}</{tag[1]}>" if tag else text


def _plain_text(chat: Chat, index: int) -> str:
    digest = sha256(chat.digest + bytes([index])).digest()
    return f"I am not sure what you mean. {_sentence(digest)}"


def _schema(body: Mapping[str, Any]) -> dict[str, Any]:
    """The schema that the answer is to fit; {}: none."""
    match body.get("response_format"):
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return schema
    return {}


def _wants_json_only(body: Mapping[str, Any]) -> bool:
    wanted = body.get("response_format")
    return isinstance(wanted, dict) and wanted.get("type") in ("json_object", "json_schema")


def _asked_text(chat: Chat) -> str:
    """Where a prompt may say what form the answer is to have: what the system says, and the last
    user message, but nothing of what was said before it."""
    system = [one for one in chat.body["messages"] if one.get("role") in ("system", "developer")]
    return "\n".join([*_texts(system), chat.text])


def _list_text(asked: str, digest: bytes) -> str | None:
    return asked_list(asked, digest, _sentence)


def _verdict(asked: str, digest: bytes, scale: Scale | None) -> str | None:
    if (word := yes_or_no(asked, digest)) is not None:
        return word
    return str(score_on(scale, digest)) if scale and wants_number_alone(asked) else None


def _json_text(chat: Chat, digest: bytes) -> str:
    """An object with the keys that the prompt shows, or with some of our own."""
    asked = _asked_text(chat)
    if (shown := shown_object(asked, digest, _sentence)) is not None:
        return shown
    quote, scale = _quote(chat.text), scale_of(asked) or (0, 100)
    score = digest[0] % 101 if scale == (0, 100) else score_on(scale, digest)
    return canonical_json({"answer": _prose(digest, quote), "quote": quote, "score": score})


def _prose(digest: bytes, quote: str, scale: Scale | None = None) -> str:
    lines = [f'You wrote "{quote}".']
    lines += [_sentence(digest[at:]) for at in range(1, 13 + 4 * (digest[0] % 3), 4)]
    if scale:
        lines.append(f"Score: {score_on(scale, digest)}")
    return "\n".join(lines)


def _sentence(drawn: bytes) -> str:
    adjective, noun, verb, other = drawn[:4]
    return (
        f"The {_ADJECTIVES[adjective % 8]} {_NOUNS[noun % 8]} {_VERBS[verb % 8]} "
        f"the {_NOUNS[other % 8]}."
    )


def _quote(text: str) -> str:
    """The start of `text` as one line, without what a parser or an encoder could stumble on."""
    start = re.sub(r'[<>"\ud800-\udfff]', "", text[: 2 * _QUOTE_LENGTH])
    return " ".join(start.split())[:_QUOTE_LENGTH]


def _tokens(text: str) -> int:
    return math.ceil(len(text) / 4)


def _last_user_text(messages: list[dict[str, Any]]) -> str:
    users = [message for message in messages if message.get("role") == "user"]
    return "\n".join(_texts((users or messages)[-1:]))


def _texts(messages: list[dict[str, Any]]) -> list[str]:
    """The texts of the messages, those among content parts included."""
    return [text for message in messages for text in _texts_in(message.get("content"))]


def _texts_in(content: object) -> list[str]:
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return [text for text in texts if isinstance(text, str)]
