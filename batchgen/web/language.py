"""The texts of the pages, in English and Chinese.

Each file of texts/ is a table: a text has a key, which is the same for all pages, and its words in
each language. `{n}` in them is filled in; `one` are the English words where n is 1. What others
say, as an error of a job, is put into the reader's language by `said`.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from batchgen.web.said import Sayings, read_table

LANGUAGES = {"en": "English", "zh": "中文"}
_Words = Mapping[str, str]


@cache
def read_texts() -> Mapping[str, _Words]:
    """All of them, by key. Raises ValueError for a key that two tables have."""
    found: dict[str, _Words] = {}
    for file in sorted(Path(__file__).with_name("texts").glob("*.toml")):
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        if twice := found.keys() & table.keys():
            raise ValueError(f"{file.name}: {sorted(twice)} are in another table, too")
        found.update(table)
    return found


class Text:
    """The texts in one language."""

    def __init__(self, language: str, texts: Mapping[str, _Words]) -> None:
        self._language, self._texts = language, texts
        sayings = Sayings(read_table(language))
        self.said, self.reason = sayings.said, sayings.reason

    def __call__(self, key: str, /, **values: object) -> str:
        """`t("key", n=3)`. Raises KeyError for a key that is in no table, or a value that the words
        need and do not get."""
        words, language = self._texts[key], self._language
        which = "one" if language == "en" and values.get("n") == 1 and "one" in words else language
        shown = {
            name: f"{value:,}" if isinstance(value, int) else value
            for name, value in values.items()
        }
        return words[which].format(**shown) if shown else words[which]


def preferred(accept_language: str) -> str:
    """The language that a browser would rather have, of those that there are."""
    wishes = []
    for place, part in enumerate(accept_language.split(",")):
        name, _, quality = part.strip().partition(";q=")
        try:
            wishes.append((-float(quality or 1), place, name.lower().partition("-")[0]))
        except ValueError:
            continue
    return next((name for _, _, name in sorted(wishes) if name in LANGUAGES), "en")
