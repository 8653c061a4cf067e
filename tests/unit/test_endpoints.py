"""The requests of each endpoint, checked by the types of the openai package, and what a reply of it
is taken for."""

import base64
import json
import struct
from collections.abc import Mapping
from typing import Any

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming as Chat
from openai.types.completion_create_params import CompletionCreateParamsNonStreaming as Completion
from openai.types.embedding_create_params import EmbeddingCreateParams
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from openai.types.responses.tool_param import ToolParam
from pydantic import TypeAdapter

from batchgen.endpoints import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    ENDPOINTS,
    endpoint_of_body,
    endpoint_of_url,
    parts_beside_text,
    whole_body,
)
from batchgen.errors import TemplateError
from batchgen.items import Answer, Failure, ItemInput, Reason, Recipe, Reply, Template, Usage
from batchgen.llm.replies import read_reply
from batchgen.pool import read_item
from batchgen.prompts import Renderer, with_feedback

RESPONSES = ENDPOINTS["responses"]
TYPES: Mapping[str, Any] = {
    "chat": Chat,
    "responses": ResponseCreateParamsNonStreaming,
    "completions": Completion,
    "embeddings": EmbeddingCreateParams,
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
DESCRIBED = {"name": "answer", "schema": SCHEMA, "strict": False}
FORMAT = {"type": "json_schema", "json_schema": DESCRIBED}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA, "strict": True}}
FLAT_TOOL = {"type": "function", "name": "f", "parameters": SCHEMA, "strict": True}


def body_of(
    endpoint: str, given: dict[str, Any], *, system: str | None = None, sample: int | None = None,
    **params: Any,
) -> dict[str, Any]:  # fmt: skip
    """The request of an item, which openai's own types accept."""
    template = None if system is None else Template(system, name="s.txt")
    recipe = Recipe(template, Template("Say {word}"), "m", params, endpoint)
    item = read_item(given, "here")
    renderer = Renderer(recipe)
    renderer.check(item, "here")
    body = renderer.request_body(item, sample)
    asked_at = TYPES[renderer.endpoint_of(item).name]
    known = {name for one in asked_at.__mro__ for name in getattr(one, "__annotations__", ())}
    assert body.keys() <= known | set(asked_at.__annotations__), body
    TypeAdapter(asked_at).validate_python(body)
    for tool in body.get("tools", ()):  # an Iterable, which pydantic does not look into
        TypeAdapter(ToolParam if asked_at is not Chat else Any).validate_python(tool)
    return body


WORD = {"word": "tea"}


# Requests


def test_a_response_is_asked_for_with_instructions_and_input() -> None:
    assert body_of("responses", WORD, system="Be dry.", max_tokens=9, temperature=0.5) == {
        "model": "m", "instructions": "Be dry.", "input": "Say tea",
        "temperature": 0.5, "max_output_tokens": 9, "store": False,
    }  # fmt: skip


def test_what_chat_calls_otherwise_is_called_as_responses_does() -> None:
    body = body_of(
        "responses", WORD, response_format=FORMAT, verbosity="low", reasoning_effort="high",
        reasoning={"summary": "auto"}, tools=[TOOL], logprobs=True, top_logprobs=3,
        tool_choice={"type": "function", "function": {"name": "f"}}, store=True, n=1,
    )  # fmt: skip
    assert body == {
        "model": "m", "input": "Say tea", "store": True, "top_logprobs": 3,
        "text": {"format": {"type": "json_schema", **DESCRIBED}, "verbosity": "low"},
        "reasoning": {"effort": "high", "summary": "auto"}, "tools": [FLAT_TOOL],
        "tool_choice": {"type": "function", "name": "f"},
        "include": ["message.output_text.logprobs"],
    }  # fmt: skip


def test_the_names_of_responses_are_taken_too_and_win() -> None:
    body = body_of(
        "responses", WORD, max_output_tokens=7, max_tokens=9, text={"format": {"type": "text"}},
        response_format={"type": "json_object"}, truncation="auto", previous_response_id="r-1",
    )  # fmt: skip
    assert body["max_output_tokens"] == 7
    assert body["text"] == {"format": {"type": "text"}}
    assert (body["truncation"], body["previous_response_id"]) == ("auto", "r-1")
    assert "max_tokens" not in body


