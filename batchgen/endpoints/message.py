"""What a model says and what it thinks, in the message of a chat completion.

A server tells the thought apart by a field beside the content, or by parts of the content, or not
at all: then it is in the text, and `parsers/thoughts.py` finds it there.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from batchgen.text.json_text import storable

_THOUGHT = re.compile(r"think|thought|reasoning", re.IGNORECASE)  # a type of parts


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message: a string, or the text parts of a list of parts, one after another, but
    for those in which the model thinks."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(text for part in content if _is_said(part) for text in _texts(part))
    return storable(content) if isinstance(content, str) else ""


def thought_of(message: Mapping[str, Any]) -> Any:
    """What the model thought: a text, or what else the server has for it; empty if there is
    none."""
    told = message.get("reasoning_content") or message.get("reasoning")
    content = message.get("content")
    if not told and isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict) and not _is_said(part)]
        told = "".join(text for part in parts for text in _thought_texts(part))
    return storable(told) if isinstance(told, str) else told


def _is_said(part: Any) -> bool:
    """Whether it is a part of the answer, and not of a thought before it."""
    if not isinstance(part, dict) or part.get("thought") is True:
        return False
    kind = part.get("type")
    return not (isinstance(kind, str) and _THOUGHT.search(kind))


def _texts(part: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(text := part.get("text"), str):
        yield text


def _thought_texts(part: Mapping[str, Any]) -> Iterator[str]:
    """Those of the part itself, and of the parts that it may have for its thought."""
    yield from _texts(part)
    inner = part.get("thinking") or part.get("reasoning")
    if isinstance(inner, str):
        yield inner
    for one in inner if isinstance(inner, list) else ():
        yield from _texts(one) if isinstance(one, dict) else ()
