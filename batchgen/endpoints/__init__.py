"""The kinds of request that a server answers, and what an answer to each holds.

This is the door. Behind it:

    endpoint                what an endpoint is
    chat, responses, completions, embeddings      the four of them
    responses_request       a request for a response, out of what chat completions are asked with
    message                 what the model says in a chat message, and what it thinks
    finish                  why a model stopped
    unusable                replies that are no answer
    usage                   the tokens that a call used
"""

from collections.abc import Mapping
from json import loads
from typing import Any
from urllib.parse import urlsplit

from batchgen.endpoints.chat import CHAT
from batchgen.endpoints.completions import COMPLETIONS
from batchgen.endpoints.embeddings import EMBEDDINGS
from batchgen.endpoints.endpoint import LIMITS, Endpoint, ErrorInside
from batchgen.endpoints.finish import Finish, finish_of, is_cut_off
from batchgen.endpoints.responses import RESPONSES
from batchgen.text.foreign_json import dump_whole, load_json

__all__ = [
    "CHAT", "COMPLETIONS", "EMBEDDINGS", "ENDPOINTS", "LIMITS", "Endpoint", "ErrorInside",
    "Finish", "endpoint_of_body", "endpoint_of_url", "finish_of", "is_cut_off",
    "parts_beside_text", "whole_body",
]  # fmt: skip

ENDPOINTS: Mapping[str, Endpoint] = {
    one.name: one for one in (CHAT, RESPONSES, COMPLETIONS, EMBEDDINGS)
}
"""By the names of the config."""


def endpoint_of_url(url: str) -> Endpoint | None:
    """The one that a line of an OpenAI batch is for."""
    path = urlsplit(url).path.rstrip("/")
    return next((one for one in ENDPOINTS.values() if path.endswith(one.path)), None)


def whole_body(rest: str, text: str, vector_json: str | None = None) -> str:
    """The whole body of a reply again, as JSON, from the parts that its answer is stored as."""
    body = loads(rest)
    endpoint = endpoint_of_body(body)
    vector = None if endpoint.has_text else loads(vector_json or "null")
    return dump_whole(endpoint.whole(body, text, vector))


def parts_beside_text(rest: str | None) -> dict[str, str]:
    """What an answer has beside its text: its `reasoning`, `tool_calls` and `logprobs`, those that
    are there, each as JSON text. `rest` is `Answer.rest`, or the body of an unusable reply."""
    body = load_json(rest)
    if not isinstance(body, dict):
        return {}
    found = endpoint_of_body(body).beside_text(body)
    return {name: dump_whole(value) for name, value in found.items() if value}


def endpoint_of_body(body: Mapping[str, Any]) -> Endpoint:
    """The endpoint that sent the body of an answer."""
    if isinstance(body.get("output"), list):
        return RESPONSES
    if isinstance(body.get("data"), list):
        return EMBEDDINGS
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    is_text = isinstance(choice, dict) and "message" not in choice and "text" in choice
    return COMPLETIONS if is_text else CHAT
