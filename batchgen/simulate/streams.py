"""A simulated answer as a stream: pieces of about five tokens, as servers send them. Pure."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from batchgen.simulate.answers import Chat

_PIECE_CHARS = 20
_NEVER_STREAMED = ("status", "reset", "hang", "html", "trickle")
_OF_PIECES = {"chat.completion": "chat.completion.chunk"}


def is_streamed(kind: str, chat: Chat | None) -> bool:
    """Whether the answer to a request, which is of a kind of the error mix, is a stream."""
    if kind in _NEVER_STREAMED or chat is None or chat.endpoint == "embeddings":
        return False
    return kind == "unasked_stream" or chat.body.get("stream") is True


def events_of(answer: bytes, request: Mapping[str, Any]) -> list[bytes]:
    """The events that say the same as an answer; its usage is among them if the request asks for
    it, or if it is a response, which always has it."""
    whole = json.loads(answer)
    if whole["object"] == "response":
        return [*map(_event, _events_of_response(whole))]
    usage = whole.pop("usage")
    head = {**whole, "object": _OF_PIECES.get(whole["object"], whole["object"])}
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
        rest = {name: value for name, value in choice.items() if name not in ("message", "text")}
        going_on = {**rest, "finish_reason": None}
        if "text" in choice:
            yield from ({**going_on, "text": text} for text in _texts(choice["text"]))
            yield {**rest, "text": ""}
            continue
        yield {**going_on, "delta": {"role": "assistant", "content": "", "refusal": None}}
        for name in ("content", "refusal"):
            for text in _texts(choice["message"].get(name)):
                yield {**going_on, "delta": {name: text}}
        yield {**rest, "delta": {}}


def _events_of_response(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    for index, item in enumerate(whole["output"] or []):
        for part in item.get("content", ()):
            for text in _texts(part.get("text")):
                place = {"item_id": item["id"], "output_index": index, "content_index": 0}
                yield {"type": "response.output_text.delta", **place, "delta": text}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": f"response.{whole['status']}", "response": whole}


def _texts(text: str | None) -> Iterator[str]:
    text = text or ""
    return (text[at : at + _PIECE_CHARS] for at in range(0, len(text), _PIECE_CHARS))


def _event(value: dict[str, Any]) -> bytes:
    kind = str(value.get("type", ""))
    named = f"event: {kind}\n" if kind else ""
    return f"{named}data: {json.dumps(value)}\n\n".encode()
