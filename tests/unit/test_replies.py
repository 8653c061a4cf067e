"""Every shape of reply that real servers were seen to send, and what it is taken for."""

# ruff: noqa: E501 - what servers say is quoted in full

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from batchgen.endpoints import CHAT, parts_beside_text
from batchgen.items import Answer, Failure, Reason, Reply, Trouble, Usage
from batchgen.limits import AnnouncedLimit
from batchgen.llm.announcements import announced_limit, parse_retry_after
from batchgen.llm.replies import read_reply

NOW_MS = 1_750_000_000_000
NOW = datetime.fromtimestamp(NOW_MS / 1000, UTC)

BAD_KEY = (
    "the server does not accept the API key. Check model.api_key (or OPENAI_API_KEY), or the key in "
    "model.headers."
)
NO_CREDIT = "quota or credit is used up. Add credit with your provider."
NO_RIGHT = "the API key may not do this. Check the key's permissions, project and region."
NO_MODEL = "the server does not know the model. Check model.model and model.base_url."
MOVED = "the server sends us elsewhere. Set model.base_url to the real place."


def reply(status: int, body: Any = "", **headers: str) -> Reply:
    """`body` as it is if it is text, else as JSON; in header names `_` stands for `-`."""
    text = body if isinstance(body, str) else json.dumps(body)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(started_at=NOW_MS - 250, latency_ms=250, status=status, headers=names, body=text)


def failure(status: int, body: Any = "", **headers: str) -> Failure:
    verdict = read_reply(reply(status, body, **headers), CHAT)
    assert isinstance(verdict, Failure), verdict
    return verdict


def answer(body: Any, status: int = 200) -> Answer:
    verdict = read_reply(reply(status, body), CHAT)
    assert isinstance(verdict, Answer), verdict
    return verdict


def completion(
    content: Any = "Hello", finish_reason: Any = "stop", usage: Any = None, **message: Any
) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "m-1",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, **message},
                "finish_reason": finish_reason,
            }
        ],
        "usage": usage,
    }


def openai_error(message: str, kind: str, code: Any = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


# Answers


def test_an_answer_is_its_text_and_the_rest_of_the_body() -> None:
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 12,
        "total_tokens": 21,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    found = answer(completion("Grüße 東京", usage=usage))
    assert found == Answer(
        text="Grüße 東京",
        rest=json.dumps(completion(None, usage=usage), separators=(",", ":")),
        finish_reason="stop",
        model="m-1",
        usage=Usage(9, 12, 4, 5),
    )


@pytest.mark.parametrize(
    ("said", "tier"),
    [
        ({"service_tier": "default"}, "default"),
        ({"service_tier": None}, None),
        ({"service_tier": 5}, None),
        ({"usage": {"prompt_tokens": 1, "service_tier": "standard"}}, "standard"),
    ],
)
def test_the_tier_that_served_a_call_is_read(said: dict[str, Any], tier: str | None) -> None:
    found = answer({**completion("one", usage={"prompt_tokens": 1}), **said})
    assert found.usage == Usage(1, service_tier=tier)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("one", "one"),
        ("\0 a\x1b[31m\x7f", "\0 a\x1b[31m\x7f"),
        ("\ufeffbom", "\ufeffbom"),
        ("half \ud83d pair", "half \ufffd pair"),
        ("whole \ud83d\ude00 pair", "whole 😀 pair"),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        ([{"type": "text", "text": "a"}, "b", {"type": "image_url"}, {"text": 3}], "a"),
        # what the model thought is no part of the answer
        (
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "a"},
            ],
            "a",
        ),
        ([{"type": "reasoning", "text": "hm"}, {"type": "output_text", "text": "a"}], "a"),
        ([{"text": "hm", "thought": True}, {"text": "a"}], "a"),
    ],
)
def test_the_text_of_an_answer(content: Any, text: str) -> None:
    assert answer(completion(content)).text == text


