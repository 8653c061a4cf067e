"""OpenAI's Responses: what an answer is, among the items of its output. Pure.

Each answer is asked for on its own: nothing is kept at the server (`store: false`) unless the
config says so.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from batchgen.endpoints.endpoint import Body, Endpoint, ErrorInside
from batchgen.endpoints.finish import is_cut_off
from batchgen.endpoints.responses_request import ORIGINS, params_of, prompt_of
from batchgen.endpoints.unusable import (
    ended_badly,
    nothing_in,
    refused,
    unusable,
    without_text,
)
from batchgen.endpoints.usage import usage_of
from batchgen.items import Answer, Failure, Reply
from batchgen.parameters import ENDPOINT_PATHS, NOT_OF_RESPONSES
from batchgen.text.foreign_json import text_or_none
from batchgen.text.json_text import storable

# What the codes of a failed response mean as statuses; all others are the request's fault.
_STATUS_OF_CODE = {"rate_limit_exceeded": 429, "server_error": 500, "vector_store_timeout": 500}
_NOT_ENDED = ("queued", "in_progress")


def _read(reply: Reply, body: Body) -> Answer | Failure | ErrorInside:
    status = text_or_none(body.get("status"))
    if status == "failed":
        return _error(body.get("error"), has_begun=bool(body.get("output")))
    if not isinstance(body.get("output"), list):
        return nothing_in(reply, body, "output")
    finish_reason = _finish_reason(status, body)
    text = storable("".join(_said(body)))
    refusal = "".join(_refusals(body))
    if refusal:
        return refused(refusal, text, finish_reason, body)
    if failure := ended_badly(finish_reason, body):
        return failure
    if not (text or is_cut_off(finish_reason) or any(_other_answers(body))):
        return unusable(f"{reply.status}, but {_lack(status, body)}", finish_reason, body)
    if text and (place := _only_text(body)) and place["text"] == text:
        place["text"] = None
    rest = without_text(body)
    if rest is None:
        return unusable(f"{reply.status}, but nested too deep", finish_reason, body)
    return Answer(text, rest, finish_reason, text_or_none(body.get("model")), usage_of(body))


def _error(error: Any, *, has_begun: bool) -> ErrorInside:
    code = error.get("code") if isinstance(error, dict) else None
    status = _STATUS_OF_CODE.get(code, 400) if isinstance(code, str) else 500
    return ErrorInside(error or "it failed without an error", status, has_begun)


def _finish_reason(status: str | None, body: Body) -> str | None:
    """Why it is incomplete, if it is; else its status."""
    details = body.get("incomplete_details")
    reason = text_or_none(details.get("reason")) if isinstance(details, dict) else None
    return reason or status


def _lack(status: str | None, body: Body) -> str:
    if status in _NOT_ENDED:
        return f"the answer is {status} still: batchgen does not come back for it"
    only = ", there is only reasoning in it" if any(_of_type(body, "reasoning")) else ""
    return f"the answer is empty{only}"


def _of_type(body: Body, *types: str) -> Iterator[Body]:
    output = body.get("output")
    for item in output if isinstance(output, list) else ():
        if isinstance(item, dict) and item.get("type") in types:
            yield item


def _other_answers(body: Body) -> Iterator[Body]:
    """What may stand in place of text: the calls of tools."""
    for item in body["output"]:
        if isinstance(item, dict) and str(item.get("type")) not in ("message", "reasoning"):
            yield item


def _messages(body: Body) -> list[Body]:
    """Those that are the answer: a model may comment on its work before."""
    messages = list(_of_type(body, "message"))
    final = [one for one in messages if one.get("phase") == "final_answer"]
    return final or messages


def _parts(body: Body, kind: str, member: str) -> Iterator[Body]:
    for message in _messages(body):
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") == kind and member in part:
                yield part


def _said(body: Body) -> Iterator[str]:
    texts = (part["text"] for part in _parts(body, "output_text", "text"))
    return (text for text in texts if isinstance(text, str))


def _only_text(body: Body) -> Body | None:
    """The part of the output in which all of the text is, if it is in one."""
    parts = list(_parts(body, "output_text", "text"))
    return parts[0] if len(parts) == 1 else None


def _refusals(body: Body) -> Iterator[str]:
    return (str(part["refusal"]) for part in _parts(body, "refusal", "refusal"))


def _whole(body: Body, text: str, _vector: Any) -> Body:
    place = _only_text(body)
    if text and place is not None and place["text"] is None:
        place["text"] = text
    return body


def _beside_text(body: Body) -> Mapping[str, Any]:
    """Tool calls in the form of chat completions, so that whoever reads an export knows one."""
    logprobs = [one for part in _parts(body, "output_text", "logprobs") for one in part["logprobs"]]
    return {
        "reasoning": "\n\n".join(_thoughts(body)),
        "tool_calls": list(_tool_calls(body)),
        "logprobs": {"content": logprobs} if logprobs else None,
    }


def _thoughts(body: Body) -> Iterator[str]:
    """What the model thought where the server tells it, else the summary of it."""
    for item in _of_type(body, "reasoning"):
        told = item.get("content") or item.get("summary")
        for part in told if isinstance(told, list) else ():
            if isinstance(part, dict) and isinstance(part.get("text"), str) and part["text"]:
                yield storable(part["text"])


def _tool_calls(body: Body) -> Iterator[Body]:
    for item in _of_type(body, "function_call", "custom_tool_call"):
        is_function = item["type"] == "function_call"
        kind, given = ("function", "arguments") if is_function else ("custom", "input")
        called = {"name": item.get("name"), given: item.get(given)}
        yield {"id": item.get("call_id"), "type": kind, kind: called}


RESPONSES = Endpoint(
    name="responses",
    path=ENDPOINT_PATHS["responses"],
    answer="a response",
    sign='"output"',
    prompt=prompt_of,
    prompt_members=("instructions", "input"),
    conversation="input",
    params=params_of,
    origins=ORIGINS,
    added=("store",),
    streaming=frozenset(("stream",)),
    refused=NOT_OF_RESPONSES,
    read=_read,
    whole=_whole,
    beside_text=_beside_text,
    has_seed=False,
)
