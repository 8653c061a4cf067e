"""What vendors say, each in its own words, and what it is taken for: a halt, a refusal, the item's
own fault, a wait, a slip of the model."""

# ruff: noqa: E501 - what servers say is quoted in full

import json
from typing import Any

import pytest

from batchgen.endpoints import CHAT
from batchgen.endpoints.finish import Finish, finish_of
from batchgen.items import Answer, Failure, Reason, Reply
from batchgen.llm.replies import read_reply

KEY, CREDIT, RIGHT, MODEL = "API key", "credit", "may not do this", "know the model"


def read(status: int, body: Any) -> Answer | Failure:
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    return read_reply(Reply(started_at=0, latency_ms=1, status=status, body=text), CHAT)


def error(message: str, code: Any = None, kind: str | None = None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "code": code, "type": kind, "param": None, **more}}


def minimax(code: int, words: str) -> dict[str, Any]:
    return {"id": "x", "choices": None, "base_resp": {"status_code": code, "status_msg": words}}


HALTS = [
    # no credit
    (429, error("You exceeded your current quota, please check your plan and billing details. For more information on this error, read the docs.", "insufficient_quota", "insufficient_quota"), CREDIT),
    (400, error("Access denied, please make sure your account is in good standing.", "Arrearage", "Arrearage"), CREDIT),
    (429, error("余额不足或无可用资源包,请充值。", "1113"), CREDIT),
    (429, error("Your account is in arrears, please recharge and try again", "1113"), CREDIT),
    (429, error("Your account org-1 is suspended, please check your plan and billing details", None, "exceeded_current_quota_error"), CREDIT),
    (403, error("用户额度不足, 剩余额度: ＄0.000000 (request id: 1)", "insufficient_user_quota", "new_api_error"), CREDIT),
    (403, error("预扣费额度失败, 用户剩余额度: 1", "pre_consume_token_quota_failed"), CREDIT),
    (402, error("Insufficient Balance", "invalid_request_error"), CREDIT),
    (402, error("This request requires more credits, or fewer max_tokens.", 402), CREDIT),
    (403, error("The request failed because your account has an overdue balance. Request ID: 1", "AccountOverdueError", "Forbidden"), CREDIT),
    (429, error("Your account 1 has reached the set inference limit for the m model, and the model service has been paused.", "SetLimitExceeded", "TooManyRequests"), CREDIT),
    (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."}}, CREDIT),
    (429, {"code": "Some resource has been exhausted", "error": "Your team 1 has either used all available credits or reached its monthly spending limit."}, CREDIT),
    (403, {"code": "no permission", "error": "Your newly created team doesn't have any credits or licenses yet."}, CREDIT),
    (400, error("Budget has been exceeded! Current cost: 10.1, Max budget: 10.0", "400", "budget_exceeded"), CREDIT),
    (403, {"code": 30001, "message": "Sorry, your account balance is insufficient", "data": None}, CREDIT),
    (403, {"code": 403, "reason": "NOT_ENOUGH_BALANCE", "message": "not enough balance"}, CREDIT),
    (200, minimax(1008, "insufficient balance"), CREDIT),
    (412, error("Account x-1 is suspended, possibly due to reaching the monthly spending limit or failure to pay past invoices.", None, "PRECONDITION_FAILED"), CREDIT),
    (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."}}, CREDIT),
    (403, error("Key limit exceeded (total limit). Manage it using https://openrouter.ai/settings/keys", 403), CREDIT),
    (403, error("Credit limit exceeded, please navigate to https://api.together.ai/settings/billing to upgrade your account.", "credit_limit"), CREDIT),
    (429, error("Your prepayment credits are depleted. Please go to AI Studio to manage your project and billing.", 429, status="RESOURCE_EXHAUSTED"), CREDIT),
    (429, error("You have reached your monthly included credits for Inference Providers."), CREDIT),
    (429, error("您的 GLM Coding Plan 套餐已到期，暂无法使用，请在官网续订后恢复使用", "1309"), CREDIT),
    # the key
    (400, [{"error": {"code": 400, "message": "API key expired. Please renew the API key.", "status": "INVALID_ARGUMENT"}}], KEY),
    (403, error("Your API key was reported as leaked. Please use another API key.", 403, status="PERMISSION_DENIED"), KEY),
    (401, error("Invalid Authentication", None, "invalid_authentication_error"), KEY),
    (400, [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT"}}], KEY),
    (400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***. You can obtain one from https://console.x.ai."}, KEY),
    (403, {"code": 403, "reason": "INVALID_API_KEY", "message": "invalid API key"}, KEY),
    (200, minimax(1004, "login fail: Please carry the API secret key"), KEY),
    (200, minimax(2049, "invalid api key"), KEY),
    (429, error("您的账户已被锁定", "1112"), None),  # no 429 is about a key: it waits, and stall_s ends it
    (403, error("Country, region, or territory not supported", "unsupported_country_region_territory"), RIGHT),
    (400, error("User location is not supported for the API use.", 400, status="FAILED_PRECONDITION"), RIGHT),
    (400, error("Organization has been restricted. Please reach out to support if you believe this was in error.", "organization_restricted", "invalid_request_error"), RIGHT),
    # the model
    (404, error("The model `m` does not exist or you do not have access to it.", "model_not_found"), MODEL),
    (400, error("模型不存在，请检查模型代码。", "1211"), MODEL),
    (400, error("Model Not Exist", "invalid_request_error"), MODEL),
    (400, {"code": 20012, "message": "Model does not exist. Please check it carefully.", "data": None}, MODEL),
    (404, error("Not found the model kimi-9 or Permission denied", None, "resource_not_found_error"), MODEL),
    (404, error("The model or endpoint m does not exist or you do not have access to it. Request id: 1", "InvalidEndpointOrModel.NotFound", "NotFound"), MODEL),
    (404, error("Your account 1 has not activated the model m. Please activate the model service in the Ark Console.", "ModelNotOpen"), MODEL),
    (404, error("No endpoints found for x/y.", 404), MODEL),
    (400, error("x/y is not a valid model ID", 400), MODEL),
    (404, error("The API deployment for this resource does not exist.", "DeploymentNotFound"), MODEL),
    (404, {"error": {"message": 'model "llama9" not found, try pulling it first', "type": "api_error"}}, MODEL),
    (400, error("Invalid model name passed in model=x. Call `/v1/models` to view available models for your key.", "400"), MODEL),
    (400, error("The model `x` has been decommissioned and is no longer supported.", "model_decommissioned"), MODEL),
    (400, {"object": "error", "message": "Invalid model: x", "type": "invalid_model", "param": None, "code": "1500"}, MODEL),
    (503, error("当前分组 default 下对于模型 gpt-9 无可用渠道", "model_not_found", "new_api_error"), MODEL),
    (404, error("No models loaded. Please load a model in the developer page.", "model_not_found"), MODEL),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "halt"), HALTS)
def test_what_no_request_can_help_halts(status: int, body: Any, halt: str | None) -> None:
    found = read(status, body)
    assert isinstance(found, Failure)
    assert (halt is None and found.halt is None) or (halt or "?") in (found.halt or ""), found
    assert found.is_sure


REFUSALS = [
    (403, {"code": "The caller does not have permission", "error": "Content violates usage guidelines. Model: m, Failed check: SAFETY_CHECK_TYPE_BIO"}),
    (400, error("Input data may contain inappropriate content.", "data_inspection_failed", "data_inspection_failed")),
    (400, error("系统检测到输入或生成内容可能包含不安全或敏感内容，请您避免输入易产生敏感内容的提示语。", "1301")),
    (400, error("Content Exists Risk", "invalid_request_error")),
    (400, error("The request failed because the input text may contain sensitive information. Request ID: 1", "InputTextSensitiveContentDetected", "BadRequest")),
    (400, error("The response was filtered due to the prompt triggering Azure OpenAI's content management policy.", "content_filter", innererror={"code": "ResponsibleAIPolicyViolation"})),
    (400, error("The request was rejected because it was considered high risk", None, "content_filter")),
    (400, error("Invalid prompt: your prompt was flagged as potentially violating our usage policy.", "invalid_prompt")),
    (403, error("Your chosen model requires moderation and your input was flagged", 403)),
    (400, error("sensitive words detected", "sensitive_words_detected", "new_api_error")),
    (421, error("Content moderation blocked", "content_filter")),
    (200, minimax(1026, "input new_sensitive")),
    (200, minimax(1027, "output new_sensitive")),
    (200, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {}}),
    (200, {"choices": [], "prompt_feedback": {"block_reason": "OTHER"}}),
    (200, {"choices": [{"index": 0, "finish_reason": "content_filter"}]}),
    (200, {"choices": [], "prompt_filter_results": [{"content_filter_results": {"hate": {"filtered": True}}}]}),
    (200, {"choices": [{"message": {"role": "assistant", "content": ""}, "finish_reason": "stop", "content_filter_results": {"violence": {"filtered": True}}}]}),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body"), REFUSALS)
def test_a_filter_is_a_refusal_however_it_is_called(status: int, body: Any) -> None:
    found = read(status, body)
    assert isinstance(found, Failure)
    assert (found.reason, found.halt) == (Reason.REFUSAL, None)


OF_THE_REQUEST = [
    (400, error("Your request exceeded model token limit : 262144", None, "invalid_request_error"), Reason.REJECTED),
    (400, error("Input token length too long", None, "invalid_request_error"), Reason.REJECTED),
    (400, error("Range of input length should be [1, 30720]", "invalid_parameter_error"), Reason.REJECTED),
    (400, error("prompt is too long: 345320 tokens > 199999 maximum"), Reason.REJECTED),
    (400, error("the request exceeds the available context size", 400, "exceed_context_size_error"), Reason.REJECTED),
    (400, error("输入长度超过限制", "1261"), Reason.REJECTED),
    (400, error("Input validation error: " + "x" * 300 + " insufficient_quota 欠费"), Reason.REJECTED),
    (200, minimax(2013, "invalid params, context window exceeds limit"), Reason.REJECTED),
    # quotas that come back
    (429, error("Rate limit reached for model `m` in organization `o` on requests per day (RPD): Limit 14400, Used 14400, Requested 1.", "rate_limit_exceeded"), Reason.RATE_LIMIT),
    (429, error("You exceeded your current quota, please check your plan and billing details. * Quota exceeded for metric: generate_requests_per_day", 429, status="RESOURCE_EXHAUSTED"), Reason.RATE_LIMIT),
    (429, error("Allocated quota exceeded, please increase your quota limit.", "insufficient_quota", "insufficient_quota"), Reason.RATE_LIMIT),
    (429, error("该模型当前访问量过大，请您稍后再试", "1305"), Reason.RATE_LIMIT),
    (429, error("The engine is currently overloaded, please try again later", None, "engine_overloaded_error"), Reason.RATE_LIMIT),
    (200, minimax(1002, "rate limit"), Reason.RATE_LIMIT),
    (200, minimax(2056, "usage limit exceeded"), Reason.RATE_LIMIT),
    (200, {"code": 429, "message": "slow down"}, Reason.RATE_LIMIT),
    (200, minimax(1024, "internal error"), Reason.SERVER),
    (200, {"code": 503, "msg": "busy", "data": None}, Reason.SERVER),
    (503, error("当前服务繁忙"), Reason.SERVER),
    (498, error("Flex tier capacity exceeded", "capacity_exceeded"), Reason.SERVER),
    (424, {"error": "Request failed during generation: Server error", "error_type": "generation"}, Reason.SERVER),
    # nobody knows
    (200, {"error": "Unexpected endpoint or method. (POST /chat/completions)"}, Reason.BAD_RESPONSE),
    (200, {"code": 7, "message": "something"}, Reason.BAD_RESPONSE),
    (200, minimax(999999, "what?"), Reason.BAD_RESPONSE),
    (200, {"code": 0, "message": "ok", "data": None}, Reason.BAD_RESPONSE),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "reason"), OF_THE_REQUEST)
def test_what_is_about_this_request_or_this_moment_halts_nobody(
    status: int, body: Any, reason: Reason
) -> None:
    found = read(status, body)
    assert isinstance(found, Failure)
    assert (found.reason, found.halt) == (reason, None)


def test_the_slip_of_a_model_is_an_answer_that_its_parser_cannot_use() -> None:
    body = error(
        "Failed to validate JSON. See 'failed_generation' for more details.",
        "json_validate_failed", failed_generation='{"label": "positive" "score": 1}',
    )  # fmt: skip
    found = read(400, body)
    assert isinstance(found, Answer)
    assert found.text == '{"label": "positive" "score": 1}'
    assert found.slip == "400 Failed to validate JSON. See 'failed_generation' for more details."
    assert 'failed_generation":' not in found.rest


def answer(finish_reason: Any, content: str = "half of an ans") -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}]}


