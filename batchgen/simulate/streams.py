"""A simulated answer as a stream: pieces of about five tokens, as servers send them. Pure."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from batchgen.simulate.answers import Chat

_PIECE_CHARS = 20
_NEVER_STREAMED = ("status", "reset", "hang", "html", "trickle")
_OF_CHUNKS = {"object": "chat.completion.chunk"}


def is_streamed(kind: str, chat: Chat | None) -> bool:
    """Whether the answer to a request, which is of a kind of the error mix, is a stream."""
    if kind in _NEVER_STREAMED or chat is None or chat.endpoint != "chat":
        return False
    return kind == "unasked_stream" or chat.body.get("stream") is True


def events_of(completion: bytes, request: Mapping[str, Any]) -> list[bytes]:
    """The events that say the same as a chat completion; its usage is among them if the request
    asks for it."""
    whole = json.loads(completion)
    usage = whole.pop("usage")
    head = {**whole, **_OF_CHUNKS}
    chunks = [{**head, "choices": [piece]} for piece in _pieces(whole["choices"] or [])]
    options = request.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        chunks = [{**chunk, "usage": None} for chunk in chunks]
        chunks.append({**head, "choices": [], "usage": usage})
    return [*map(_event, chunks), b"data: [DONE]\n\n"]


def error_event(message: str) -> bytes:
    return _event({"error": {"message": message, "type": "server_error", "code": 500}})


def _pieces(choices: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for choice in choices:
        rest = {name: value for name, value in choice.items() if name != "message"}
        going_on = {**rest, "finish_reason": None}
        yield {**going_on, "delta": {"role": "assistant", "content": "", "refusal": None}}
        for name in ("content", "refusal"):
            text = choice["message"].get(name) or ""
            for at in range(0, len(text), _PIECE_CHARS):
                yield {**going_on, "delta": {name: text[at : at + _PIECE_CHARS]}}
        yield {**rest, "delta": {}}


def _event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"