def test_what_an_item_asks_for_wins_whatever_it_calls_it() -> None:
    given = {"user_prompt_kwargs": WORD, "params": {"max_output_tokens": 5}}
    assert body_of("responses", given, max_tokens=9)["max_output_tokens"] == 5
    given = {"user_prompt_kwargs": WORD, "params": {"max_completion_tokens": 5}}
    assert body_of("completions", given, max_tokens=9)["max_tokens"] == 5


def test_a_conversation_with_images_and_tools_becomes_items() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    image = {"url": "https://x/y.png", "detail": "low"}
    given = {
        "messages": [
            {"role": "system", "content": "Be dry."},
            {"role": "user", "content": [
                {"type": "text", "text": "What?"}, {"type": "image_url", "image_url": image},
            ]},
            {"role": "assistant", "content": "Let me see.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
        ]
    }  # fmt: skip
    body = body_of("responses", given)
    assert body["instructions"] == "Be dry."
    assert body["input"] == [
        {"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "What?"},
            {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"},
        ]},
        {"type": "message", "role": "assistant", "content": "Let me see."},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "42"},
    ]  # fmt: skip


def test_what_the_model_said_before_is_one_text() -> None:
    parts = [{"type": "text", "text": "No, "}, {"type": "refusal", "refusal": "never."}]
    given = [{"role": "user", "content": "?"}, {"role": "assistant", "content": parts},
             {"role": "user", "content": "!"}]  # fmt: skip
    body = body_of("responses", {"messages": given})
    assert [one["content"] for one in body["input"]] == ["?", "No, never.", "!"]


def test_completions_and_embeddings_take_the_text_of_the_user() -> None:
    body = body_of("completions", WORD, max_completion_tokens=5, logprobs=True, top_logprobs=2)
    assert body == {"model": "m", "prompt": "Say tea", "max_tokens": 5, "logprobs": 2}
    body = body_of("embeddings", WORD, dimensions=4, encoding_format="base64")
    assert body == {"model": "m", "input": "Say tea", "dimensions": 4, "encoding_format": "base64"}


@pytest.mark.parametrize("endpoint", ["completions", "embeddings"])
def test_what_has_no_roles_takes_no_system_template_and_no_messages(endpoint: str) -> None:
    with pytest.raises(TemplateError, match=r"here: \w+ take one text, .* system template s\.txt"):
        body_of(endpoint, WORD, system="Be dry.")
    with pytest.raises(TemplateError, match="here: messages are a conversation, and"):
        body_of(endpoint, {"messages": [{"role": "user", "content": "hi"}]})


def test_each_sample_has_its_seed_where_there_are_seeds() -> None:
    assert body_of("chat", WORD, sample=3)["seed"] == 3
    assert body_of("completions", WORD, sample=3)["seed"] == 3
    assert "seed" not in body_of("responses", WORD, sample=3)
    recipe = Recipe(None, Template("x"), "m", {"seed": 5}, "responses")  # vLLM's have one
    assert Renderer(recipe).request_body(ItemInput(given={}), 3)["seed"] == 7
    assert "seed" not in body_of("embeddings", WORD, sample=3)