@pytest.mark.parametrize(
    "part",
    [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "thinking", "thinking": "hm"},
        {"type": "reasoning", "text": "hm"},
        {"text": "hm", "thought": True},
    ],
)
def test_a_thought_among_the_parts_of_an_answer_is_its_reasoning(part: dict[str, Any]) -> None:
    rest = answer(completion([part, {"type": "text", "text": "a"}])).rest
    assert parts_beside_text(rest) == {"reasoning": '"hm"'}


def test_a_text_that_utf_8_cannot_hold_is_kept_whole_in_the_rest() -> None:
    body = completion("half \ud83d pair")
    assert json.loads(answer(body).rest) == body


@pytest.mark.parametrize("kind", ["tool_calls", "function_call", "audio"])
def test_an_answer_may_be_something_else_than_text(kind: str) -> None:
    body = completion(None, finish_reason=kind, **{kind: {"id": "call_1"}})
    found = answer(body)
    assert (found.text, json.loads(found.rest)) == ("", body)


def test_an_answer_that_was_cut_off_is_an_answer() -> None:
    found = answer(completion("Once upon", finish_reason="length"))
    assert (found.text, found.finish_reason) == ("Once upon", "length")


def test_a_first_choice_is_taken_of_several() -> None:
    body = completion("first")
    body["choices"].append({"index": 1, "message": {"content": "second"}})
    found = answer(body)
    assert found.text == "first"
    assert json.loads(found.rest)["choices"][1]["message"]["content"] == "second"


def test_some_proxies_answer_201() -> None:
    assert answer(completion("made"), status=201).text == "made"


def test_numbers_that_json_does_not_know_become_null() -> None:
    body = '{"choices": [{"message": {"content": "x"}, "a": NaN, "b": [-Infinity, 1e999, 1.5]}]}'
    found = answer(body)
    assert json.loads(found.rest) == {
        "choices": [{"message": {"content": None}, "a": None, "b": [None, None, 1.5]}]
    }


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        (None, Usage()),
        ("many", Usage()),
        ([], Usage()),
        ({}, Usage()),
        ({"prompt_tokens": 0, "completion_tokens": None}, Usage(0, None)),
        ({"prompt_tokens": "9", "completion_tokens": 1.5}, Usage()),
        ({"prompt_tokens": -1, "completion_tokens": True}, Usage()),
        ({"prompt_tokens": 10**30, "completion_tokens": 10**7}, Usage(None, 10**7)),
        # No model has such a context, and a few thousand of these would not fit into 64 bits.
        ({"prompt_tokens": 2**53 - 1, "completion_tokens": 10**9}, Usage()),
        ({"prompt_tokens": 1, "prompt_tokens_details": None}, Usage(1)),
        ({"prompt_tokens_details": {"cached_tokens": "4"}}, Usage()),
    ],
)
def test_usage_counts_only_what_can_be_a_count(usage: Any, read: Usage) -> None:
    assert answer(completion(usage=usage)).usage == read


@pytest.mark.parametrize("value", [None, 4, ["m"], "half \ud83d"])
def test_a_model_or_finish_reason_that_is_no_text_is_left_out(value: Any) -> None:
    found = answer({**completion("x", finish_reason=value), "model": value})
    assert (found.model, found.finish_reason) == (None, None)


# 200, but no answer

EMPTY = Failure(
    Reason.BAD_RESPONSE, "200, but the answer is empty", finish_reason="stop", model="m-1"
)
NO_CHOICES = Failure(Reason.BAD_RESPONSE, "200, but no choices in it", model="m-1")


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        (completion(None), EMPTY),
        (completion(""), EMPTY),
        (completion([]), EMPTY),
        (completion({"text": "x"}), EMPTY),
        (
            completion(None, reasoning_content="Let me think"),
            replace(EMPTY, message=f"{EMPTY.message}, there is only reasoning in it"),
        ),
        ("", Failure(Reason.BAD_RESPONSE, "200, but not JSON: an empty body")),
        ("null", Failure(Reason.BAD_RESPONSE, "200, but not JSON: null")),
        ("[]", Failure(Reason.BAD_RESPONSE, "200, but not JSON: []")),
        (
            '{"choices": [{"mess',
            Failure(Reason.BAD_RESPONSE, '200, but not JSON: {"choices": [{"mess'),
        ),
        (
            "<html>\n <h1>Welcome</h1>\n</html>",
            Failure(Reason.BAD_RESPONSE, "200, but not JSON: <html> <h1>Welcome</h1> </html>"),
        ),
    ],
)
def test_a_200_without_a_chat_completion(body: Any, verdict: Failure) -> None:
    assert failure(200, body) == verdict


