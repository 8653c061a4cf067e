"""Chat completions: what a reply to /chat/completions holds. Pure."""

import json
from typing import Any, NamedTuple

from batchgen.endpoints.message import text_of, thought_of
from batchgen.endpoints.usage import usage_of
from batchgen.items import Answer, Failure, Reason, Reply
from batchgen.text.foreign_json import dump_whole, load_json, shorten, text_or_none


class ErrorInside(NamedTuple):
    """The server put an error where its answer should be."""

    error: Any


def read_completion(reply: Reply, body: dict[str, Any]) -> Answer | Failure | ErrorInside:
    """What the body of a successful reply is."""
    usage, model = usage_of(body), text_or_none(body.get("model"))
    found = _first_choice(body)
    if found is None:
        problem = f"{reply.status}, but no choices in it: {_said(body) or shorten(reply.body)}"
        return Failure(Reason.BAD_RESPONSE, problem, usage=usage, model=model)
    choice, message = found
    if error := choice.get("error"):  # OpenRouter: the model failed while it wrote
        return ErrorInside(error)
    finish_reason = text_or_none(choice.get("finish_reason"))
    text = text_of(message)
    refusal = message.get("refusal")
    if refusal or finish_reason == "content_filter":
        words = refusal if isinstance(refusal, str) else ""
        problem = shorten(words or text or "stopped by the content filter")
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
    return shorten(said) if isinstance(said, str) else ""


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
        return dump_whole(body)
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
    return dump_whole(body)


def parts_beside_text(rest: str | None) -> dict[str, str]:
    """What an answer has beside its text: its `reasoning`, `tool_calls` and `logprobs`, those that
    are there, each as JSON text. `rest` is `Answer.rest`, or the body of an unusable reply.

    An old `function_call` becomes a list of one tool call.
    """
    first = _first_choice(load_json(rest))
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
    return {name: dump_whole(value) for name, value in found.items() if value}