@pytest.mark.parametrize(
    ("finish_reason", "finish"),
    [
        *((name, Finish.END) for name in ("stop", "STOP", None, "", "eos_token", "end_turn", "tool_calls", {"type": "stop", "matched": 2})),
        *((name, Finish.CUT_OFF) for name in ("length", "MAX_TOKENS", "model_length", "model_context_window_exceeded")),
        *((name, Finish.FILTERED) for name in ("content_filter: RECITATION", "content_filter", "sensitive", "SAFETY", "PROHIBITED_CONTENT", "FINISH_REASON_SPII", "guardrail_intervened")),
        *((name, Finish.BROKEN) for name in ("error", "abort", "network_error", "insufficient_system_resource", "MALFORMED_FUNCTION_CALL", {"type": "abort"})),
        *((name, Finish.UNKNOWN) for name in ("OTHER", "something_new", "stopped early")),
    ],
)  # fmt: skip
def test_what_a_finish_reason_means(finish_reason: Any, finish: Finish) -> None:
    found = read(200, answer(finish_reason))
    assert finish_of(found.finish_reason) is finish
    reasons = {Finish.FILTERED: Reason.REFUSAL, Finish.BROKEN: Reason.SERVER}
    if finish in reasons:
        assert isinstance(found, Failure)
        assert found.reason is reasons[finish]
        assert "half of an ans" not in found.message  # or each item would be a group of its own
    else:
        assert isinstance(found, Answer)
        assert found.text == "half of an ans"
