"""Text as it is stored, compared and exported: UTF-8, and JSON on one line."""

import json
from collections.abc import Callable
from typing import Any, NoReturn

from msgspec import MsgspecError
from msgspec.json import Encoder, decode
from msgspec.json import encode as encode_compactly

# Made once: `json.dumps` makes an encoder for each call, a third of its time for an item.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_encode_canonically = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
).encode


class NotStorableError(ValueError):
    """Python can read it as JSON, but it cannot be written as JSON again."""


def _refuse_constant(name: str) -> NoReturn:
    raise NotStorableError(f"{name} is not JSON")


def _finite_float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise NotStorableError(f"the number {text[:20]} is too large")
    return number


strict_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite_float)
"""Raises NotStorableError for NaN, the infinities and numbers beyond what a float can hold."""


def is_storable(text: str) -> bool:
    """False: it has a surrogate, which UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def storable(text: str) -> str:
    """The text as UTF-8 can hold it: a surrogate pair becomes its character, half a pair U+FFFD.

    Whatever comes from outside passes here before it is kept: SQLite refuses half a pair.
    """
    if is_storable(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def dump_json(value: Any) -> str:
    """`value` as one line of JSON, UTF-8 text without ASCII escapes.

    Raises ValueError (NaN, infinity, a lone surrogate, nested too deep) or TypeError when JSON
    cannot hold it.
    """
    try:
        if type(value) is list and all(type(one) is str for one in value):  # what `tag:` makes
            return f"[{', '.join([encode_compactly(one).decode() for one in value])}]"
        text = _encode(value)
        text.encode()
    except RecursionError as exc:
        raise ValueError("nested too deep") from exc
    return text


def text_json(text: str | None) -> str:
    """A text as JSON, without ASCII escapes."""
    return encode_compactly(text).decode()


def load_json(text: str) -> Any:
    """What `dump_json` has written, or JSON that was checked to be such."""
    try:
        return decode(text)
    except MsgspecError:  # an integer of a thousand digits
        return json.loads(text)


def sent_json(value: Any) -> bytes:
    """JSON to send, without spaces; half a character, which JSON cannot hold, as `?`."""
    try:
        return encode_compactly(value)
    except UnicodeEncodeError:
        return _encode(value).encode(errors="replace")


def logged_json(value: Any) -> bytes:
    """JSON for people to read later, without spaces; half a character is written as its escape."""
    try:
        return encode_compactly(value)
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def canonical_json(value: Any) -> str:
    """JSON that is the same for equal values, whatever the order of their keys."""
    return _encode_canonically(value)


content_of: Callable[[Any], bytes] = Encoder(order="sorted").encode
"""The same for equal items, whatever the order of their keys, and for no others. What it is given
was read from JSON: of other values, such as NaN, it would make no difference."""


def same_content(one: str, other: str) -> bool:
    """Whether two items, as JSON, are equal."""
    return one == other or content_of(load_json(one)) == content_of(load_json(other))


def is_stored_as_given(text: str) -> bool:
    """Whether JSON can be stored, and written out, just as it came: it is on one line, and has no
    characters as escapes, of which exports are free."""
    return "\n" not in text and "\r" not in text and not ("\\" in text and "\\u" in text)