@pytest.mark.parametrize(
    "body",
    [
        {**completion(), "choices": None},
        {**completion(), "choices": {}},
        {**completion(), "choices": []},
        {**completion(), "choices": [None]},
        {**completion(), "choices": [{"text": "a completion, not a chat"}]},
        {**completion(), "choices": [{"message": None}]},
        {},
    ],
)
def test_a_200_without_choices_quotes_what_came_instead(body: dict[str, Any]) -> None:
    found = failure(200, body)
    assert found.message.startswith(f"{NO_CHOICES.message}: {{")
    assert replace(found, message="") == replace(NO_CHOICES, message="", model=body.get("model"))


def test_what_a_server_says_beside_its_answer_is_quoted() -> None:
    said = {"status_msg": "no balance"}
    message = failure(200, {"choices": None, "base_resp": said}).message
    assert message == "200, but no choices in it: no balance"
    coded = failure(200, {"choices": None, "base_resp": {**said, "status_code": 1008}})
    assert coded.message == "402 no balance"


def test_what_an_empty_answer_cost_is_known() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    assert failure(200, completion("", usage=usage)).usage == Usage(3, 4)


@pytest.mark.parametrize("name", ["created", "index"])
def test_a_number_that_is_too_long_to_be_read_costs_no_answer(name: str) -> None:
    body = re.sub(rf'"{name}": \d+', rf'"{name}": {"9" * 5000}', json.dumps(completion()))
    found = answer(body)
    assert found.text == "Hello"
    assert f'"{name}":null' in found.rest


def test_a_204_has_no_answer() -> None:
    assert failure(204) == Failure(Reason.BAD_RESPONSE, "204, but not JSON: an empty body")


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        # OpenRouter, when the upstream fails
        (
            {"error": {"code": 502, "message": "Provider returned error", "metadata": {}}},
            Failure(Reason.SERVER, "502 Provider returned error", trouble=Trouble.UNAVAILABLE),
        ),
        # OpenRouter, when the upstream fails while it writes
        (
            {
                "choices": [
                    {
                        "error": {"code": 502, "message": "Upstream idle timeout"},
                        "finish_reason": "error",
                        "message": {"role": "assistant", "content": "Once up"},
                    }
                ]
            },
            Failure(
                Reason.SERVER,
                "502 Upstream idle timeout",
                trouble=Trouble.UNAVAILABLE,
                has_begun=True,
            ),
        ),
        (
            {"error": {"code": "429", "message": "slow down"}, "choices": []},
            Failure(Reason.RATE_LIMIT, "429 slow down"),
        ),
        (
            {"error": {"code": 401, "message": "No auth"}},
            Failure(Reason.REJECTED, "401 No auth", halt=BAD_KEY),
        ),
        (
            {"error": "backend is gone"},
            Failure(Reason.BAD_RESPONSE, "not a chat completion: 200 backend is gone"),
        ),
        (
            {"error": {"code": "weird", "message": "odd"}},
            Failure(Reason.BAD_RESPONSE, "not a chat completion: 200 odd"),
        ),
    ],
)
def test_a_200_with_an_error_inside(body: Any, verdict: Failure) -> None:
    assert failure(200, body) == verdict


def test_an_error_beside_choices_does_not_spoil_the_answer() -> None:
    assert answer({**completion("fine"), "error": None}).text == "fine"
    assert answer({**completion("fine"), "error": {"code": 500}}).text == "fine"


# Refusals


FILTERED = "stopped by the content filter (finish_reason content_filter)"


