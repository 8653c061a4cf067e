"""What vendors call it when a key, a credit or a model is refused, when their filters are, and when
their model makes a slip. Pure.

Each line is a pattern, and who says so. Those of a halt are narrow on purpose: it stops everybody,
and an error may quote the item's own text. So they are looked for in the error's codes and at the
beginning of its message only. "billing" alone is in ordinary rate limit messages of OpenAI and
Groq, "current quota" in Gemini's, "insufficient_quota" beside "Allocated quota" in DashScope's.
"""

import re
from enum import Enum
from functools import cache

_MESSAGE_CHARS = 300


class Says(Enum):
    """What an error says, by the patterns for it: (pattern, who says so)."""

    NO_KEY = (
        (r"invalid_api_key|incorrect_api_key|invalid_authentication", "OpenAI, Moonshot"),
        (r"api_key_invalid|api[ _-]?key not (?:valid|found)|invalid[ -]?api[ -]?key", "Gemini"),
        (r"api[ _-]?key (?:has )?expired|key was reported as leaked", "Gemini"),
        (r"incorrect api key|failed_to_auth|authenticationerror", "xAI, Novita, Ark"),
    )
    NO_CREDIT = (
        (r"insufficient_quota|billing_not_active|billing[ _]hard[ _]limit", "OpenAI"),
        (r"credit balance is too low|credit_balance_too_low|billing_error", "Anthropic"),
        (r"insufficient[ _-]?(?:account[ _-])?(?:credit|balance|funds)|out of credits", "many"),
        (
            r"not[ _]enough[ _](?:balance|credit|quota)|balance is (?:insufficient|not enough)",
            "many",
        ),
        (r"used all available credits|doesn't have any credits", "xAI"),
        (r"credits are depleted|monthly included credits", "Gemini, Hugging Face"),
        (r"spend(?:ing)?[ _]limit|specified api usage limits", "Fireworks, xAI, Anthropic"),
        (r"(?:key|credit) limit exceeded", "OpenRouter, Together"),
        (r"arrearage|account is in good standing|in arrears", "DashScope, Zhipu abroad"),
        (r"exceeded_current_quota_error", "Moonshot"),
        (r"insufficient_user_quota|pre_consume_token_quota_failed", "one-api, new-api"),
        (r"accountoverdueerror|overdue balance|setlimitexceeded", "Ark"),
        (r"budget_exceeded|budget has been exceeded|exceededbudget", "LiteLLM"),
        (
            r"余额不足|余额已|欠费|额度不足|额度已用|额度失败|请充值|无可用资源包|套餐已到期",
            "Chinese vendors",
        ),
    )
    COMES_BACK = (  # a quota that does; then the same words are no lack of credit
        (r"allocated quota|allocationquota|quota limit", "DashScope"),
        (r"\bper[ _-](?:second|minute|hour|day|week)|\b[RT]P[SMHD]\b", "OpenAI, Groq"),
        (r"limit_requests|limit_tokens|resource_exhausted", "many"),
    )
    NO_MODEL = (
        (r"model_not_found|model_not_available|invalid_model\b|unknown_model", "OpenAI, Mistral"),
        (r"DeploymentNotFound", "Azure"),
        (r"(?:unknown|not a valid) model\b|invalid model(?: name\b|:)", "OpenRouter, LiteLLM"),
        (r"no endpoints found for|LLM Provider NOT provided", "OpenRouter, LiteLLM"),
        (
            r"\bmodels?[ :=/]*\S{0,200} ?(?:is |was |does |do |has )?"
            r"(?:not (?:found|exist|available|supported)|been (?:deprecated|decommissioned))\b",
            "many",
        ),
        (r"not found the model|model_decommissioned", "Moonshot, Groq"),
        (r"modelnotopen|invalidendpointormodel|unsupportedmodel", "Ark"),
        (r"no models? (?:is |are )?loaded", "LM Studio"),
        (
            r"模型\S{0,100}不存在|不存在的模型|模型\S{0,100}\s*无可用渠道|无可用渠道",
            "Zhipu, one-api",
        ),
    )
    NOT_HERE = (  # nor for this account
        (r"unsupported_country_region_territory", "OpenAI"),
        (r"\b(?:country|region|territory|location)[ ,\w]{0,40} not supported", "OpenAI, Gemini"),
        (r"organization_restricted|account_deactivated", "Groq, OpenAI"),
        (r"project has been denied access", "Gemini"),
    )
    WRONG_VERSION = (
        (r"MissingApiVersion|UnsupportedApiVersion|api-version query parameter", "Azure"),
        (r"\bapi[- ]version\b.{0,60}(?:not supported|is required|invalid)", "Azure"),
    )
    FILTERED = (
        (r"content[_ ]?filter|content_policy|content management policy", "OpenAI, Azure"),
        (r"ResponsibleAIPolicyViolation", "Azure"),
        (
            r"(?:prompt|content|input|request|text)\b.{0,40}\bviolat\w+ .{0,40}\b(?:usage|polic)",
            "xAI",
        ),
        (
            r"(?:prompt|content|input|request|text)\b.{0,40} was flagged|requires moderation",
            "OpenAI",
        ),
        (r"was flagged|considered high risk", "OpenRouter, Moonshot"),
        (r"data_?inspection_?failed|inappropriate content", "DashScope"),
        (r"content exists risk", "DeepSeek"),
        (r"sensitivecontentdetected|sensitive information", "Ark"),
        (r"sensitive_words?_detected|prompt_blocked|moderation_blocked|sensitive_check", "new-api"),
        (r"potentially (?:unsafe or )?sensitive content|new_sensitive", "Zhipu abroad, MiniMax"),
        (r"不安全或敏感|敏感内容|敏感信息|敏感词|内容安全", "Chinese vendors"),
    )
    SLIP = (  # of the model, which did not write what it was asked for
        (r"json_validate_failed|tool_use_failed", "Groq"),
        (r"output_parse_failed|tool call validation failed", "Groq"),
    )

    def is_in(self, error: str) -> bool:
        """Whether an error says it; `error` are its codes and then its message."""
        return _pattern(self).search(error) is not None


