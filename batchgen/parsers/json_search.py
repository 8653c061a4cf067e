"""Objects and lists of JSON in a text, wherever they stand."""

import json
import re
from collections.abc import Iterator
from typing import Any

from batchgen.text.json_text import strict_decoder

MAX_STARTS = 1000  # places where the JSON may begin that are tried; each costs a pass of the text

# What can begin an object or a list, unlike `{braces}` in a sentence.
_START = re.compile(r'\{\s*["}]|\[\s*[]\[{"tfn0-9-]')
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.?)*+(?:"|\Z)|[][{}]', re.DOTALL)


class JsonSearch:
    """The search through one text; `problem` is what was wrong with the first thing that began like
    JSON and was none.

    When a value that began well turns out to be broken, the search goes on after its closing
    bracket, as a part of a broken answer is not the answer. So the search is linear, but for the
    lines that Python counts for each error; hence `MAX_STARTS`.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self.problem = ""

    def spans(self) -> Iterator[tuple[Any, int, int]]:
        """Every value, where it starts and where it ends; none that is within another. Raises
        ValueError or RecursionError for one that cannot be stored."""
        pos = 0
        for _ in range(MAX_STARTS):
            start = _START.search(self._text, pos)
            if start is None:
                return
            try:
                value, pos = strict_decoder.raw_decode(self._text, start.start())
            except json.JSONDecodeError as exc:
                self.problem = self.problem or f"; what begins like it is broken: {exc}"
                began_well = exc.pos >= start.end()
                pos = self._closing(start.start()) if began_well else start.start() + 1
            else:
                yield value, start.start(), pos

    def _closing(self, start: int) -> int:
        """The place after the bracket that closes the one at `start`; the text's end if none
        does."""
        depth = 0
        for match in _STRING_OR_BRACKET.finditer(self._text, start):
            if match[0] in ("{", "["):
                depth += 1
            elif match[0] in ("}", "]"):
                depth -= 1
            if depth == 0:
                return match.end()
        return len(self._text)


def is_within_json(text: str, place: int) -> bool:
    """Whether a JSON value in the text spans this place."""
    try:
        spans = JsonSearch(text).spans()
        return any(start < place < end for _, start, end in spans)
    except (ValueError, RecursionError):
        return False