@pytest.mark.parametrize(
    ("text", "finish_reason", "refusal", "message"),
    [
        (None, "stop", "I can't help with that.", "I can't help with that."),
        ("Half of", "content_filter", None, FILTERED),
        ("", "content_filter", None, FILTERED),
    ],
)
def test_a_refusal(text: str | None, finish_reason: str, refusal: str | None, message: str) -> None:
    body = completion(text, finish_reason=finish_reason, refusal=refusal)
    assert failure(200, body) == Failure(
        Reason.REFUSAL, message, finish_reason=finish_reason, model="m-1", has_begun=True
    )


AZURE_FILTER = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content "
        "management policy. Please modify your prompt and retry.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation"},
    }
}
OPENROUTER_MODERATION = {
    "error": {
        "code": 403,
        "message": "Your chosen model requires moderation and your input was flagged",
        "metadata": {"reasons": ["violence"], "flagged_input": "..."},
    }
}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, AZURE_FILTER),
        (
            400,
            openai_error(
                "Your request was rejected", "invalid_request_error", "content_policy_violation"
            ),
        ),
        (403, OPENROUTER_MODERATION),
    ],
)
def test_a_prompt_that_the_filter_stops_is_refused_and_stops_nobody_else(
    status: int, body: dict[str, Any]
) -> None:
    message = body["error"]["message"]
    assert failure(status, body) == Failure(Reason.REFUSAL, f"{status} {message}")


# Errors: the contract's table

VLLM_404 = {
    "object": "error",
    "message": "The model `x` does not exist.",
    "type": "NotFoundError",
    "param": None,
    "code": 404,
}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "Request too large for gpt-x on tokens per min (TPM): Limit 30000, Requested 45712. "
            "The input or output tokens must be reduced in order to run successfully.",
            Reason.REJECTED,
        ),
        ("TPM: Limit 12,000, Requested 12,001, please reduce your message", Reason.REJECTED),
        ("TPM: Limit 10000, Used 9500, Requested 700. Please try again in 1.2s", Reason.RATE_LIMIT),
        ("Limit 10000, Requested 10000", Reason.RATE_LIMIT),
        ("Limit 99999999999999999999, Requested 1", Reason.RATE_LIMIT),
        ("Request too large", Reason.RATE_LIMIT),
    ],
)
def test_a_429_for_a_request_that_is_larger_than_the_limit_is_its_own(
    said: str, reason: Reason
) -> None:
    found = failure(429, openai_error(said, "tokens", code="rate_limit_exceeded"))
    assert (found.reason, found.message) == (reason, f"429 {said}")


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 520, 524, 529, 599, 408, 409])
def test_the_server_fails(status: int) -> None:
    body = openai_error("Overloaded", "server_error")
    unavailable = Trouble.UNAVAILABLE if status in (502, 503, 529) else None
    trouble = Trouble.TOO_LATE if status == 504 else unavailable
    assert failure(status, body) == Failure(Reason.SERVER, f"{status} Overloaded", trouble=trouble)


@pytest.mark.parametrize("status", [400, 404, 405, 413, 415, 418, 422, 451])
def test_a_request_that_will_never_work_is_rejected(status: int) -> None:
    body = openai_error("Nonsense", "invalid_request_error")
    assert failure(status, body) == Failure(Reason.REJECTED, f"{status} Nonsense")