@cache
def _pattern(says: Says) -> re.Pattern[str]:
    return re.compile("|".join(pattern for pattern, _ in says.value), re.IGNORECASE)


# Codes that are numbers, with what stands beside them in words that nobody could look for.
_OF_NUMBER = {
    "1110": Says.NO_KEY,  # Zhipu: an account that is inactive, gone, locked
    "1111": Says.NO_KEY,
    "1112": Says.NO_KEY,
    "1121": Says.NO_KEY,
    "1113": Says.NO_CREDIT,
    "1211": Says.NO_MODEL,
    "1301": Says.FILTERED,
    "20012": Says.NO_MODEL,  # SiliconFlow
    "30001": Says.NO_CREDIT,
    "base_resp 1026": Says.FILTERED,  # MiniMax
    "base_resp 1027": Says.FILTERED,
}


def says(meaning: Says, codes: tuple[str, ...], message: str) -> bool:
    """Whether an error means that, by its codes and the beginning of its message."""
    if any(_OF_NUMBER.get(code) is meaning for code in codes):
        return True
    return meaning.is_in(f"{' '.join(codes)} {message[:_MESSAGE_CHARS]}")


# Where an error has come with a status 200, above all in the middle of a stream, and has no number.
_STATUS_OF_NAME = {
    "invalid_request_error": 400, "badrequesterror": 400, "invalid_argument": 400,
    "authentication_error": 401, "billing_error": 402, "permission_error": 403,
    "not_found_error": 404, "request_too_large": 413,
    "rate_limit_error": 429, "rate_limit_exceeded": 429, "insufficient_quota": 429,
    "throttling_error": 429, "resource_exhausted": 429, "too_many_requests": 429,
    "server_error": 500, "api_error": 500, "internal_error": 500, "internal_server_error": 500,
    "internalservererror": 500, "internal": 500, "generation": 500,
    "service_unavailable": 503, "unavailable": 503, "overloaded": 503,
    "timeout": 504, "timeout_error": 504, "deadline_exceeded": 504, "overloaded_error": 529,
}  # fmt: skip


def status_of_name(name: str) -> int | None:
    """The HTTP status that goes with what an error is called."""
    return _STATUS_OF_NAME.get(name.lower())


# MiniMax answers 200, and says in `base_resp` what it is; elsewhere such numbers mean otherwise.
_STATUS_OF_MINIMAX = {
    1000: 500, 1001: 504, 1002: 429, 1004: 401, 1008: 402, 1013: 500, 1024: 500, 1026: 400,
    1027: 400, 1033: 500, 1039: 429, 1041: 429, 1042: 400, 2013: 400, 2045: 429, 2049: 401,
    2056: 429, 2061: 403,
}  # fmt: skip


def status_of_minimax(code: int) -> int:
    """The HTTP status that others would have sent; 200 for a code that nobody knows."""
    return _STATUS_OF_MINIMAX.get(code, 200)
