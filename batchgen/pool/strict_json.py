"""JSON that can be written as JSON again: without NaN, infinities and lone surrogates."""

import json
from json import JSONDecodeError
from typing import Any

from msgspec import MsgspecError
from msgspec.json import decode

from batchgen.text.json_text import NotStorableError, dump_json, strict_decoder

LONE_SURROGATE = "it has a lone surrogate (half of a \\u pair)"
# Finds the end of a value that the strict decoder refuses.
lenient_decoder = json.JSONDecoder(parse_int=len, parse_float=len)

_SURELY_READ_AGAIN = 500  # levels that every reader of JSON takes
_SURELY_SHALLOW = 2 * _SURELY_READ_AGAIN  # characters: a level takes two


def read_json(text: str) -> Any:
    """Raises ValueError or RecursionError, of which `problem_of` tells what is wrong."""
    try:
        value = decode(text)
    except (MsgspecError, RecursionError):  # json says better what is wrong
        return checked(strict_decoder.decode(text), text)
    if len(text) > _SURELY_SHALLOW and text.count("[") + text.count("{") > _SURELY_READ_AGAIN:
        strict_decoder.decode(text)  # it gives up at a lower depth
    return value


def problem_of(exc: ValueError | RecursionError) -> str:
    if isinstance(exc, JSONDecodeError) and exc.msg == "Extra data":
        return f"not JSON: there is more after the value, from column {exc.colno} on"
    if isinstance(exc, JSONDecodeError):
        return f"not JSON: {exc.msg} at column {exc.colno}"
    if "integer string conversion" in str(exc):  # Python's own words are about Python
        return "not usable JSON: a number has thousands of digits; write it as text"
    if isinstance(exc, RecursionError):
        return "not usable JSON: nested too deep"
    return f"not usable JSON: {exc}"


def checked(value: Any, text: str) -> Any:
    """`value`, which was read from `text`. Raises NotStorableError when an escape gave it a lone
    surrogate, which UTF-8 cannot hold."""
    if "\\" in text and "\\u" in text:  # most texts have neither; one character is found faster
        try:
            dump_json(value)
        except UnicodeEncodeError:
            raise NotStorableError(LONE_SURROGATE) from None
    return value