@pytest.mark.parametrize(
    ("status", "body", "halt"),
    [
        (
            401,
            openai_error(
                "Incorrect API key provided: sk-***", "invalid_request_error", "invalid_api_key"
            ),
            BAD_KEY,
        ),
        (401, "Unauthorized", BAD_KEY),
        (403, openai_error("Country not supported", "request_forbidden"), NO_RIGHT),
        # Gemini: a list, and 400 for a wrong key
        (
            400,
            [
                {
                    "error": {
                        "code": 400,
                        "message": "API key not valid. Please pass a valid API key.",
                        "status": "INVALID_ARGUMENT",
                    }
                }
            ],
            BAD_KEY,
        ),
        (
            402,
            openai_error("Insufficient Balance", "unknown_error", "invalid_request_error"),
            NO_CREDIT,
        ),
        (
            429,
            openai_error(
                "You exceeded your current quota, please check your plan and billing details.",
                "insufficient_quota",
                "insufficient_quota",
            ),
            NO_CREDIT,
        ),
        (
            429,
            openai_error(
                "Your account is not active, please check your billing details on our website.",
                "billing_not_active",
                "billing_not_active",
            ),
            NO_CREDIT,
        ),
        (
            400,
            openai_error(
                "Billing hard limit has been reached",
                "invalid_request_error",
                "billing_hard_limit_reached",
            ),
            NO_CREDIT,
        ),
        # Anthropic
        (
            400,
            {
                "type": "error",
                "error": {
                    "type": "invalid_request_error",
                    "message": "Your credit balance is too low to access the Anthropic API.",
                },
            },
            NO_CREDIT,
        ),
        (
            404,
            openai_error(
                "The model `x` does not exist or you do not have access to it.",
                "invalid_request_error",
                "model_not_found",
            ),
            NO_MODEL,
        ),
        (404, VLLM_404, NO_MODEL),
        # LiteLLM
        (
            400,
            openai_error(
                "/chat/completions: Invalid model name passed in model=x. Call `/v1/models` to view available models for your key.",
                "invalid_request_error",
                "400",
            ),
            NO_MODEL,
        ),
        # Ollama
        (404, openai_error('model "x" not found, try pulling it first', "api_error"), NO_MODEL),
        # OpenRouter, DeepSeek, Mistral
        (
            400,
            {"error": {"message": "x/y is not a valid model ID", "code": 400}, "user_id": "u"},
            NO_MODEL,
        ),
        (
            400,
            openai_error("Model Not Exist", "invalid_request_error", "invalid_request_error"),
            NO_MODEL,
        ),
        (
            400,
            {
                "object": "error",
                "message": "Invalid model: x",
                "type": "invalid_model",
                "code": "1500",
            },
            NO_MODEL,
        ),
        # Gemini, Azure
        (
            404,
            [
                {
                    "error": {
                        "code": 404,
                        "message": "models/x is not found for API version v1main",
                        "status": "NOT_FOUND",
                    }
                }
            ],
            NO_MODEL,
        ),
        (
            404,
            {
                "error": {
                    "code": "DeploymentNotFound",
                    "message": "The API deployment for this resource does not exist.",
                }
            },
            NO_MODEL,
        ),
    ],
)
def test_what_no_request_can_get_past_halts(status: int, body: Any, halt: str) -> None:
    found = failure(status, body)
    assert found.halt == halt
    assert found.message.startswith(f"{status} ")


