"""Completions of a text, as base models and older servers have them. Pure.

The prompt is the user template's text, and nothing else: there are no roles.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from batchgen.endpoints.endpoint import LIMITS, Body, Endpoint, ErrorInside, Message, text_alone
from batchgen.endpoints.finish import finish_reason_of, is_cut_off
from batchgen.endpoints.unusable import ended_badly, nothing_in, unusable, without_text
from batchgen.endpoints.usage import usage_of
from batchgen.items import Answer, Failure, Reply
from batchgen.parameters import ENDPOINT_PATHS, NOT_OF_COMPLETIONS
from batchgen.text.foreign_json import text_or_none
from batchgen.text.json_text import storable


def _prompt(messages: Sequence[Message]) -> Body:
    return {"prompt": text_alone(messages)}


def _params(params: Mapping[str, Any]) -> Body:
    """Of log probabilities it takes the number, where chat says whether and how many."""
    asked = dict(params)
    if (limit := asked.pop("max_completion_tokens", None)) is not None:
        asked["max_tokens"] = limit
    wanted, number = asked.get("logprobs"), asked.pop("top_logprobs", None)
    if isinstance(wanted, bool):
        del asked["logprobs"]
        if wanted:
            asked["logprobs"] = 1 if number is None else number
    return asked


def _read(reply: Reply, body: Body) -> Answer | Failure | ErrorInside:
    choice = _first_choice(body)
    if choice is None:
        return nothing_in(reply, body, "choices with a text")
    if error := choice.get("error"):
        return ErrorInside(error, has_begun=bool(choice.get("text")))
    finish_reason = finish_reason_of(choice.get("finish_reason"))
    text = storable(choice["text"])
    if failure := ended_badly(finish_reason, body):
        return failure
    if not text and not is_cut_off(finish_reason):
        return unusable(f"{reply.status}, but the answer is empty", finish_reason, body)
    if text and choice["text"] == text:
        choice["text"] = None
    rest = without_text(body)
    if rest is None:
        return unusable(f"{reply.status}, but nested too deep", finish_reason, body)
    return Answer(text, rest, finish_reason, text_or_none(body.get("model")), usage_of(body))


def _first_choice(body: Body) -> Body | None:
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    is_one = isinstance(choice, dict) and (isinstance(choice.get("text"), str) or "error" in choice)
    return choice if is_one else None


def _whole(body: Body, text: str, _vector: Any) -> Body:
    choice = body["choices"][0]
    if text and choice.get("text") is None:
        choice["text"] = text
    return body


def _beside_text(body: Body) -> Mapping[str, Any]:
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    return {"logprobs": choice.get("logprobs")} if isinstance(choice, dict) else {}


COMPLETIONS = Endpoint(
    name="completions",
    path=ENDPOINT_PATHS["completions"],
    answer="a completion",
    sign='"choices"',
    prompt=_prompt,
    prompt_members=("prompt",),
    params=_params,
    streaming=frozenset(("stream", "stream_options")),
    origins={"max_tokens": LIMITS[1:2], "logprobs": ("top_logprobs",)},
    refused=NOT_OF_COMPLETIONS,
    read=_read,
    whole=_whole,
    beside_text=_beside_text,
)
