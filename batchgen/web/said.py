"""What batchgen says itself, outside the pages, in another language than English.

Why a row failed is stored as an English sentence; what helps, why a worker waits and why something
is refused are sentences too, with values in them. So a sentence is known by its words: these are
the keys of a table in texts/said/, with a name in `{}` for each value. One that fits no key is
shown as it is.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

_LONGEST = 1000  # what a server says may fit a form nearly everywhere, which takes long to find out
_DEEPEST = 3  # a sentence in a sentence
_NUMBERS, _NUMBER = ("n", "m"), r"[\d.,]+"  # places of these names
_PLACE = re.compile(r"\{(\w+)\}")


class Table(NamedTuple):
    """`sentences` and `reasons`, each with what it is in the other language."""

    sentences: Mapping[str, str]
    reasons: Mapping[str, str]


class _Form(NamedTuple):
    """A sentence with values: its words in their order, and what it is in the other language."""

    words: tuple[str, ...]
    pattern: re.Pattern[str]
    other: str


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
        if depth > _DEEPEST or len(text) > _LONGEST:
            return text
        for form in self._forms:
            if all(words in text for words in form.words) and (
                found := form.pattern.fullmatch(text)
            ):
                return self._filled(form.other, found.groupdict(), depth)
        return text

    def _filled(self, other: str, values: Mapping[str, str], depth: int) -> str:
        return _PLACE.sub(lambda place: self.said(values[place[1]], depth + 1), other)


def _form(key: str, other: str) -> _Form:
    pieces = _PLACE.split(key)  # words and names, by turns
    pattern = "".join(
        f"(?P<{piece}>{_NUMBER if piece in _NUMBERS else '.+?'})" if is_name else re.escape(piece)
        for piece, is_name in zip(pieces, [False, True] * len(pieces), strict=False)
    )
    return _Form(tuple(filter(None, pieces[::2])), re.compile(pattern, re.DOTALL), other)
