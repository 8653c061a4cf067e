"""The tokens that a call used, as the server counted them. Pure."""

from typing import Any

from batchgen.items import Usage

# What no server can mean: a number beyond it is taken for one that was not said, as a sum of such
# would not fit where it is kept.
_MOST_TOKENS = 20_000_000  # twice the largest context of any model


def usage_of(body: Any) -> Usage:
    """Those that the body of a reply states."""
    usage = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(usage, dict):
        return Usage()
    prompt = usage.get("prompt_tokens_details")
    completion = usage.get("completion_tokens_details")
    return Usage(
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        _count(prompt.get("cached_tokens")) if isinstance(prompt, dict) else None,
        _count(completion.get("reasoning_tokens")) if isinstance(completion, dict) else None,
    )


def _count(value: Any) -> int | None:
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS
    return value if fits else None
