"""A request for a response, out of messages and parameters as chat completions have them. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from batchgen.endpoints.endpoint import LIMITS, Body, Message

ORIGINS: Mapping[str, tuple[str, ...]] = {
    "max_output_tokens": LIMITS[:2],
    "text": ("response_format", "verbosity"),
    "reasoning": ("reasoning_effort",),
    "include": ("logprobs",),
}
"""By the name of a parameter: those of chat completions that go into it."""

_LOGPROBS = "message.output_text.logprobs"


def prompt_of(messages: Sequence[Message]) -> Body:
    """A text at the beginning that is the system's becomes the instructions. A text of the user
    that stands alone is the input, several messages are a list."""
    first = messages[0] if messages else {}
    content = first.get("content")
    is_system = first.get("role") in ("system", "developer") and isinstance(content, str)
    instructions = {"instructions": content} if is_system and len(messages) > 1 else {}
    rest = messages[1:] if instructions else messages
    is_text = len(rest) == 1 and rest[0].keys() == {"role", "content"}
    if is_text and rest[0]["role"] == "user" and isinstance(rest[0]["content"], str):
        return {**instructions, "input": rest[0]["content"]}
    return {**instructions, "input": [item for message in rest for item in _items(message)]}


def _items(message: Message) -> Iterator[Body]:
    """The items that a message becomes: it, and the calls of tools that it has."""
    role, content = message.get("role"), message.get("content")
    if role == "tool":
        output = content if isinstance(content, str) else _parts(content)
        yield {
            "type": "function_call_output",
            "call_id": message.get("tool_call_id"), "output": output,
        }  # fmt: skip
        return
    if content:
        said = content if isinstance(content, str) else _said(content, role)
        yield {"type": "message", "role": role, "content": said}
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        yield {
            "type": "function_call", "call_id": call.get("id"),
            "name": function.get("name"), "arguments": function.get("arguments"),
        }  # fmt: skip


def _said(content: Any, role: Any) -> Any:
    """What the model said itself is one text: parts of it would need the ids of an answer."""
    if role == "assistant" and all(isinstance(part, dict) for part in content):
        texts = [part.get("text", part.get("refusal")) for part in content]
        if all(isinstance(text, str) for text in texts):
            return "".join(texts)
    return _parts(content)


def _parts(content: Any) -> list[Any]:
    return [_part(part) if isinstance(part, dict) else part for part in content or ()]


def _part(part: Body) -> Body:
    match part:
        case {"type": "text", "text": text}:
            return {"type": "input_text", "text": text}
        case {"type": "image_url", "image_url": image}:
            image = image if isinstance(image, dict) else {"url": image}
            detail = image.get("detail", "auto")
            return {"type": "input_image", "image_url": image.get("url"), "detail": detail}
        case {"type": "file", "file": dict(file)}:
            return {"type": "input_file", **file}
    return part


def params_of(params: Mapping[str, Any]) -> Body:
    """The parameters as Responses call them. Its own names win over those of chat completions."""
    asked = {name: value for name, value in params.items() if name not in _TRANSLATED}
    limits = [params[name] for name in reversed(LIMITS) if name in params]
    if limits:
        asked["max_output_tokens"] = limits[0]
    text = {**_text(params), **_mapping(params.get("text"))}
    reasoning = _mapping(params.get("reasoning"))
    if "reasoning_effort" in params:
        reasoning = {"effort": params["reasoning_effort"], **reasoning}
    asked |= {"text": text} if text else {}
    asked |= {"reasoning": reasoning} if reasoning else {}
    if params.get("logprobs"):
        asked["include"] = [*params.get("include", ()), _LOGPROBS]
    if "tools" in params:
        asked["tools"] = [_flat(tool) for tool in params["tools"]]
    if "tool_choice" in params:
        asked["tool_choice"] = _flat(params["tool_choice"])
    return {**asked, "store": params.get("store", False)}


_TRANSLATED = frozenset(
    (*LIMITS, "response_format", "verbosity", "reasoning_effort", "logprobs", "n")
)


def _text(params: Mapping[str, Any]) -> Body:
    text: Body = {}
    match params.get("response_format"):
        case {"type": "json_schema", "json_schema": dict(described)}:
            text["format"] = {"type": "json_schema", **described}
        case dict(other):
            text["format"] = other
    if "verbosity" in params:
        text["verbosity"] = params["verbosity"]
    return text


def _flat(tool: Any) -> Any:
    """A function's description stands beside its type, not in an object of its own."""
    match tool:
        case {"type": "function", "function": dict(described)}:
            return {"type": "function", **described}
        case {"type": "custom", "custom": dict(described)}:
            return {"type": "custom", **described}
    return tool


def _mapping(value: Any) -> Body:
    return {**value} if isinstance(value, dict) else {}