@pytest.mark.parametrize(
    ("status", "message", "reason"),
    [
        # OpenAI to an account without a payment method, and Groq
        (
            429,
            "Rate limit reached for m in organization org-1 on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s. You can increase your rate limit by adding a payment method to your account at https://platform.openai.com/account/billing.",
            Reason.RATE_LIMIT,
        ),
        (
            429,
            "Rate limit reached for model `m` on tokens per minute (TPM): Limit 6000. Please try again in 7.66s. Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing",
            Reason.RATE_LIMIT,
        ),
        # Gemini says "quota" for its limits a minute too
        (
            429,
            "You exceeded your current quota, please check your plan and billing details. * Quota exceeded for metric: generate_content_free_tier_requests, limit: 10. Please retry in 33.2s.",
            Reason.RATE_LIMIT,
        ),
        (
            400,
            "This model's maximum context length is 8192 tokens, and your feature is not supported",
            Reason.REJECTED,
        ),
        (
            400,
            "Unsupported parameter: 'max_tokens' is not supported with this model.",
            Reason.REJECTED,
        ),
        (400, "Invalid model input: the image is too large", Reason.REJECTED),
        (
            400,
            "Invalid JSON: in 'which car model of 1920 can today not be found, or does not exist'",
            Reason.REJECTED,
        ),
        (404, "Not Found", Reason.REJECTED),
    ],
)
def test_what_sounds_alike_but_is_about_this_request_only_does_not_halt(
    status: int, message: str, reason: Reason
) -> None:
    body = openai_error(message, "requests", "rate_limit_exceeded")
    assert failure(status, body) == Failure(reason, f"{status} {message}")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_halts_and_names_the_real_place(status: int) -> None:
    found = failure(status, "<html>", location="https://elsewhere.example/v1\n/x")
    message = f"{status} redirects to https://elsewhere.example/v1 /x"
    assert found == Failure(Reason.REJECTED, message, halt=MOVED)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (openai_error("plain", "t"), "500 plain"),
        ({"error": "as a text"}, "500 as a text"),
        ({"error": {"error": "nested"}}, "500 nested"),
        ({"message": "at the top"}, "500 at the top"),
        ({"detail": "FastAPI says"}, "500 FastAPI says"),
        (
            {"detail": [{"loc": ["body"], "msg": "m"}]},
            '500 {"detail": [{"loc": ["body"], "msg": "m"}]}',
        ),
        ([{"error": {"message": "in a list"}}], "500 in a list"),
        ({"error": None}, '500 {"error": null}'),
        ("Internal Server Error\n", "500 Internal Server Error"),
        ("", "500"),
        ("x" * 1000, "500 " + "x" * 499 + "…"),
        ({"error": {"message": "half \ud83d"}}, "500 half \ufffd"),
    ],
)
def test_the_message_is_found_wherever_the_server_puts_it(body: Any, message: str) -> None:
    assert failure(500, body) == Failure(Reason.SERVER, message)


@pytest.mark.parametrize("code", [None, 500, "500", 1.5, [], {}, True])
def test_a_code_may_be_of_any_type(code: Any) -> None:
    assert failure(500, openai_error("m", "t", code)) == Failure(Reason.SERVER, "500 m")


# No reply


def test_what_never_came_keeps_its_reason() -> None:
    base = Reply(started_at=NOW_MS, latency_ms=1)
    cut = replace(base, status=200, fault=Reason.CONNECTION, fault_message="cut")
    refused = replace(base, fault=Reason.CONNECTION, fault_message="refused", sent=False)
    stale = replace(base, fault=Reason.CONNECTION, fault_message="reset", reused=True)
    late = replace(base, fault=Reason.TIMEOUT, fault_message="late")
    large = replace(base, status=200, fault=Reason.BAD_RESPONSE, fault_message="large")
    assert [read_reply(one, CHAT) for one in (cut, refused, stale, late, large)] == [
        Failure(Reason.CONNECTION, "cut"),
        Failure(Reason.CONNECTION, "refused", trouble=Trouble.UNREACHABLE),
        Failure(Reason.CONNECTION, "reset", trouble=Trouble.STALE_CONNECTION),
        Failure(Reason.TIMEOUT, "late"),
        Failure(Reason.BAD_RESPONSE, "large"),
    ]


def test_the_message_of_a_fault_is_made_storable() -> None:
    fault = "bad \ud83d line\r\n" * 1000
    reply = Reply(NOW_MS, 1, fault=Reason.CONNECTION, fault_message=fault)
    verdict = read_reply(reply, CHAT)
    assert isinstance(verdict, Failure)
    assert verdict.message.startswith("bad \ufffd line bad \ufffd line ")
    assert len(verdict.message) == 500


# Retry-After

