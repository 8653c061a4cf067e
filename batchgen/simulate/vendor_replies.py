"""What vendors answer, by names for the error mix: so that a run can be rehearsed with the words of
its own vendor. Pure data."""

import json
from typing import Any, NamedTuple


class VendorReply(NamedTuple):
    status: int
    body: str
    content_type: str = "application/json"


def _said(status: int, body: Any) -> VendorReply:
    return VendorReply(status, json.dumps(body, ensure_ascii=False))


def _error(status: int, message: str, code: Any = None, **more: Any) -> VendorReply:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return _said(status, {"error": {**error, **more}})


def _minimax(code: int, message: str) -> VendorReply:
    base = {"status_code": code, "status_msg": message}
    return _said(200, {"id": "x", "choices": None, "base_resp": base})


def _answer(message: dict[str, Any], finish_reason: str) -> VendorReply:
    choice = {"index": 0, "message": {"role": "assistant", **message}}
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    return _said(200, {"choices": [{**choice, "finish_reason": finish_reason}], "usage": usage})


_HALF = {"content": "half of an ans"}
_PAGE = "<html><head><title>403 Forbidden</title></head><body>Request blocked</body></html>"
_QUOTA = "You exceeded your current quota, please check your plan and billing details."
_DAILY = (
    "Rate limit reached for model `m` on requests per day (RPD): Limit 14400, Used 14400, "
    "Requested 1. Please try again in 6.5s."
)
_LARGE = (
    "Request too large for m in organization org-0 on tokens per min (TPM): Limit 30000, Requested "
    "45712. The input or output tokens must be reduced in order to run successfully."
)
_XAI = "Content violates usage guidelines. Model: m, Failed check: SAFETY_CHECK_TYPE_BIO"
_AZURE = (
    "The response was filtered due to the prompt triggering Azure OpenAI's content management "
    "policy."
)

VENDOR_REPLIES = {
    # that no request will work
    "no_key": _error(401, "Incorrect API key provided", "invalid_api_key"),
    "no_credit": _error(429, _QUOTA, "insufficient_quota", type="insufficient_quota"),
    "no_credit_402": _error(402, "Insufficient Balance"),
    "no_credit_dashscope": _error(
        400, "Access denied, please make sure your account is in good standing.", "Arrearage"
    ),
    "no_credit_zhipu": _error(429, "余额不足或无可用资源包,请充值。", "1113"),
    "no_credit_moonshot": _error(
        429, "Your account is suspended, please check your plan and billing details",
        type="exceeded_current_quota_error",
    ),
    "no_credit_new_api": _error(403, "用户额度不足, 剩余额度: 0", "insufficient_user_quota"),
    "no_credit_minimax": _minimax(1008, "insufficient balance"),
    "no_model": _error(404, "The model `m` does not exist", "model_not_found"),
    "no_model_zhipu": _error(400, "模型不存在，请检查模型代码。", "1211"),
    # that may be about one item, or about all
    "forbidden": _error(403, "You do not have permission to do this"),
    "firewall_403": VendorReply(403, _PAGE, "text/html"),
    # that a filter does not like it
    "content_400": _error(400, _AZURE, "content_filter"),
    "content_403": _said(403, {"code": "The caller does not have permission", "error": _XAI}),
    "content_dashscope": _error(
        400, "Input data may contain inappropriate content.", "data_inspection_failed"
    ),
    "content_zhipu": _error(400, "系统检测到输入或生成内容可能包含不安全或敏感内容", "1301"),
    "content_deepseek": _error(400, "Content Exists Risk"),
    "content_minimax": _minimax(1026, "input new_sensitive"),
    "content_gemini": _said(200, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}),
    "filter_without_message": _said(
        200, {"choices": [{"index": 0, "finish_reason": "content_filter"}]}
    ),
    # that the model failed
    "slip": _error(
        400, "Failed to validate JSON. See 'failed_generation' for more details.",
        "json_validate_failed", failed_generation='{"label": "positive" "score": 1}',
    ),
    "thoughts_only": _answer({"content": "", "reasoning_content": "The answer is 4."}, "stop"),
    "finish_error": _answer(_HALF, "error"),
    "finish_filter": _answer(_HALF, "content_filter: RECITATION"),
    "finish_cut_off": _answer(_HALF, "model_context_window_exceeded"),
    "finish_unknown": _answer(_HALF, "something_new"),
    # that the request is too large, or comes too often
    "too_long": _error(
        400, "This model's maximum context length is 8192 tokens. However, your messages resulted "
        "in 9000 tokens.", "context_length_exceeded",
    ),
    "too_large": _error(429, _LARGE, "rate_limit_exceeded", type="tokens"),
    "daily_quota": _error(429, _DAILY, "rate_limit_exceeded", type="requests"),
    "rate_minimax": _minimax(1002, "rate limit"),
    # that something is wrong, in a success
    "error_in_200": _said(200, {"error": "Unexpected endpoint or method. (POST /chat)"}),
    "code_in_200": _said(200, {"code": 500, "message": "try again"}),
}  # fmt: skip