def line(url: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": "a", "method": "POST", "url": url, "body": body}


def test_a_batch_line_goes_to_the_endpoint_of_its_url_with_what_that_takes() -> None:
    recipe: dict[str, Any] = {"temperature": 0.5, "max_tokens": 9, "suffix": "."}
    asked = body_of("chat", line("/v1/embeddings", input=["x", "y"], model="e"), **recipe)
    assert asked == {"model": "e", "input": ["x", "y"]}
    asked = body_of("chat", line("/v1/responses", input="x", instructions="y"), **recipe)
    assert asked == {
        "model": "m", "input": "x", "instructions": "y",
        "temperature": 0.5, "max_output_tokens": 9, "store": False,
    }  # fmt: skip
    asked = body_of("chat", line("/v1/completions", prompt="x", max_tokens=3), **recipe)
    assert asked == {
        "model": "m",
        "prompt": "x",
        "temperature": 0.5,
        "max_tokens": 3,
        "suffix": ".",
    }
    messages = [{"role": "user", "content": "x"}]
    asked = body_of("embeddings", line("/v1/chat/completions", messages=messages), dimensions=3)
    assert asked == {"model": "m", "messages": messages}


def test_where_a_parameter_of_the_request_comes_from() -> None:
    recipe = Recipe(None, Template("x"), "m", {"max_tokens": 9, "verbosity": "low"}, "responses")
    renderer, item = Renderer(recipe), ItemInput(given={})
    assert renderer.place_of("max_output_tokens", item) == "model.max_tokens"
    assert renderer.place_of("text", item) == "model.verbosity"
    assert renderer.added_params(item) == {"store"}
    own = read_item({"user_prompt_kwargs": {}, "params": {"max_tokens": 2}}, "here")
    assert renderer.place_of("max_output_tokens", own) == "params.max_tokens of the item"
    assert renderer.is_own(own, "max_output_tokens")


def test_structured_output_is_sent_as_each_endpoint_takes_it_and_can_be_left_out() -> None:
    stored = {**FORMAT, "json_schema": {**DESCRIBED, "schema": json.dumps(SCHEMA)}}
    recipe = Recipe(None, Template("x"), "m", {"response_format": stored}, "responses")
    renderer, item = Renderer(recipe), ItemInput(given={})
    assert renderer.request_body(item)["text"]["format"]["schema"] == SCHEMA
    assert renderer.added_params(item) == {"text", "store"}


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/v1/chat/completions", "chat"),
        ("/v1/completions", "completions"),
        ("/v1/responses/", "responses"),
        ("https://x/openai/v1/embeddings?api-version=1", "embeddings"),
        ("/v1/moderations", None),
    ],
)
def test_an_endpoint_is_known_by_its_url(url: str, name: str | None) -> None:
    found = endpoint_of_url(url)
    assert (found and found.name) == name


def test_how_many_tokens_an_answer_may_have() -> None:
    assert CHAT.most_tokens({"max_tokens": 5, "max_completion_tokens": 7}) == 7
    assert RESPONSES.most_tokens({"max_output_tokens": 5}) == 5
    assert COMPLETIONS.most_tokens({"max_tokens": -1}) is None
    assert EMBEDDINGS.most_tokens({}) == 0


# Answers


def reply(body: Any, status: int = 200) -> Reply:
    return Reply(started_at=0, latency_ms=1, status=status, body=json.dumps(body))


def answer(endpoint: str, body: Any) -> Answer:
    """An answer, whose parts make the body again."""
    verdict = read_reply(reply(body), ENDPOINTS[endpoint])
    assert isinstance(verdict, Answer), verdict
    assert endpoint_of_body(json.loads(verdict.rest)).name == endpoint
    assert json.loads(whole_body(verdict.rest, verdict.text, verdict.vector)) == body
    return verdict


def failure(endpoint: str, body: Any) -> Failure:
    verdict = read_reply(reply(body), ENDPOINTS[endpoint])
    assert isinstance(verdict, Failure), verdict
    return verdict


USAGE = {
    "input_tokens": 3, "input_tokens_details": {"cached_tokens": 1},
    "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 7,
}  # fmt: skip


def said(text: str, **more: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": "m1", "role": "assistant", "status": "completed",
            "content": [part], **more}  # fmt: skip


def response(*output: dict[str, Any], status: str = "completed", **more: Any) -> dict[str, Any]:
    return {
        "id": "resp_1", "object": "response", "status": status, "error": None,
        "incomplete_details": None, "model": "m-1", "output": list(output), "usage": USAGE, **more,
    }  # fmt: skip


THOUGHT = {"type": "reasoning", "id": "r1",
           "summary": [{"type": "summary_text", "text": "Hm."}]}  # fmt: skip


