"""Why a model stopped, in the words of each server: one table. Pure."""

import re
from enum import Enum
from functools import lru_cache
from typing import Any

from batchgen.text.foreign_json import text_or_none


class Finish(Enum):
    """What a finish reason means, and how servers call it, in lower case.

    END        the answer is whole
    CUT_OFF    it ends where it may have no more tokens
    FILTERED   a content filter stopped it
    BROKEN     the server failed while it wrote
    UNKNOWN    nobody knows; what came is taken for an answer
    """

    END = (
        "stop", "eos", "eos_token", "end_turn", "stop_sequence", "stop_str", "end", "complete",
        "completed", "tool_calls", "tool_call", "tool_use", "function_call", "pause_turn", "none",
        "null", "",
    )  # fmt: skip
    CUT_OFF = (
        "length", "max_tokens", "max_output_tokens", "max_length", "max_completion_tokens",
        "model_length", "model_context_window_exceeded", "context_length_exceeded", "token_limit",
        "context_window_exceeded",
    )  # fmt: skip
    FILTERED = (
        "content_filter", "content_filtered", "contentfilter", "content_policy", "sensitive",
        "safety", "recitation", "prohibited_content", "blocklist", "blocked", "spii", "refusal",
        "image_safety", "image_prohibited_content", "image_recitation", "model_armor",
        "guardrail_intervened", "guardrails", "moderation", "error_toxic",
    )  # fmt: skip
    BROKEN = (
        "error", "abort", "aborted", "network_error", "insufficient_system_resource", "cancelled",
        "canceled", "failed", "timeout", "incomplete", "overloaded", "model_error",
        "malformed_function_call", "malformed_response", "unexpected_tool_call",
    )  # fmt: skip
    UNKNOWN = None  # an empty tuple is no value of its own before Python 3.11.4


_KIND_OF = {name: kind for kind in Finish for name in kind.value or ()}
_PREFIX = re.compile(r"finish_?reason[_.]")
_SUFFIX = re.compile(r"[^a-z0-9_]")


@lru_cache(maxsize=1000)
def finish_of(finish_reason: str | None) -> Finish:
    """What it means; some servers add to it (`content_filter: RECITATION`)."""
    name = _PREFIX.sub("", (finish_reason or "").strip().lower())
    if name in _KIND_OF:
        return _KIND_OF[name]
    return _KIND_OF.get(_SUFFIX.split(name, maxsplit=1)[0] or name, Finish.UNKNOWN)


def finish_reason_of(value: Any) -> str | None:
    """The finish reason that a server has sent: some send an object of a type."""
    return text_or_none(value.get("type") if isinstance(value, dict) else value)


def is_cut_off(finish_reason: str | None) -> bool:
    """Whether the answer ends where it may have no more tokens."""
    return finish_of(finish_reason) is Finish.CUT_OFF


def is_filtered(finish_reason: str | None) -> bool:
    """Whether a content filter stopped it."""
    return finish_of(finish_reason) is Finish.FILTERED
