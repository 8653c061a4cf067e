"""Real servers' ways to reject a parameter, and which one they mean."""

# ruff: noqa: E501 - what servers say is quoted in full

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.llm.rejections import Rejection, rejected_parameter, wants_stream

REQUEST = dict.fromkeys(
    (
        *("model", "messages", "temperature", "top_p", "max_tokens", "max_completion_tokens"),
        *("frequency_penalty", "logit_bias", "reasoning_effort", "stop", "top_k", "stream_options"),
        *("response_format", "seed", "thinking"),
    ),
    1,
)


def openai(message: str, param: str | None = None, code: Any = None) -> dict[str, Any]:
    kind = "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


UNSUPPORTED = {
    "OpenAI": (
        openai(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            "max_tokens", "unsupported_parameter",
        ),
        "max_tokens",
    ),
    "OpenAI, a parameter of another endpoint": (
        openai("Unknown parameter: 'thinking'.", "thinking", "unknown_parameter"),
        "thinking",
    ),
    "OpenAI, older": (openai("Unrecognized request argument supplied: reasoning_effort"), "reasoning_effort"),
    "OpenAI, several": (openai("Unrecognized request arguments supplied: top_k, thinking"), "top_k"),
    "OpenAI, a value that the model never takes": (
        openai(
            "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) value is supported.",
            "temperature", "unsupported_value",
        ),
        "temperature",
    ),
    "OpenAI, no structured output": (
        openai(
            "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model. Learn more about supported models at the Structured Outputs guide: https://platform.openai.com/docs/guides/structured-outputs",
            "response_format",
        ),
        "response_format",
    ),
    "Copilot": (
        {"error": {"message": "Unsupported parameter: 'top_p' is not supported with this model.", "code": "invalid_request_body"}},
        "top_p",
    ),
    "vLLM, newer": (
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "top_k"], "msg": "Extra inputs are not permitted", "input": 5}]},
        "top_k",
    ),
    "vLLM, older": (
        {"object": "error", "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'max_completion_tokens'), 'msg': 'Extra inputs are not permitted', 'input': 64}]", "type": "BadRequestError", "param": None, "code": 400},
        "max_completion_tokens",
    ),
    "pydantic's text": (
        {"object": "error", "message": "1 validation error for ChatCompletionRequest\nlogit_bias\n  Extra inputs are not permitted [type=extra_forbidden, input_value={}, input_type=dict]\n    For further information visit https://errors.pydantic.dev/2.10/v/extra_forbidden", "code": 400},
        "logit_bias",
    ),
    "pydantic 1": (
        {"detail": [{"loc": ["body", "top_k"], "msg": "extra fields not permitted", "type": "value_error.extra"}]},
        "top_k",
    ),
    "Mistral": (
        {"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "max_completion_tokens"], "msg": "Extra inputs are not permitted", "input": 32000}]}, "type": "invalid_request_error", "param": None, "code": None},
        "max_completion_tokens",
    ),
    "Mistral, JSON in a text": (
        {"object": "error", "message": json.dumps({"detail": [{"type": "extra_forbidden", "loc": ["body", "frequency_penalty"], "msg": "Extra inputs are not permitted", "input": 0.0}]}), "type": "internal_error_proxy", "param": None, "code": "1000"},
        "frequency_penalty",
    ),
    "Gemini": (
        [{"error": {"code": 400, "message": "Invalid JSON payload received. Unknown name \"frequency_penalty\": Cannot find field.\nInvalid JSON payload received. Unknown name \"top_k\": Cannot find field.", "status": "INVALID_ARGUMENT", "details": [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{"description": "Invalid JSON payload received. Unknown name \"frequency_penalty\": Cannot find field."}]}]}}],
        "frequency_penalty",
    ),
    "xAI": (
        {"code": "Client specified an invalid argument", "error": "Argument not supported on this model: frequencyPenalty"},
        "frequency_penalty",
    ),
    "xAI, response_format": (
        {"code": "Client specified an invalid argument", "error": "The response_format parameter is unsupported at the moment. Leave it unset."},
        "response_format",
    ),
    "DeepSeek": (openai("This response_format type is unavailable now", code="invalid_request_error"), "response_format"),
    "DeepSeek, in Rust's words": (
        openai("Failed to deserialize the JSON body into the target type: response_format: response_format.type `json_schema` is unavailable now at line 1 column 1193"),
        "response_format",
    ),
    "Groq": (openai("property 'top_k' is unsupported"), "top_k"),
    "Fireworks": (
        {"error": {"object": "error", "type": "invalid_request_error", "message": "Extra inputs are not permitted, field: 'stream_options'"}},
        "stream_options",
    ),
    "Anthropic": (
        {"error": {"code": "invalid_request_error", "message": "thinking: Extra inputs are not permitted", "type": "invalid_request_error", "param": None}},
        "thinking",
    ),
    "LiteLLM": (
        openai("litellm.UnsupportedParamsError: mistral does not support parameters: {'stop': ['</a>']}, for model=codestral-latest. To drop these, set `litellm.drop_params=True`", code="400"),
        "stop",
    ),
    "LiteLLM, a list": (
        openai("litellm.UnsupportedParamsError: openai does not support parameters: ['seed', 'stop'], for model=m.", code="400"),
        "seed",
    ),
    "llama.cpp": (
        {"error": {"code": 400, "message": "Unsupported param: top_k", "type": "invalid_request_error"}},
        "top_k",
    ),
    "plain text": ("Unknown parameter: top_k", "top_k"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "name"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_a_parameter_that_a_server_does_not_take_from_anybody(body: Any, name: str) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    assert rejected_parameter(text, REQUEST) == Rejection(name, unsupported=True)
    without = {other: value for other, value in REQUEST.items() if other != name}
    found = rejected_parameter(text, without)
    assert found is None or found.name != name


NAMED = {
    "too large": (
        openai("max_tokens is too large: 90000. This model supports at most 16384 completion tokens, whereas you provided 90000.", "max_tokens", "invalid_value"),
        "max_tokens",
    ),
    "out of range": (openai("Invalid value for 'temperature': must be at most 2.", "temperature"), "temperature"),
    "wrong type": (
        {"detail": [{"type": "float_parsing", "loc": ["body", "temperature"], "msg": "Input should be a valid number", "input": "hot"}]},
        "temperature",
    ),
    "a bad schema": (
        openai("Invalid schema for response_format 'answer': In context=(), 'additionalProperties' is required to be supplied and to be false.", "response_format"),
        "response_format",
    ),
    "a part of it": (openai("Invalid type for 'logit_bias.5'", "logit_bias.5", "invalid_type"), "logit_bias"),
    "a grammar": (
        {"error": {"code": 400, "message": "Failed to initialize samplers: failed to parse grammar", "type": "invalid_request_error"}},
        "response_format",
    ),
    "Groq": (openai("This model does not support response format `json_schema`. See supported models at https://console.groq.com"), "response_format"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "name"), NAMED.values(), ids=NAMED)
def test_a_value_that_is_not_taken_names_its_parameter_only(body: Any, name: str) -> None:
    found = rejected_parameter(json.dumps(body), REQUEST)
    assert found == Rejection(name, unsupported=False)


NOT_ABOUT_A_PARAMETER = [
    None,
    "",
    "Bad Request",
    openai("This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens. Please reduce the length of the messages.", "messages", "context_length_exceeded"),
    openai("Unsupported value: 'messages[0].role' does not support 'system' with this model.", "messages[0].role", "unsupported_value"),
    openai("Unknown parameter: 'input[4].action.query'.", "input[4].action.query", "unknown_parameter"),
    openai("'messages.2' : for 'role:assistant' the following must be satisfied[('messages.2' : property 'thinking' is unsupported)]"),
    openai("Unknown parameter: 'verbosity'.", "verbosity", "unknown_parameter"),
    {"object": "error", "message": "1 validation error for ChatCompletionRequest\nmessages.0.user.name\n  Extra inputs are not permitted [type=extra_forbidden, input_value='bob', input_type=str]"},
    {"detail": [{"type": "extra_forbidden", "loc": ["body", "messages", 0, "seed"], "msg": "Extra inputs are not permitted"}]},
    [{"error": {"code": 400, "message": "Invalid JSON payload received. Unknown name \"seed\" at 'messages[0]': Cannot find field.", "status": "INVALID_ARGUMENT"}}],
    openai("Invalid image.", None, "invalid_image"),
    {"detail": [{"type": "missing", "loc": ["body", "messages", 0, "role"], "msg": "Field required", "input": {"content": "Unknown parameter: 'seed'. Answer by this JSON schema."}}]},
    {"detail": "Not Found"},
    {"error": {"param": 5, "code": []}, "detail": [{"loc": []}, {"loc": [3, None]}]},
]  # fmt: skip


@pytest.mark.parametrize("body", NOT_ABOUT_A_PARAMETER)
def test_what_is_not_about_a_parameter_of_the_request_names_none(body: Any) -> None:
    text = body if body is None or isinstance(body, str) else json.dumps(body)
    assert rejected_parameter(text, REQUEST) is None


@given(st.text() | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
def test_nothing_that_is_said_raises(said: str) -> None:
    rejected_parameter(said, REQUEST)


@pytest.mark.parametrize("said", ["[" * 30_000, '{"a":' * 3000 + "1" + "}" * 3000, "x" * 10**7])
def test_no_depth_or_size_raises(said: str) -> None:
    assert rejected_parameter(said, REQUEST) is None


@pytest.mark.parametrize(
    "error",
    [
        openai(
            "Your messages resulted in 132166 tokens (317 in the response_format schemas).",
            "messages",
            "context_length_exceeded",
        ),
        openai("This model's maximum context length is 4096 tokens, with 20 in the json_schema."),
        openai("Please reduce the length of the messages or the response format schemas."),
        {"detail": [{"loc": ["body", "messages", 0], "msg": "too much for the json schema"}]},
    ],
)
def test_an_error_about_something_else_that_speaks_of_the_schema(error: Any) -> None:
    assert rejected_parameter(json.dumps(error), REQUEST) is None


@pytest.mark.parametrize(
    "said",
    [
        "This model only support stream mode, please enable the stream parameter to access it.",
        "parameter.enable_thinking must be set to false for non-streaming calls",
        "parameter.enable_thinking only support stream call",
        "Requests with max_tokens > 5000 must have stream=true",
        "Stream must be set to true",
        "'stream' must be True for this model",
        "The model requires `stream: true`",
        "You must set stream to true",
        "Non-streaming requests are not supported",
        "this model does not support non-streaming output",
        "Streaming is required for operations that may take longer than 10 minutes",
        "model x is only available in streaming mode",
        "该模型仅支持流式输出",
    ],
)
def test_a_server_that_answers_only_as_a_stream_is_told(said: str) -> None:
    assert wants_stream(json.dumps({"error": {"message": said}}, ensure_ascii=False))


@pytest.mark.parametrize(
    "said",
    [
        "streaming is not supported",
        "Unknown parameter: stream",
        "n must be 1 if stream is true",
        "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
        "stream_options only allowed when stream is true",
        "bad upstream",
    ],
)
def test_what_else_is_said_of_streams_is_another_thing(said: str) -> None:
    assert not wants_stream(json.dumps({"error": {"message": said}}))