def test_a_response_is_its_text_and_what_it_used() -> None:
    found = answer("responses", response(THOUGHT, said("Tea.")))
    assert (found.text, found.finish_reason, found.model) == ("Tea.", "completed", "m-1")
    assert found.usage == Usage(3, 4, 1, 2)
    assert '"Tea."' not in found.rest
    assert parts_beside_text(found.rest) == {"reasoning": '"Hm."'}


def test_the_text_of_a_response_is_its_final_answer() -> None:
    both = said("First I look.", phase="commentary"), said("Tea.", phase="final_answer")
    assert answer("responses", response(*both)).text == "Tea."
    assert answer("responses", response(said("A, "), said("b."))).text == "A, b."
    assert answer("responses", response(said("x"), output_text=None)).text == "x"


def test_a_response_may_be_the_calls_of_tools() -> None:
    call = {"type": "function_call", "id": "f", "call_id": "c1", "name": "f", "arguments": "{}"}
    found = answer("responses", response(THOUGHT, call))
    assert found.text == ""
    assert json.loads(parts_beside_text(found.rest)["tool_calls"]) == [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]


def test_an_incomplete_response_says_why() -> None:
    cut: dict[str, Any] = {
        "status": "incomplete",
        "incomplete_details": {"reason": "max_output_tokens"},
    }
    assert answer("responses", response(said("Te"), **cut)).finish_reason == "max_output_tokens"
    assert answer("responses", response(THOUGHT, **cut)).text == ""
    assert answer("responses", response(said(""), output_text=None, **cut)).text == ""
    assert answer("responses", response(said("a"), said(""), **cut)).text == "a"
    filtered: dict[str, Any] = {
        "status": "incomplete",
        "incomplete_details": {"reason": "content_filter"},
    }
    assert failure("responses", response(said("Te"), **filtered)).reason is Reason.REFUSAL


def test_a_refusal_in_a_response() -> None:
    part = {"type": "refusal", "refusal": "No."}
    found = failure("responses", response(said("x", content=[part])))
    assert (found.reason, found.message) == (Reason.REFUSAL, "No.")
    assert found.usage.completion_tokens == 4


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"code": "server_error", "message": "oh"}, Reason.SERVER),
        ({"code": "rate_limit_exceeded", "message": "slow"}, Reason.RATE_LIMIT),
        ({"code": "invalid_prompt", "message": "what"}, Reason.REJECTED),
        ({"code": "invalid_prompt", "message": "the prompt was flagged"}, Reason.REFUSAL),
        (None, Reason.SERVER),
    ],
)
def test_a_response_that_failed(error: Any, reason: Reason) -> None:
    assert failure("responses", response(status="failed", error=error)).reason is reason


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (response(), "200, but the answer is empty"),
        (response(THOUGHT), "200, but the answer is empty, there is only reasoning in it"),
        (response(status="queued"),
         "200, but the answer is queued still: batchgen does not come back for it"),
        ({"id": "x"}, '200, but no output in it: {"id": "x"}'),
        ({"error": {"message": "Unexpected endpoint"}}, "not a response: 200 Unexpected endpoint"),
    ],
)  # fmt: skip
def test_what_is_no_response(body: Any, message: str) -> None:
    found = failure("responses", body)
    assert (found.reason, found.message) == (Reason.BAD_RESPONSE, message)


