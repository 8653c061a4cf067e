"""Requests to the other endpoints, taken as chat completions, whose answers are then put into the
form that the endpoint has. Pure."""

import json
import struct
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from msgspec.structs import replace

from batchgen.endpoints import ENDPOINTS
from batchgen.simulate.answers import Chat, completion

_DIMENSIONS = 8
_MOST_DIMENSIONS = 4096
_BY_PATH = {one.path: one.name for one in ENDPOINTS.values()}
PROMPTS = {
    "/chat/completions": "a list 'messages'", "/responses": "'input'", "/completions": "'prompt'",
    "/embeddings": "'input'",
}  # fmt: skip
"""What a request to each path must have."""

Body = dict[str, Any]


def asked(path: str | None, body: Body) -> Chat | None:
    """The request to an endpoint; None if it is not a valid one, or there is no such endpoint."""
    name = _BY_PATH.get(path or "")
    if name is None or name == "chat":
        return Chat.of(body)
    prompt = _prompt(name, body)
    if not prompt:
        return None
    as_chat = {**body, "endpoint": name, "messages": prompt}
    if wanted := _format(body):
        as_chat["response_format"] = wanted
    chat = Chat.of(as_chat)
    return chat and replace(chat, endpoint=name)


def answer(chat: Chat, kind: str = "ok", text: str | None = None) -> bytes:
    """The answer of the endpoint that `chat` was asked at; `kind` and `text` as in `completion`."""
    if chat.endpoint == "chat":
        return completion(chat, kind, text)
    whole = json.loads(completion(chat, kind, text))
    return json.dumps(_FORMS[chat.endpoint](chat, whole, kind)).encode()


def _prompt(endpoint: str, body: Body) -> list[Any]:
    """As messages."""
    value = body.get({"completions": "prompt"}.get(endpoint, "input"))
    if endpoint == "responses" and isinstance(value, list):
        messages = [one for one in value if isinstance(one, dict) and "role" in one]
    else:
        messages = [{"role": "user", "content": one} for one in _texts(value)]
    instructions = body.get("instructions")
    is_given = endpoint == "responses" and isinstance(instructions, str) and messages
    return [{"role": "system", "content": instructions}, *messages] if is_given else messages


def _texts(value: Any) -> list[str]:
    """The texts of a prompt: a list may be one of texts, or of the tokens of one or several."""
    if isinstance(value, str):
        return [value] if value else []
    if not isinstance(value, list):
        return []
    if all(isinstance(one, int) for one in value):
        return [json.dumps(value)] if value else []
    return [one if isinstance(one, str) else json.dumps(one) for one in value]


def _format(body: Body) -> Body | None:
    """What Responses call the format of the text, as a response_format."""
    text = body.get("text")
    match text.get("format") if isinstance(text, dict) else None:
        case {"type": "json_schema", "schema": dict(schema)}:
            return {"type": "json_schema", "json_schema": {"schema": schema}}
        case {"type": "json_object"}:
            return {"type": "json_object"}
    return None


def _response(chat: Chat, whole: Body, kind: str) -> Body:
    choice = (whole["choices"] or [None])[0]
    incomplete = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(kind)
    output = None if whole["choices"] is None else [*_thoughts(chat), *_message(choice, incomplete)]
    usage = whole["usage"]
    return {
        "id": f"resp_{chat.digest.hex()[:24]}",
        "object": "response",
        "created_at": whole["created"],
        "status": "incomplete" if incomplete else "completed",
        "error": None,
        "incomplete_details": incomplete and {"reason": incomplete},
        "model": whole["model"],
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        },
    }


def _message(choice: Body | None, incomplete: str | None) -> list[Body]:
    if choice is None:
        return []
    text, refusal = choice["message"]["content"], choice["message"]["refusal"]
    part = {"type": "refusal", "refusal": refusal}
    if refusal is None:
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    status = "incomplete" if incomplete else "completed"
    return [
        {"type": "message", "id": "msg_1", "role": "assistant", "status": status, "content": [part]}
    ]


def _thoughts(chat: Chat) -> list[Body]:
    """A summary of the reasoning, if one is asked for."""
    wanted = chat.body.get("reasoning")
    if not isinstance(wanted, dict) or not wanted.get("summary"):
        return []
    summary = {"type": "summary_text", "text": "I looked at what was asked."}
    return [{"type": "reasoning", "id": "rs_1", "summary": [summary]}]


def _completion(chat: Chat, whole: Body, _kind: str) -> Body:
    choices = whole["choices"]
    texts = choices and [
        {
            "index": one["index"],
            "text": one["message"]["content"] or one["message"]["refusal"],
            "logprobs": None,
            "finish_reason": one["finish_reason"],
        }
        for one in choices
    ]
    made = {"id": f"cmpl_{chat.digest.hex()[:24]}", "object": "text_completion", "choices": texts}
    return {**whole, **made}


def _embeddings(chat: Chat, whole: Body, kind: str) -> Body:
    """Those of all inputs; in place of prose a text, which is no vector."""
    inputs = [message["content"] for message in chat.body["messages"]]
    data: list[Body] | None = [
        {"object": "embedding", "index": index, "embedding": _embedding(chat.body, text, kind)}
        for index, text in enumerate(inputs)
    ]
    tokens = whole["usage"]["prompt_tokens"]
    return {
        "object": "list",
        "data": {"no_choices": None, "empty": []}.get(kind, data),
        "model": whole["model"],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _embedding(body: Mapping[str, Any], text: str, kind: str) -> Any:
    if kind == "prose":
        return "I am not sure what you mean."
    wanted = body.get("dimensions")
    dimensions = min(wanted, _MOST_DIMENSIONS) if type(wanted) is int and wanted > 0 else 0
    vector = _unit_vector(text, dimensions or _DIMENSIONS)
    if body.get("encoding_format") == "base64":
        return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    return vector


def _unit_vector(text: str, dimensions: int) -> list[float]:
    """Of length one, as embeddings are, and the same for the same text."""
    key = text.encode("utf-8", "surrogatepass")
    blocks = range(-(-dimensions // 16))
    drawn = b"".join(sha256(key + block.to_bytes(2)).digest() for block in blocks)
    numbers = [value / 32768 for value in struct.unpack(f">{16 * len(blocks)}h", drawn)]
    numbers = numbers[:dimensions]
    length = sum(number * number for number in numbers) ** 0.5 or 1.0
    return [round(number / length, 7) for number in numbers]


_FORMS = {"responses": _response, "completions": _completion, "embeddings": _embeddings}
