"""Why a model stopped, in the words of each server. Pure."""

_CUT_OFF = frozenset({"length", "max_output_tokens"})
_FILTERED = frozenset({"content_filter"})


def is_cut_off(finish_reason: str | None) -> bool:
    """Whether the answer ends where it may have no more tokens."""
    return finish_reason in _CUT_OFF


def is_filtered(finish_reason: str | None) -> bool:
    """Whether a content filter stopped it."""
    return finish_reason in _FILTERED
