"""Objects that come in pieces, as the deltas of a stream have them. Pure.

In the pieces of an object a text goes on, and so does a list; of other values, and of names such as
`role`, the last one counts.
"""

from collections.abc import Mapping
from typing import Any

# Texts that stand whole in each piece that has them.
_NOT_JOINED = frozenset(
    {"role", "type", "id", "index", "name", "format", "object", "signature", "expires_at"}
)
# Parts of a list that go on in the next piece though nothing numbers them (Mistral).
_GOES_ON = frozenset({"text", "thinking", "reasoning"})
_OBJECT_CHARS, _VALUE_CHARS = 300, 10  # of an element of a list, such as a log probability


class Text(list[str]):
    """A text that is still coming, in its pieces: to join them each time would take quadratic
    time."""


def add_piece(whole: dict[str, Any], piece: Mapping[str, Any]) -> int:
    """Add a piece to what has come of an object. About how many characters are new."""
    new = 0
    for name, value in piece.items():
        kind, old = type(value), whole.get(name)
        if kind is str and name not in _NOT_JOINED:
            new += _add_text(whole, name, old, value)
        elif kind is list:
            new += _add_list(whole, name, old, value)
        elif kind is dict:
            if type(old) is not dict:
                old = whole[name] = {}
            new += add_piece(old, value)
        elif value or name not in whole:
            whole[name] = value
    return new


def plain(value: Any) -> Any:
    """What has come, with its texts joined."""
    if type(value) is Text:
        return "".join(value)
    if type(value) is dict:
        return {name: plain(one) for name, one in value.items()}
    return list(map(plain, value)) if type(value) is list else value


def _add_text(whole: dict[str, Any], name: str, old: Any, text: str) -> int:
    if type(old) is Text:
        old.append(text)
    elif type(old) is list:  # Mistral's content: a list of parts while it thinks, a text afterwards
        _add_elements(old, [{"type": "text", "text": text}])
    else:
        whole[name] = Text([text])
    return len(text)


def _add_list(whole: dict[str, Any], name: str, old: Any, elements: list[Any]) -> int:
    if type(old) is not list:
        begun = [{"type": "text", "text": old}] if type(old) is Text and any(old) else []
        old = whole[name] = begun
    return _add_elements(old, elements)


def _add_elements(whole: list[Any], elements: list[Any]) -> int:
    new = 0
    for element in elements:
        if not _may_go_on(element):
            whole.append(element)
            new += _OBJECT_CHARS if type(element) is dict else _VALUE_CHARS
            continue
        if not (whole and _continues(element, whole[-1])):
            whole.append({})
        new += add_piece(whole[-1], element) + 1
    return new


def _may_go_on(element: Any) -> bool:
    return type(element) is dict and ("index" in element or element.get("type") in _GOES_ON)


def _continues(element: dict[str, Any], last: Any) -> bool:
    if not _may_go_on(last) or last.get("index") != element.get("index"):
        return False
    return element.get("type") in (None, last.get("type"))
