"""The names of what a request can ask besides its model and prompt, by the kind of their value:
OpenAI's parameters of a chat completion, those of its other endpoints, and those that other servers
read in the same requests."""

from collections.abc import Mapping
from itertools import chain

OPENAI: Mapping[str, tuple[str, ...]] = {
    "max_tokens": ("max_completion_tokens", "max_tokens"),
    "one": ("n",),
    "count": ("top_logprobs",),
    "integer": ("seed",),
    "number": ("frequency_penalty", "presence_penalty", "temperature", "top_p"),
    "flag": ("logprobs", "parallel_tool_calls", "store"),
    "text": (
        *("prompt_cache_key", "prompt_cache_retention", "reasoning_effort", "safety_identifier"),
        *("service_tier", "user", "verbosity"),
    ),
    "stop": ("stop",),
    "text_or_mapping": ("function_call", "tool_choice"),
    "list": ("functions", "modalities", "tools"),
    "extra_body": ("extra_body",),
    "mapping": (
        *("audio", "logit_bias", "metadata", "moderation", "prediction"),
        *("prompt_cache_options", "response_format", "web_search_options"),
    ),
}
# What OpenAI's other endpoints have beside, or in place of, these.
OTHERS: Mapping[str, tuple[str, ...]] = {
    "max_tokens": ("max_output_tokens",),
    "positive": ("best_of", "dimensions", "max_tool_calls"),
    "flag": ("echo",),
    "text": ("encoding_format", "previous_response_id", "suffix", "truncation"),
    "list": ("include",),
    "mapping": ("text",),
}
# Of vLLM, SGLang, TGI, DashScope, Zhipu, DeepSeek, Mistral, OpenRouter, xAI...
VENDORS: Mapping[str, tuple[str, ...]] = {
    "integer": (
        *("min_tokens", "prompt_logprobs", "random_seed", "thinking_budget", "top_k"),
        *("truncate_prompt_tokens",),
    ),
    "number": ("length_penalty", "min_p", "repetition_penalty", "top_a", "typical_p"),
    "flag": (
        *("add_generation_prompt", "add_special_tokens", "continue_final_message", "do_sample"),
        *("enable_search", "enable_thinking", "ignore_eos", "include_reasoning"),
        *("include_stop_str_in_output", "safe_prompt", "separate_reasoning"),
        *("skip_special_tokens", "spaces_between_special_tokens", "use_beam_search"),
    ),
    "text": (
        *("chat_template", "guided_decoding_backend", "guided_grammar", "guided_regex"),
        *("prompt_mode", "reasoning_format"),
    ),
    "text_or_mapping": ("guided_json",),
    "list": ("bad_words", "documents", "guided_choice", "plugins", "stop_token_ids", "transforms"),
    "mapping": (
        *("chat_template_kwargs", "mm_processor_kwargs", "reasoning", "search_options"),
        *("search_parameters", "structured_outputs", "thinking", "vllm_xargs"),
    ),
}

OPENAI_NAMES = frozenset(chain.from_iterable(OPENAI.values()))
PARAMETER_NAMES = OPENAI_NAMES | frozenset(chain.from_iterable(VENDORS.values()))
"""Those that a chat completion may have."""

# What an endpoint certainly has no parameter for, and nothing that would do instead. A server that
# has one all the same is sent it by extra_body.
OF_OTHER_ENDPOINTS = frozenset(chain.from_iterable(OTHERS.values()))
NOT_OF_RESPONSES = frozenset(
    (
        *("audio", "best_of", "dimensions", "echo", "encoding_format", "function_call"),
        *("functions", "modalities", "prediction", "suffix", "web_search_options"),
    )
)
# Some servers follow a response_format in completions too.
_OF_COMPLETIONS = frozenset(
    (
        *("best_of", "echo", "extra_body", "frequency_penalty", "logit_bias", "logprobs"),
        *("max_completion_tokens", "max_tokens", "n", "presence_penalty", "response_format"),
        *("seed", "stop", "suffix", "temperature", "top_logprobs", "top_p", "user"),
    )
)
_OF_EMBEDDINGS = frozenset(("dimensions", "encoding_format", "extra_body", "user"))
NOT_OF_COMPLETIONS = (OPENAI_NAMES | OF_OTHER_ENDPOINTS) - _OF_COMPLETIONS
NOT_OF_EMBEDDINGS = (OPENAI_NAMES | OF_OTHER_ENDPOINTS) - _OF_EMBEDDINGS

ENDPOINT_PATHS = {
    "chat": "/chat/completions",
    "responses": "/responses",
    "completions": "/completions",
    "embeddings": "/embeddings",
}
"""Where each endpoint is, by its name in the config."""

LARGEST_MAX_TOKENS = 10**9
"""What `max_tokens` may be at most: a budget adds up such numbers, and they must stay countable."""
