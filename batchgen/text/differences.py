"""What is different between two texts, word by word, and between two values of JSON, place by
place. Chinese and Japanese have no spaces, so there a character is a word."""

import json
import re
import time
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from enum import StrEnum
from typing import Any

from msgspec import Struct

MOST_CHARS = 200_000
_MOST_WORDS = 1500  # of a changed part: a comparison takes the square of it
_MOST_PLACES = 2000

_IDEOGRAPH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_IDEOGRAPH}]|[^\W{_IDEOGRAPH}]+|\s+|.", re.DOTALL)
_HAS_WORD = re.compile(r"\w")
_SENTENCE = re.compile(r".*?(?:\n+|[.!?](?=\s)\s*|[。！？；…]+\s*|$)", re.DOTALL)


class Kind(StrEnum):
    SAME = "same"
    GONE = "gone"
    NEW = "new"


class Piece(Struct, frozen=True):
    """A part of both texts, of the first alone (`gone`) or of the second alone (`new`)."""

    kind: Kind
    text: str


class TextDifference(Struct, frozen=True):
    """The pieces one after another. `is_rough`: there was no time, or there are too many changes at
    one place, to tell each word."""

    pieces: tuple[Piece, ...]
    is_rough: bool = False

    @property
    def is_none(self) -> bool:
        return all(piece.kind is Kind.SAME for piece in self.pieces)


class Place(Struct, frozen=True):
    """A place in JSON at which two values are different, as a path; a value of None is not there,
    the others are texts: of a string itself, else JSON."""

    path: str
    gone: str | None
    new: str | None


class ValueDifference(Struct, frozen=True):
    """So many places are the `same`, and `left_out` more are different."""

    places: tuple[Place, ...]
    same: int
    left_out: int = 0


def text_difference(old: str, new: str, deadline_s: float) -> TextDifference:
    """By sentences first, and then by words where these are different. What is not compared by the
    deadline (of `time.monotonic`) is taken for changed as a whole."""
    pieces, is_rough = list[Piece](), False
    for kind, gone, come in _blocks(_SENTENCE.findall(old), _SENTENCE.findall(new), junk=True):
        if kind == "equal":
            pieces.append(Piece(Kind.SAME, "".join(gone)))
            continue
        words = _WORD.findall("".join(gone)), _WORD.findall("".join(come))
        if max(map(len, words)) > _MOST_WORDS or time.monotonic() > deadline_s:
            is_rough = is_rough or all(words)
            pieces += _changed(*words)
        else:
            pieces += _by_words(*words)
    return TextDifference(tuple(_joined(pieces)), is_rough)


def value_difference(old: Any, new: Any) -> ValueDifference:
    """Of two values of JSON. Objects are compared by their keys, and lists by their places."""
    found, same = list[Place](), 0
    for path, gone, come in _places(old, new, "", 0):
        if gone == come:
            same += 1
        else:
            found.append(Place(path, gone, come))
    return ValueDifference(tuple(found[:_MOST_PLACES]), same, max(0, len(found) - _MOST_PLACES))


_NOTHING: Any = object()
_DEEPEST = 50


def _places(
    old: Any, new: Any, path: str, depth: int
) -> Iterator[tuple[str, str | None, str | None]]:
    if depth < _DEEPEST and isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            inner = f"{path}.{key}" if key.isidentifier() else f"{path}[{json.dumps(key)}]"
            yield from _places(
                old.get(key, _NOTHING), new.get(key, _NOTHING), inner.removeprefix("."), depth + 1
            )
    elif depth < _DEEPEST and isinstance(old, list) and isinstance(new, list):
        for n in range(max(len(old), len(new))):
            one = old[n] if n < len(old) else _NOTHING
            other = new[n] if n < len(new) else _NOTHING
            yield from _places(one, other, f"{path}[{n}]", depth + 1)
    else:
        texts = _text(old), _text(new)
        if isinstance(old, str) != isinstance(new, str) and texts[0] == texts[1]:
            texts = _quoted(old), _quoted(new)  # "1" is not 1
        yield path, *texts


def _text(value: Any) -> str | None:
    if value is _NOTHING:
        return None
    return value if isinstance(value, str) else _quoted(value)


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _by_words(old: Sequence[str], new: Sequence[str]) -> Iterator[Piece]:
    for kind, gone, come in _blocks(old, new, junk=False):
        if kind == "equal":
            yield Piece(Kind.SAME, "".join(gone))
        else:
            yield from _changed(gone, come)


def _changed(gone: Sequence[str], new: Sequence[str]) -> Iterator[Piece]:
    if gone:
        yield Piece(Kind.GONE, "".join(gone))
    if new:
        yield Piece(Kind.NEW, "".join(new))


def _blocks(
    old: Sequence[str], new: Sequence[str], *, junk: bool
) -> Iterator[tuple[str, Sequence[str], Sequence[str]]]:
    """With `junk`, what stands everywhere is no sign of the same place: very much faster."""
    for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=junk).get_opcodes():
        yield kind, old[a:b], new[c:d]


def _joined(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Neighbours of one kind are one piece; what is gone stands before what has come. A space or a
    sign between two words that were both replaced is no place where the texts are the same."""
    gone, come, same = "", "", ""
    for n, piece in enumerate(pieces):
        if piece.kind is Kind.SAME:
            is_between = gone and come and not _HAS_WORD.search(piece.text)
            if is_between and _goes_on(pieces[n + 1 : n + 3]):
                gone, come = gone + piece.text, come + piece.text
                continue
            yield from _changed([gone] if gone else [], [come] if come else [])
            gone, come, same = "", "", same + piece.text
            continue
        if same:
            yield Piece(Kind.SAME, same)
            same = ""
        if piece.kind is Kind.GONE:
            gone += piece.text
        else:
            come += piece.text
    yield from _changed([gone] if gone else [], [come] if come else [])
    if same:
        yield Piece(Kind.SAME, same)


def _goes_on(following: Sequence[Piece]) -> bool:
    """Whether a replacement follows."""
    return [piece.kind for piece in following] == [Kind.GONE, Kind.NEW]