def completion(**choice: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    choice = {"index": 0, "text": "Tea.", "logprobs": None, "finish_reason": "stop", **choice}
    return {"object": "text_completion", "model": "m-1", "choices": [choice], "usage": usage}


def test_a_completion() -> None:
    found = answer("completions", completion(logprobs={"tokens": ["Tea"]}))
    assert (found.text, found.finish_reason, found.usage) == ("Tea.", "stop", Usage(3, 4))
    assert parts_beside_text(found.rest) == {"logprobs": '{"tokens":["Tea"]}'}
    assert answer("completions", completion(text="", finish_reason="length")).text == ""
    assert failure("completions", completion(finish_reason="content_filter")).reason == "refusal"
    assert failure("completions", completion(text="")).message == "200, but the answer is empty"
    assert failure("completions", completion(text=None)).reason == "bad_response"


def embedding(*vectors: Any) -> dict[str, Any]:
    data = [
        {"object": "embedding", "index": index, "embedding": vector}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return {"object": "list", "model": "e-1", "data": data, "usage": usage}


def test_an_embedding_is_a_vector_and_no_text() -> None:
    found = answer("embeddings", embedding([0.25, -1, 1e-7]))
    assert (found.text, found.vector, found.usage) == ("", "[0.25,-1,1e-7]", Usage(3, 0))
    assert "0.25" not in found.rest
    assert answer("embeddings", embedding([1], [2])).vector == "[[1],[2]]"


def test_the_vectors_of_several_inputs_are_in_their_order() -> None:
    body = embedding([1], [2])
    body["data"].reverse()
    found = read_reply(reply(body), EMBEDDINGS)
    assert isinstance(found, Answer)
    assert found.vector == "[[1],[2]]"


def test_a_packed_vector_is_unpacked() -> None:
    sent = struct.pack("<3f", 0.1, -2.5, 3e-8)
    found = read_reply(reply(embedding(base64.b64encode(sent).decode())), EMBEDDINGS)
    assert isinstance(found, Answer)
    numbers = json.loads(found.vector or "")
    assert numbers == [0.100000001, -2.5, 2.99999989e-08]
    assert struct.pack("<3f", *numbers) == sent
    again = json.loads(whole_body(found.rest, "", found.vector))
    assert again["data"][0]["embedding"] == numbers


@pytest.mark.parametrize(
    "vector", ["hello from litellm", "aGk=", [], ["x"], [None], [True], {"a": 1}, None, ""]
)
def test_what_is_no_vector(vector: Any) -> None:
    found = failure("embeddings", embedding(vector))
    assert found.reason is Reason.BAD_RESPONSE
    assert found.message.startswith("200, but the embedding is no vector")
    assert failure("embeddings", embedding()).message.startswith("200, but no data in it")


# Errors


@pytest.mark.parametrize(
    ("status", "message", "halt"),
    [
        (404, "This model is only supported in v1/responses and not in v1/chat/completions.",
         "Set model.endpoint: responses."),
        (404, "This is not a chat model and thus not supported in the v1/chat/completions endpoint."
         " Did you mean to use v1/completions?", "Set model.endpoint: completions."),
        (404, "This is a chat model and not supported in the v1/completions endpoint. Did you mean "
         "to use v1/chat/completions?", "Set model.endpoint: chat."),
        (400, "The model does not support Chat Completions API",
         "Check model.endpoint and model.model."),
        (403, "You are not allowed to generate embeddings from this model",
         "Check model.endpoint and model.model."),
        (501, "This server does not support embeddings. Start it with `--embeddings`",
         "Check model.endpoint and model.model."),
        (400, "max_tokens is too large; see v1/models", None),
        (400, "Say v1/responses, he said", None),
        (501, "Not implemented", None),
        (404, "Not Found", None),
    ],
)  # fmt: skip
def test_a_model_that_is_at_another_endpoint_halts_and_says_which(
    status: int, message: str, halt: str | None
) -> None:
    body = {"error": {"message": message, "type": "invalid_request_error", "code": None}}
    verdict = read_reply(reply(body, status), CHAT)
    assert isinstance(verdict, Failure)
    expected = halt and f"the server does not have this model at this endpoint. {halt}"
    assert verdict.halt == expected


def test_who_is_asked_again_hears_what_was_wrong_where_there_are_conversations() -> None:
    again = with_feedback(RESPONSES, {"model": "m", "input": "Say tea"}, "Coffee", "no tea")
    assert again["input"] == [
        {"role": "user", "content": "Say tea"},
        {"role": "assistant", "content": "Coffee"},
        {"role": "user", "content": "Your answer could not be used: no tea. Answer again."},
    ]
    same = {"model": "m", "prompt": "Say tea"}
    assert with_feedback(COMPLETIONS, same, "Coffee", "no tea") == same
