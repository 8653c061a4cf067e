"""What batchgen says itself, outside the pages, in another language than English.

Why a row failed is stored as an English sentence; what helps, why a worker waits and why something
is refused are sentences too, with values in them. So a sentence is known by its words: these are
the keys of a table in texts/said/, with a name in `{}` for each value. One that fits no key is
shown as it is.
"""

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

_DEEPEST = 3  # a sentence in a sentence
_NUMBERS, _OF_NUMBERS = ("n", "m"), frozenset("0123456789.,")  # what has a place of these names
_PLACE = re.compile(r"\{(\w+)\}")


class Table(NamedTuple):
    """`sentences` and `reasons`, each with what it is in the other language."""

    sentences: Mapping[str, str]
    reasons: Mapping[str, str]


class _Form(NamedTuple):
    """A sentence with values: its words, between which the `names` of these stand, and what it is
    in the other language."""

    words: tuple[str, ...]
    names: tuple[str, ...]
    other: str

    def values_in(self, text: str) -> dict[str, str] | None:
        """By their names, where it is this sentence: its words come one after another, each where
        it is first found, so that no text takes longer than it takes to read it."""
        first, *between, last = self.words
        if not (text.startswith(first) and text.endswith(last)):
            return None
        values, at, end = dict[str, str](), len(first), len(text) - len(last)
        for name, words in zip(self.names, [*between, None], strict=True):
            until = end if words is None else text.find(words, at + 1, end)
            value = text[at:until] if until > at else ""
            if not value or (name in _NUMBERS and not _OF_NUMBERS.issuperset(value)):
                return None
            values[name] = value
            at = until + len(words or "")
        return values


@cache
def read_table(language: str) -> Table:
    """Empty for English."""
    file = Path(__file__).with_name("texts") / "said" / f"{language}.toml"
    if not file.exists():
        return Table({}, {})
    table = tomllib.loads(file.read_text(encoding="utf-8"))
    return Table(table["sentences"], table["reasons"])


class Sayings:
    """Those of one language."""

    def __init__(self, table: Table) -> None:
        self._whole = {key: other for key, other in table.sentences.items() if "{" not in key}
        forms = [_form(key, other) for key, other in table.sentences.items() if "{" in key]
        # Of two that fit, the one that says more.
        self._forms = sorted(forms, key=lambda form: -len("".join(form.words)))
        self._reasons = table.reasons

    def reason(self, name: str) -> str:
        """Why something failed, by its name in `Reason`."""
        return self._reasons.get(name, name)

    def said(self, text: str, depth: int = 0) -> str:
        """The same in this language, as far as it is known."""
        if text in self._whole:
            return self._whole[text]
        if depth > _DEEPEST:
            return text
        for form in self._forms:
            if (values := form.values_in(text)) is not None:
                return self._filled(form.other, values, depth)
        return text

    def _filled(self, other: str, values: Mapping[str, str], depth: int) -> str:
        return _PLACE.sub(lambda place: self.said(values[place[1]], depth + 1), other)


def _form(key: str, other: str) -> _Form:
    pieces = _PLACE.split(key)  # words and names, by turns
    return _Form(tuple(pieces[::2]), tuple(pieces[1::2]), other)
