"""JSON and text that a server sent: nothing of its shape is trusted. Pure."""

import json
from json import JSONDecodeError
from typing import Any

from msgspec import MsgspecError
from msgspec.json import decode, encode

from batchgen.text.json_text import is_storable, storable

_MESSAGE_CHARS = 500
_SURELY_READ_AGAIN = 500  # levels that every reader of JSON takes


def load_json(body: str | None) -> Any:
    """The body as JSON; None: it is none, or nested too deep. NaN, the infinities and half a
    character are read, too. A number that is longer than Python reads spoils nothing else: it is
    taken for infinite."""
    try:
        return decode(body or "")
    except (MsgspecError, UnicodeError, RecursionError):
        return _load_leniently(body)


def _load_leniently(body: str | None) -> Any:
    """What msgspec, which is stricter and several times as fast, does not read."""
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
        text = encode(value).decode()
        is_long = len(text) > _SURELY_READ_AGAIN
        if is_long and text.count("[") + text.count("{") > _SURELY_READ_AGAIN:
            json.loads(text)  # it gives up at a lower depth than msgspec
        return text
    except UnicodeEncodeError:  # half a character, which only an escape can hold
        text = json.dumps(value, separators=(",", ":"))
        return json.dumps(json.loads(text, parse_constant=lambda _: None), separators=(",", ":"))


def shorten(text: str | None) -> str:
    """A text on one line, short enough for a message, and storable."""
    words = " ".join((text or "").split()) if len(text or "") < 100_000 else (text or "")[:1000]
    words = storable(words)
    return words if len(words) <= _MESSAGE_CHARS else words[: _MESSAGE_CHARS - 1] + "…"


def text_or_none(value: Any) -> str | None:
    """The value if it is a text that can be stored."""
    return value if isinstance(value, str) and is_storable(value) else None