ASKED_FOR = [
    ({}, None),
    ({"retry-after": "7"}, 7.0),
    ({"retry-after": " 7 "}, 7.0),
    ({"retry-after": "0.5"}, 0.5),
    ({"retry-after": "0"}, 0.0),
    ({"retry-after": "Sun, 15 Jun 2025 15:07:10 GMT"}, 30.0),
    ({"retry-after": "Sun, 15 Jun 2025 15:07:10 -0000"}, 30.0),
    ({"retry-after": "Sun, 15 Jun 2025 17:07:10 +0200"}, 30.0),
    ({"retry-after": "Sun, 15 Jun 2025 15:00:00 GMT"}, 0.0),
    ({"retry-after": "1 Jan 99999999999999999999999 00:00:00 GMT"}, None),
    ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, 21600.0),
    ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
    ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
    ({"retry-after": "-5"}, None),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "inf"}, None),
    ({"retry-after": "1e999"}, None),
    ({"retry-after": "soon"}, None),
    ({"retry-after": ""}, None),
    ({"retry-after": "99999999999"}, 21600.0),
    ({"retry-after": "٣"}, 3.0),
    ({"x-ratelimit-reset-requests": "250ms", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
    ({"x-ratelimit-reset-requests": "1h2m3.5s"}, 3723.5),
    ({"x-ratelimit-reset": "12"}, 12.0),
    ({"x-ratelimit-reset": "1750000030000"}, None),  # OpenRouter: an instant, not a wait
    ({"x-ratelimit-reset": "1d"}, 21600.0),
    ({"x-ratelimit-reset": "12 parsecs"}, None),
    ({"x-ratelimit-reset": "9" * 400 + "d"}, 21600.0),
    ({"retry-after": "9" * 400}, None),
    ({"retry-after": "Mon, 01 Jan 0001 00:00:00 +2359"}, 0.0),
    ({"retry-after": "2", "x-ratelimit-reset-tokens": "6m0s"}, 2.0),
]


@pytest.mark.parametrize(("headers", "wait_s"), ASKED_FOR)
def test_how_long_a_server_asks_to_wait(headers: dict[str, str], wait_s: float | None) -> None:
    assert parse_retry_after(headers, NOW) == wait_s


@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "found"),
    [
        ("500", "499", "120ms", AnnouncedLimit(500, 499, 0.12)),
        ("500", "0", "9" * 400 + "d", AnnouncedLimit(500, 0, 21600)),
        ("9" * 400, "0", "1s", None),
        ("500", "1e300", "1s", None),
        ("500", "-1", "1s", None),
    ],
)
def test_a_limit_that_no_server_can_mean_is_bounded_or_none(
    limit: str, remaining: str, reset: str, found: AnnouncedLimit | None
) -> None:
    said = {
        "x-ratelimit-limit-tokens": limit,
        "x-ratelimit-remaining-tokens": remaining,
        "x-ratelimit-reset-tokens": reset,
    }
    assert announced_limit(said, "tokens") == found


def test_a_429_carries_the_wait_from_when_the_reply_came() -> None:
    found = failure(429, "slow down", retry_after="Sun, 15 Jun 2025 15:07:10 GMT")
    assert found == Failure(Reason.RATE_LIMIT, "429 slow down", retry_after_s=30.0)


def test_a_server_error_waits_as_asked_but_not_for_the_rate_limit_to_reset() -> None:
    # OpenAI sends its x-ratelimit headers with every reply.
    asked = failure(503, "busy", retry_after="9", x_ratelimit_reset_tokens="6m0s")
    silent = failure(503, "busy", x_ratelimit_reset_tokens="6m0s")
    assert asked == Failure(
        Reason.SERVER, "503 busy", retry_after_s=9.0, trouble=Trouble.UNAVAILABLE
    )
    assert silent == Failure(Reason.SERVER, "503 busy", trouble=Trouble.UNAVAILABLE)


# Whatever comes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
SURROGATES = st.text(st.characters(categories=["Cs", "Cc", "Lu"]), max_size=5)
STATUSES = st.sampled_from([200, 201, 204, 301, 400, 401, 402, 403, 404, 429, 500]) | st.integers(
    100, 999
)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@st.composite
def nearly_completions(draw: st.DrawFn) -> str:
    """Chat completions with anything in any place, error objects included."""
    odd = JSON | SURROGATES
    message = {
        name: draw(odd)
        for name in draw(st.sets(st.sampled_from(["content", "refusal", "tool_calls", "role"])))
    }
    choice: dict[str, Any] = {
        "message": draw(st.just(message) | odd),
        "finish_reason": draw(st.sampled_from(["stop", "length", "content_filter"]) | odd),
    }
    if draw(st.booleans()):
        choice["error"] = draw(odd)
    body: dict[str, Any] = {"choices": draw(st.just([choice]) | odd)}
    for name in draw(st.sets(st.sampled_from(["usage", "model", "error", "message"]))):
        body[name] = draw(odd | st.fixed_dictionaries({"message": odd, "code": odd, "type": odd}))
    return json.dumps(body)


