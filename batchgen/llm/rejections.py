"""Finds the parameter that a server says it rejects, in whatever way it says so. Pure.

Servers name it in `error.param`, in the `loc` of FastAPI and pydantic (vLLM, Mistral), or only in
words. A name counts if the request has it. A parameter is `unsupported` when the server, or the
model, takes it from nobody, whatever its value. The patterns for that are narrow on purpose, as an
unsupported parameter halts all workers.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

# The prompt belongs to the item, and a model has its own rules (`error_replies.UNKNOWN_MODEL`).
_NOT_PARAMETERS = frozenset({"messages", "input", "instructions", "prompt", "model"})
_UNSUPPORTED_CODES = frozenset({"unknown_parameter", "unsupported_parameter"})
_EXTRA = r"[Ee]xtra (?:inputs|fields) (?:are )?not permitted"
_PATH = r"['\"`]?(\w[\w.\[\]]{0,80})['\"`]?"
# The group of each is the parameter's name, or the path to a part of it. They are compiled when the
# first request is rejected: that takes longer than the first call of a worker.
_UNSUPPORTED = (
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
# What servers call the schema of an answer when they cannot follow it.
_SCHEMA_WORDS = re.compile(r"response[ _]format|json[ _]schema|\bgrammar\b", re.IGNORECASE)
# The tokens of a schema are counted with those of the messages.
_TOO_LONG = re.compile(
    r"context[ _-]?(?:length|window|size)|reduce the length|too (?:long|many tokens)|"
    r"max(?:imum)?[ _](?:input|prompt|model)[ _]?(?:length|tokens|len)",
    re.IGNORECASE,
)
# A model that answers only as a stream, in the words of DashScope, Fireworks, OpenAI and others.
_ONLY_STREAMS = re.compile(
    r"only (?:supports?|available in|accepts?|allows?) (?:the )?stream|streaming[- ]only|"
    r"stream(?:ing)?\b['\"`]? ?(?:[=:] ?true|to ['\"`]?true|(?:must|has to|needs? to) be)|"
    r"stream(?:ing)? is required|"
    r"(?:use|have|enable) (?:the )?stream|false for non-?stream|"
    r"non-?stream\w*\b.{0,40}\bnot (?:be )?(?:support|allow|available)|"
    r"not (?:support|allow)\w*.{0,20}\bnon-?stream|"
    r"[仅只]支持流式|不支持非流式|使用流式",
    re.IGNORECASE,
)
_MAX_CHARS = 20_000
_MAX_DEPTH = 20


class Rejection(Struct, frozen=True):
    """The parameter `name` of a request was rejected. `unsupported`: the server, or the model,
    takes it from nobody."""

    name: str
    unsupported: bool


def rejected_parameter(error_body: str | None, request: Mapping[str, Any]) -> Rejection | None:
    """The parameter of `request` that the body of an error names, if it names one."""
    body, named = _load(error_body), None
    names = {_plain(name): name for name in request if name not in _NOT_PARAMETERS}
    for path, unsupported in _named_in(body, (error_body or "")[:_MAX_CHARS]):
        name = names.get(_plain(re.split(r"[.\[]", path)[0]))
        if name is not None and unsupported:
            return Rejection(name, unsupported=True)
        if name is not None and named is None:
            named = Rejection(name, unsupported=False)
    return named


def wants_stream(error_body: str | None) -> bool:
    """Whether the error says that only streams are answered."""
    return _ONLY_STREAMS.search((error_body or "")[:_MAX_CHARS]) is not None


def _named_in(body: Any, text: str) -> Iterator[tuple[str, bool]]:
    """Every path to a parameter that the error names, and whether it calls it unsupported."""
    texts = [text] if body is None else []
    is_named = False
    for part in _parts_of(body, texts):
        code = part.get("code")
        if (param := part.get("param")) and isinstance(param, str):
            is_named = True
            yield param, isinstance(code, str) and code in _UNSUPPORTED_CODES
        if isinstance(place := part.get("loc"), list) and place:
            is_named = True
            extra = re.search(_EXTRA, str(part.get("msg"))) is not None
            yield str(place[1] if place[0] == "body" and len(place) > 1 else place[0]), extra
    for text in texts:
        for pattern in _UNSUPPORTED:
            for match in re.finditer(pattern, text, re.MULTILINE):
                yield match[1], True
    # An error that names what it is about is about that, whatever else it speaks of.
    about_schema = any(map(_SCHEMA_WORDS.search, texts))
    if about_schema and not is_named and not any(map(_TOO_LONG.search, texts)):
        yield "response_format", False
        yield "text.format", False  # the same of Responses


def _parts_of(value: Any, texts: list[str], depth: int = 0) -> Iterator[dict[str, Any]]:
    """Every object in an error's body; its texts go to `texts`. Some servers put the JSON of
    another server into a text, and pydantic what it was given into `input`."""
    if isinstance(value, dict):
        yield value
        value = [part for name, part in value.items() if name != "input"]
    if isinstance(value, list) and depth < _MAX_DEPTH:
        for part in value:
            yield from _parts_of(part, texts, depth + 1)
    elif isinstance(value, str):
        inner = _load(value)
        if inner is None:
            texts.append(value[:_MAX_CHARS])
        elif depth < _MAX_DEPTH:
            yield from _parts_of(inner, texts, depth + 1)


def _plain(name: str) -> str:
    """The name without its style: xAI writes frequencyPenalty."""
    return name.replace("_", "").lower()


def _load(text: str | None) -> Any:
    """The object or list that the text is as JSON, or None."""
    try:
        value = json.loads((text or "")[:_MAX_CHARS])
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None
