"""Finds the parameter that a server says it rejects, in whatever way it says so. Pure.

Servers name it in `error.param`, in the `loc` of FastAPI and pydantic (vLLM, Mistral), or only in
words. A name counts if the request has it. Whether the parameter as such is `unsupported`, by its
name or for the model, and not only this value or this item, is told narrowly: it stops everybody.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# Messages are the item's own, and a model has its own rules (`responses.UNKNOWN_MODEL`).
_NO_PARAMETERS = frozenset({"messages", "model"})
_UNSUPPORTED_CODES = frozenset({"unknown_parameter", "unsupported_parameter"})
_EXTRA = r"[Ee]xtra (?:inputs|fields) (?:are )?not permitted"
_PATH = r"['\"`]?(\w[\w.\[\]]{0,80})['\"`]?"
# Each with the parameter's name, or the path to a part of it.
_UNSUPPORTED = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        rf"Unrecognized request arguments? supplied: {_PATH}",
        rf"(?:Unsupported|Unknown|Unrecognized) param(?:eter)?: {_PATH}",
        rf"Unsupported value: {_PATH} does not support .{{1,200}}? with this model",
        rf"Invalid parameter: {_PATH} of type '\w+' is not supported with this model",
        rf"Argument not supported on this model: {_PATH}",
        rf"The {_PATH} parameter is (?:unsupported|not supported)",
        rf"^property {_PATH} is unsupported",
        rf"Unknown name {_PATH}: Cannot find field",
        rf"does not support parameters: [\[{{]{_PATH}",
        rf"{_EXTRA}, field: {_PATH}",
        rf"{_PATH}: {_EXTRA}",
        rf"^{_PATH}\n +{_EXTRA}",
        rf"'loc': \('body', {_PATH}\W[^{{}}]*{_EXTRA}",
        rf"This {_PATH} type is unavailable",
        rf"{_PATH} `\w+` is unavailable",
    )
)
# What servers call the schema of an answer that they cannot keep to.
_OF_A_SCHEMA = re.compile(r"response[ _]format|json[ _]schema|\bgrammar\b", re.IGNORECASE)
_MOST_CHARS = 20_000
_DEEPEST = 20


@dataclass(frozen=True, slots=True)
class Rejection:
    """The parameter `name` of a request was rejected. `unsupported`: the server, or the model, does
    not take it from anybody."""

    name: str
    unsupported: bool


def rejected_parameter(said: str | None, request: Mapping[str, Any]) -> Rejection | None:
    """The parameter of the request that an error's body names, if it names one."""
    body, named = _load(said), None
    names = {_plain(name): name for name in request if name not in _NO_PARAMETERS}
    for path, unsupported in _named_in(body, (said or "")[:_MOST_CHARS]):
        name = names.get(_plain(re.split(r"[.\[]", path)[0]))
        if name is not None and unsupported:
            return Rejection(name, unsupported=True)
        if name is not None and named is None:
            named = Rejection(name, unsupported=False)
    return named


def _named_in(body: Any, said: str) -> Iterator[tuple[str, bool]]:
    """Every path to a parameter in what was said, and whether it is said to be unsupported."""
    texts = [said] if body is None else []
    for part in _parts_of(body, texts):
        code = part.get("code")
        if isinstance(param := part.get("param"), str):
            yield param, isinstance(code, str) and code in _UNSUPPORTED_CODES
        if isinstance(place := part.get("loc"), list) and place:
            extra = re.search(_EXTRA, str(part.get("msg"))) is not None
            yield str(place[1] if place[0] == "body" and len(place) > 1 else place[0]), extra
    for text in texts:
        for pattern in _UNSUPPORTED:
            for match in pattern.finditer(text):
                yield match[1], True
    if any(map(_OF_A_SCHEMA.search, texts)):
        yield "response_format", False


def _parts_of(value: Any, texts: list[str], depth: int = 0) -> Iterator[dict[str, Any]]:
    """Every object in an error's body; its texts go to `texts`. Some servers put the JSON of
    another server into a text, and pydantic what it was given into `input`."""
    if isinstance(value, dict):
        yield value
        value = [part for name, part in value.items() if name != "input"]
    if isinstance(value, list) and depth < _DEEPEST:
        for part in value:
            yield from _parts_of(part, texts, depth + 1)
    elif isinstance(value, str):
        inner = _load(value)
        if inner is None:
            texts.append(value[:_MOST_CHARS])
        elif depth < _DEEPEST:
            yield from _parts_of(inner, texts, depth + 1)


def _plain(name: str) -> str:
    """xAI says frequencyPenalty."""
    return name.replace("_", "").lower()


def _load(text: str | None) -> Any:
    """An object or a list, or None."""
    try:
        value = json.loads((text or "")[:_MOST_CHARS])
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None
