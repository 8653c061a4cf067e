"""The parser json: the JSON in an answer, whatever text surrounds it."""

import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from batchgen.errors import ParseError
from batchgen.json_text import strict_decoder

MAX_STARTS = 1000  # places where the JSON may begin that are tried; each costs a pass of the text


_FENCE = re.compile(r"```[ \t]*json\b\s*", re.IGNORECASE)
_FENCE_END = re.compile(r"\s*(```|\Z)")
# What can begin an object or a list, unlike `{braces}` in a sentence.
_START = re.compile(r'\{\s*["}]|\[\s*[]\[{"tfn0-9-]')
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.?)*+(?:"|\Z)|[][{}]', re.DOTALL)


def parse_json(text: str, _item: Mapping[str, Any], _timeout_s: float | None = None) -> Any:
    """The whole text, if it is JSON; else the first fenced block marked `json` that is JSON; or, if
    there is no such block, the first object or list in the text."""
    try:
        return strict_decoder.decode(text)
    except json.JSONDecodeError:
        pass
    except (ValueError, RecursionError) as exc:
        raise _unusable(exc) from None
    fences = list(islice(_FENCE.finditer(text), MAX_STARTS))
    try:
        return _fenced_json(text, fences) if fences else _first_json(text)
    except (ValueError, RecursionError) as exc:
        raise _unusable(exc) from None


def _unusable(exc: ValueError | RecursionError) -> ParseError:
    problem = "nested too deep" if isinstance(exc, RecursionError) else str(exc)
    return ParseError(f"the JSON in the answer is unusable: {problem}")


def _fenced_json(text: str, fences: list[re.Match[str]]) -> Any:
    problem = ""
    for fence in fences:
        try:
            value, end = strict_decoder.raw_decode(text, fence.end())
        except json.JSONDecodeError as exc:
            problem = problem or str(exc)
            continue
        if _FENCE_END.match(text, end):
            return value
        problem = problem or "there is more after its first value"
    raise ParseError(f"the ```json block in the answer is not JSON: {problem}")


def _first_json(text: str) -> Any:
    """When a value that began well turns out to be broken, the search goes on after its closing
    bracket, as a part of a broken answer is not the answer. So the search is linear, but for the
    lines that Python counts for each error; hence `MAX_STARTS`."""
    problem, pos = "", 0
    for _ in range(MAX_STARTS):
        start = _START.search(text, pos)
        if start is None:
            break
        try:
            return strict_decoder.raw_decode(text, start.start())[0]
        except json.JSONDecodeError as exc:
            problem = problem or f"; what begins like it is broken: {exc}"
            began_well = exc.pos >= start.end()
            pos = _closing_bracket(text, start.start()) if began_well else start.start() + 1
    raise ParseError(f"no JSON in the answer{problem}")


def _closing_bracket(text: str, start: int) -> int:
    """The place after the bracket that closes the one at `start`; the text's end if none does."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text, start):
        if match[0] in ("{", "["):
            depth += 1
        elif match[0] in ("}", "]"):
            depth -= 1
        if depth == 0:
            return match.end()
    return len(text)
