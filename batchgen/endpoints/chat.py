"""Chat completions. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from batchgen.endpoints.endpoint import Body, Endpoint, ErrorInside, Message
from batchgen.endpoints.finish import finish_reason_of, is_cut_off
from batchgen.endpoints.message import text_of, thought_of
from batchgen.endpoints.unusable import (
    ended_badly,
    nothing_in,
    refused,
    unusable,
    without_text,
)
from batchgen.endpoints.usage import usage_of
from batchgen.items import Answer, Failure, Reply
from batchgen.parameters import ENDPOINT_PATHS, OF_OTHER_ENDPOINTS
from batchgen.text.foreign_json import text_or_none

# What a message may hold in place of text.
_OTHER_ANSWERS = ("tool_calls", "function_call", "audio")


def _prompt(messages: Sequence[Message]) -> Body:
    return {"messages": list(messages)}


def _read(reply: Reply, body: Body) -> Answer | Failure | ErrorInside:
    usage, model = usage_of(body), text_or_none(body.get("model"))
    found = _first_choice(body)
    if found is None:
        return nothing_in(reply, body, "choices")
    choice, message = found
    if error := choice.get("error"):  # OpenRouter: the model failed while it wrote
        return ErrorInside(error, has_begun=bool(text_of(message) or thought_of(message)))
    finish_reason = finish_reason_of(choice.get("finish_reason"))
    text = text_of(message)
    if refusal := message.get("refusal"):
        return refused(refusal, text, finish_reason, body)
    if failure := ended_badly(finish_reason, body):
        return failure
    if not (text or is_cut_off(finish_reason) or any(map(message.get, _OTHER_ANSWERS))):
        only = ", there is only reasoning in it" if thought_of(message) else ""
        return unusable(f"{reply.status}, but the answer is empty{only}", finish_reason, body)
    if message.get("content") == text:
        message["content"] = None
    rest = without_text(body)
    if rest is None:
        return unusable(f"{reply.status}, but nested too deep", finish_reason, body)
    return Answer(text, rest, finish_reason, model, usage)


def _first_choice(body: Body) -> tuple[Body, Body] | None:
    """The first choice of a chat completion, and its message."""
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    return (choice, message) if choice and isinstance(message, dict) else None


def _whole(body: Body, text: str, _vector: Any) -> Body:
    message = body["choices"][0]["message"]
    was_cut_out = bool(text) or not any(map(message.get, _OTHER_ANSWERS))
    if was_cut_out and message.get("content", text) is None:
        message["content"] = text
    return body


def _beside_text(body: Body) -> Mapping[str, Any]:
    """An old `function_call` becomes a list of one tool call."""
    first = _first_choice(body)
    if first is None:
        return {}
    choice, message = first
    call = message.get("function_call")
    return {
        "reasoning": thought_of(message),
        "tool_calls": message.get("tool_calls")
        or (call and [{"type": "function", "function": call}]),
        "logprobs": choice.get("logprobs"),
    }


CHAT = Endpoint(
    name="chat",
    path=ENDPOINT_PATHS["chat"],
    answer="a chat completion",
    sign='"choices"',
    prompt=_prompt,
    prompt_members=("messages",),
    conversation="messages",
    streaming=frozenset(("stream", "stream_options")),
    refused=OF_OTHER_ENDPOINTS,
    read=_read,
    whole=_whole,
    beside_text=_beside_text,
)
