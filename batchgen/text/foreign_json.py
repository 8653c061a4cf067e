"""JSON and text that a server sent: nothing of its shape is trusted. Pure."""

import json
from json import JSONDecodeError
from typing import Any

from batchgen.text.json_text import is_storable, storable

_MESSAGE_CHARS = 500


def load_json(body: str | None) -> Any:
    """The body as JSON; None: it is none, or nested too deep. A number that is longer than Python
    reads spoils nothing else: it is taken for infinite."""
    try:
        try:
            return json.loads(body or "")
        except JSONDecodeError:
            return None
        except ValueError:
            return json.loads(body or "", parse_int=_int_or_infinite)
    except (ValueError, RecursionError):
        return None


def _int_or_infinite(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def dump_whole(value: Any) -> str:
    """What `load_json` read, as JSON again: NaN and the infinities, which JSON does not have,
    become null. Raises RecursionError when it is nested too deep."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return dump_whole(json.loads(json.dumps(value), parse_constant=lambda _: None))
    return text if is_storable(text) else json.dumps(value, separators=(",", ":"))


def shorten(text: str | None) -> str:
    """A text on one line, short enough for a message, and storable."""
    words = " ".join((text or "").split()) if len(text or "") < 100_000 else (text or "")[:1000]
    words = storable(words)
    return words if len(words) <= _MESSAGE_CHARS else words[: _MESSAGE_CHARS - 1] + "…"


def text_or_none(value: Any) -> str | None:
    """The value if it is a text that can be stored."""
    return value if isinstance(value, str) and is_storable(value) else None
