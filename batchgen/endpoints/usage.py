"""The tokens that a call used, as the server counted them, and for which service. Pure."""

from collections.abc import Mapping
from typing import Any

from batchgen.items import Usage
from batchgen.text.foreign_json import text_or_none

# What no server can mean: a number beyond it is taken for one that was not said, as a sum of such
# would not fit where it is kept.
_MOST_TOKENS = 20_000_000  # twice the largest context of any model


def usage_of(body: Any) -> Usage:
    """Those that the body of a reply states."""
    usage = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(usage, dict):
        return Usage()
    return Usage(
        _count(_either(usage, "prompt_tokens", "input_tokens")),
        _count(_either(usage, "completion_tokens", "output_tokens")),
        _part(usage, ("prompt_tokens_details", "input_tokens_details"), "cached_tokens"),
        _part(usage, ("completion_tokens_details", "output_tokens_details"), "reasoning_tokens"),
        text_or_none(body.get("service_tier") or usage.get("service_tier")),
    )


def _either(usage: Mapping[str, Any], name: str, other: str) -> Any:
    """Responses call tokens otherwise than chat completions; some servers use both names."""
    value = usage.get(name)
    return usage.get(other) if value is None else value


def _part(usage: Mapping[str, Any], groups: tuple[str, str], name: str) -> int | None:
    details = _either(usage, *groups)
    return _count(details.get(name)) if isinstance(details, dict) else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None
