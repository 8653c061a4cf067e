"""The texts of the pages, in English and Chinese.

Each file of texts/ is a table: a text has a key, which is the same for all pages, and its words in
each language. `{n}` in them is filled in; `one` are the English words where n is 1. What the jobs
say themselves, as an error, is English everywhere.
"""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

LANGUAGES = {"en": "English", "zh": "中文"}
Text = Callable[..., str]
_Words = Mapping[str, str]


def read_texts() -> Mapping[str, _Words]:
    """All of them, by key. Raises ValueError for a key that two tables have."""
    found: dict[str, _Words] = {}
    for file in sorted(Path(__file__).with_name("texts").glob("*.toml")):
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        if twice := found.keys() & table.keys():
            raise ValueError(f"{file.name}: {sorted(twice)} are in another table, too")
        found.update(table)
    return found


def texts_in(language: str, texts: Mapping[str, _Words]) -> Text:
    """`t("key", n=3)` in this language. Raises KeyError for a key that is in no table, or a value
    that the words need and do not get."""

    def t(key: str, /, **values: object) -> str:
        words = texts[key]
        which = "one" if language == "en" and values.get("n") == 1 and "one" in words else language
        shown = {
            name: f"{value:,}" if isinstance(value, int) else value
            for name, value in values.items()
        }
        return words[which].format(**shown) if shown else words[which]

    return t


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
