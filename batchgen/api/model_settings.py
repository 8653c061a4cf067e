"""The settings of the section `model`, which pipelines and steps have as keywords."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

Values = Mapping[str, Any]


class ModelSettings(TypedDict, total=False):
    """What a step may have of its own of the section `model`, but for `model` and `user`."""

    api_key: str | None
    base_url: str
    endpoint: Literal["chat", "responses", "completions", "embeddings"]
    headers: Values | None
    query: Values | None
    stream: bool
    rate_limit: int | None
    token_limit: int | None
    price: Values | None
    servers: Sequence[Values] | None

    max_completion_tokens: int | None
    max_tokens: int | None
    n: int | None
    top_logprobs: int | None
    seed: int | None
    frequency_penalty: float | None
    presence_penalty: float | None
    temperature: float | None
    top_p: float | None
    logprobs: bool | None
    parallel_tool_calls: bool | None
    store: bool | None
    prompt_cache_key: str | None
    prompt_cache_retention: str | None
    reasoning_effort: str | None
    safety_identifier: str | None
    service_tier: str | None
    verbosity: str | None
    stop: str | Sequence[str] | None
    function_call: str | Values | None
    tool_choice: str | Values | None
    functions: Sequence[Any] | None
    modalities: Sequence[Any] | None
    tools: Sequence[Any] | None
    extra_body: Values | None
    audio: Values | None
    logit_bias: Values | None
    metadata: Values | None
    moderation: Values | None
    prediction: Values | None
    prompt_cache_options: Values | None
    response_format: Values | None
    web_search_options: Values | None

    # Of other endpoints.
    max_output_tokens: int | None
    best_of: int | None
    dimensions: int | None
    max_tool_calls: int | None
    echo: bool | None
    encoding_format: str | None
    previous_response_id: str | None
    suffix: str | None
    truncation: str | None
    include: Sequence[Any] | None
    text: Values | None

    # Of other servers.
    min_tokens: int | None
    prompt_logprobs: int | None
    random_seed: int | None
    thinking_budget: int | None
    top_k: int | None
    truncate_prompt_tokens: int | None
    length_penalty: float | None
    min_p: float | None
    repetition_penalty: float | None
    top_a: float | None
    typical_p: float | None
    add_generation_prompt: bool | None
    add_special_tokens: bool | None
    continue_final_message: bool | None
    do_sample: bool | None
    enable_search: bool | None
    enable_thinking: bool | None
    ignore_eos: bool | None
    include_reasoning: bool | None
    include_stop_str_in_output: bool | None
    safe_prompt: bool | None
    separate_reasoning: bool | None
    skip_special_tokens: bool | None
    spaces_between_special_tokens: bool | None
    use_beam_search: bool | None
    chat_template: str | None
    guided_decoding_backend: str | None
    guided_grammar: str | None
    guided_regex: str | None
    prompt_mode: str | None
    reasoning_format: str | None
    guided_json: str | Values | None
    bad_words: Sequence[Any] | None
    documents: Sequence[Any] | None
    guided_choice: Sequence[Any] | None
    plugins: Sequence[Any] | None
    stop_token_ids: Sequence[Any] | None
    transforms: Sequence[Any] | None
    chat_template_kwargs: Values | None
    mm_processor_kwargs: Values | None
    reasoning: Values | None
    search_options: Values | None
    search_parameters: Values | None
    structured_outputs: Values | None
    thinking: Values | None
    vllm_xargs: Values | None