def check_it_is_usable(verdict: Answer | Failure) -> None:
    if isinstance(verdict, Answer):
        verdict.text.encode()
        verdict.rest.encode()
        json.loads(verdict.rest, parse_constant=lambda name: pytest.fail(f"{name} in the rest"))
    else:
        verdict.message.encode()
        assert len(verdict.message) <= 600
        assert verdict.retry_after_s is None or 0 <= verdict.retry_after_s <= 21600
    for text in (verdict.model, verdict.finish_reason):
        assert text is None or text.encode() is not None
    for count in (verdict.usage.prompt_tokens, verdict.usage.completion_tokens):
        assert count is None or 0 <= count <= 20_000_000


@given(STATUSES, st.binary().map(lambda raw: raw.decode(errors="replace")) | JSON.map(json.dumps))
@example(200, "1" * 5000)
@example(200, '{"choices": [{"message": {"content": "x"}}], "n": ' + "1" * 5000 + "}")
def test_no_body_raises(status: int, body: str) -> None:
    check_it_is_usable(read_reply(reply(status, body), CHAT))


@given(nearly_completions(), STATUSES)
def test_nothing_that_looks_like_a_completion_raises(body: str, status: int) -> None:
    check_it_is_usable(read_reply(reply(status, body), CHAT))


@given(
    st.dictionaries(
        st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset"]),
        st.text()
        | st.from_regex(r"[0-9]{1,30}(\.[0-9]+)?(ms|s|m|h|d)?")
        | st.from_regex(
            r"[0-3]?[0-9] (Jan|Feb) [0-9]{1,30} [0-9]{2}:[0-9]{2}:[0-9]{2} [+-][0-9]{1,9}"
        ),
    )
)
def test_no_header_raises(headers: dict[str, str]) -> None:
    wait_s = parse_retry_after(headers, NOW)
    assert wait_s is None or 0 <= wait_s <= 21600


@pytest.mark.parametrize(
    "template",
    [
        "DEEP",
        '{"choices": [{"message": {"content": "x", "deep": DEEP}}]}',
        '{"choices": [{"message": {"content": DEEP}}]}',
        '{"choices": [{"message": {"refusal": DEEP}}]}',
        '{"error": {"message": DEEP, "code": DEEP, "type": DEEP}}',
        '{"error": DEEP}',
    ],
)
@pytest.mark.parametrize("status", [200, 400, 500])
def test_no_depth_raises(template: str, status: int) -> None:
    # Reading, writing and showing a value give up at different depths; one of these is between.
    for depth in [*range(880, 1010), 100_000]:
        check_it_is_usable(read_reply(reply(status, template.replace("DEEP", nested(depth))), CHAT))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"type": "server_error", "code": None}, Reason.SERVER),  # OpenAI
        ({"type": "overloaded_error"}, Reason.SERVER),  # Anthropic
        ({"type": "rate_limit_error"}, Reason.RATE_LIMIT),
        ({"type": "invalid_request_error", "code": None}, Reason.REJECTED),
        ({"code": "rate_limit_exceeded", "type": "tokens"}, Reason.RATE_LIMIT),
        ({"status": "UNAVAILABLE"}, Reason.SERVER),  # Gemini
        ({"type": "BadRequestError", "code": 503}, Reason.SERVER),  # a number counts
        ({"type": "of_no_kind"}, Reason.BAD_RESPONSE),
    ],
)
def test_an_error_in_the_middle_of_a_stream_has_the_status_that_its_name_says(
    error: dict[str, Any], reason: Reason
) -> None:
    said = {"message": {"role": "assistant", "content": "Half"}, "error": {**error, "message": "x"}}
    verdict = read_reply(Reply(0, 0, status=200, body=json.dumps({"choices": [said]})), CHAT)
    assert isinstance(verdict, Failure)
    assert verdict.reason is reason
