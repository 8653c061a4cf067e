"""The texts: all there in both languages, each used, each with its values."""

import re
import string
from collections.abc import Mapping
from pathlib import Path

import pytest

from batchgen.web import language
from batchgen.web.language import Text, preferred, read_texts

WEB = Path(language.__file__).parent
TEXTS = read_texts()


def placeholders(words: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(words) if name}


def says_the_same(words: Mapping[str, str]) -> bool:
    return (
        {"en", "zh"} <= set(words) <= {"en", "zh", "one"}
        and placeholders(words["en"]) == placeholders(words["zh"])
        and placeholders(words.get("one", "")) <= placeholders(words["en"])
        and all(words.values())
    )


def test_each_text_says_the_same_in_both_languages() -> None:
    assert {key: words for key, words in TEXTS.items() if not says_the_same(words)} == {}


def test_every_text_that_a_page_asks_for_is_there_and_every_one_there_is_asked_for() -> None:
    sources = [*WEB.glob("templates/*"), *WEB.glob("pages/*.py"), *WEB.glob("[!l]*.py")]
    source = "\n".join(file.read_text() for file in sources)
    asked = set(re.findall(r"""\bt\(\s*"(\w+)\"""", source))
    assert asked - set(TEXTS) == set()
    # Others are chosen by a value: then the key, or how it begins, stands there as a text.
    named = set(re.findall(r'["\'](\w+)["\']', source))
    begun = tuple(re.findall(r'"(\w+_)\{', source))
    unused = {key for key in TEXTS if key not in named and not key.startswith(begun)}
    assert unused == set()


def test_numbers_are_grouped_and_one_is_one() -> None:
    texts = {"n_calls": {"en": "{n} calls", "one": "1 call", "zh": "{n} 个调用"}}
    english, chinese = (Text(one, texts) for one in ("en", "zh"))
    assert [english("n_calls", n=n) for n in (0, 1, 12345)] == ["0 calls", "1 call", "12,345 calls"]
    assert chinese("n_calls", n=1) == "1 个调用"
    with pytest.raises(KeyError):
        english("n_call", n=1)
    with pytest.raises(KeyError):
        english("n_calls", m=1)


@pytest.mark.parametrize(
    ("wish", "language"),
    [
        ("", "en"), ("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("en-US,en;q=0.9,zh;q=0.1", "en"),
        ("fr,zh;q=0.4,en;q=0.5", "en"), ("fr", "en"), ("ZH-hant", "zh"), ("*;q=x,zh", "zh"),
        ("en;q=0.1,zh;q=0.1", "en"),
    ],
)  # fmt: skip
def test_a_browser_gets_what_it_would_rather_have(wish: str, language: str) -> None:
    assert preferred(wish) == language
