"""The parser json: the JSON in an answer, whatever text surrounds it."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

from batchgen.errors import ParseError
from batchgen.parsers.json_search import MAX_STARTS, JsonSearch
from batchgen.text.json_text import strict_decoder

_FENCE = re.compile(r"```[ \t]*json\b\s*", re.IGNORECASE)
_FENCE_END = re.compile(r"\s*(```|\Z)")


def parse_json(text: str, _item: Mapping[str, Any], _timeout_s: float | None = None) -> Any:
    """The whole text after the thought, if it is JSON; else the first fenced block marked `json`
    that is JSON; or, if there is no such block, the first value in the text. An object comes before
    a list."""
    return _chosen(text, lambda values: next(_objects_first(values)))


def parse_fitting_json(text: str, problem_of: Callable[[Any], str]) -> Any:
    """The first value, in the same order, that has no problem; and of text with fenced blocks,
    those outside of them too. Raises ParseError with the problem of the first if all have one."""

    def choose(values: Iterator[Any]) -> Any:
        first = ""
        for value in _objects_first(values):
            problem = problem_of(value)
            if not problem:
                return value
            first = first or problem
        raise ParseError(first)

    return _chosen(text, choose, anywhere=True)


def _chosen(text: str, choose: Callable[[Iterator[Any]], Any], *, anywhere: bool = False) -> Any:
    """What `choose` takes of the values, of which there is one at least."""
    from batchgen.parsers.thoughts import answer_after_thought  # here: no call needs it

    return choose(_values(answer_after_thought(text), anywhere=anywhere))


def _values(text: str, *, anywhere: bool) -> Iterator[Any]:
    """The whole text or, if it is no JSON, the values in it. Raises ParseError when there is none,
    and for one that cannot be stored."""
    try:
        try:
            yield strict_decoder.decode(text)
        except json.JSONDecodeError:
            yield from _values_within(text, anywhere=anywhere)
    except (ValueError, RecursionError) as exc:
        problem = "nested too deep" if isinstance(exc, RecursionError) else str(exc)
        raise ParseError(f"the JSON in the answer is unusable: {problem}") from None


def _values_within(text: str, *, anywhere: bool) -> Iterator[Any]:
    """Those in fenced blocks; without a block, or if they may be `anywhere`, those in the text."""
    fences = list(islice(_FENCE.finditer(text), MAX_STARTS))
    search = JsonSearch(text)
    if fences and not anywhere:
        return _fenced(text, fences)
    in_text = (value for value, _, _ in search.spans())
    first = next(in_text, _NOTHING)
    if first is _NOTHING:
        if fences:
            return _fenced(text, fences)
        raise ParseError(f"no JSON in the answer{search.problem}")
    found = chain((first,), in_text)
    return chain(_fenced(text, fences, required=False), found) if fences else found


_NOTHING = object()


def _fenced(text: str, fences: list[re.Match[str]], *, required: bool = True) -> Iterator[Any]:
    problem, found = "", False
    for fence in fences:
        try:
            value, end = strict_decoder.raw_decode(text, fence.end())
        except json.JSONDecodeError as exc:
            problem = problem or str(exc)
            continue
        if _FENCE_END.match(text, end):
            found = True
            yield value
        problem = problem or "there is more after its first value"
    if required and not found:
        raise ParseError(f"the ```json block in the answer is not JSON: {problem}")


def _objects_first(values: Iterator[Any]) -> Iterator[Any]:
    """Objects as they come, then everything else."""
    others = []
    for value in values:
        if isinstance(value, dict):
            yield value
        else:
            others.append(value)
    yield from others
