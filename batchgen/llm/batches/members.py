"""Members of what a provider sends, each of its type or not there. Pure."""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from batchgen.llm.batches.protocol import Seen, Standing
from batchgen.text.foreign_json import text_or_none

METADATA_KEY = "batchgen"
"""In a batch's metadata, under which its token is."""

_NO_TIME_IN_SECONDS = 1e11


def text_in(body: Any, name: str) -> str | None:
    """A text that is not empty: some providers send an empty one for none."""
    return text_or_none(body.get(name)) or None if isinstance(body, dict) else None


def count_in(body: Any, name: str) -> int:
    """A number of requests, 0 where it is not told."""
    value = body.get(name) if isinstance(body, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def ms_in(body: Any, name: str) -> int | None:
    """A time that is told in seconds since 1970."""
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return int(value * 1000) if 0 < value < _NO_TIME_IN_SECONDS else None


def token_in(body: Mapping[str, Any]) -> str | None:
    return text_in(body.get("metadata"), METADATA_KEY)


def as_it_went(seen: Seen) -> Seen:
    """A batch that failed with answers has run: what was answered by then is billed, and in its
    file. So it is as one whose time was over."""
    has_run = seen.standing is Standing.FAILED and (seen.answered or seen.output_file)
    return replace(seen, standing=Standing.EXPIRED) if has_run else seen
