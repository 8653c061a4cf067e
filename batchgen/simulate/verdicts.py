"""What the simulated model says where a prompt asks for a verdict: yes or no, a score on a scale,
an object with the keys that are shown, a list. Pure.

The steps after a judge or a gate depend on what it says, so it says what parsers read, and not the
same of everything.
"""

import re
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from batchgen.text.json_text import dump_json

_YES_NO = re.compile(r"""(["'`]?)\b(yes)\b\1\s*(?:or|/|\|)\s*(["'`]?)\b(no)\b\3""", re.IGNORECASE)
_YES_NO_IN_CHINESE = re.compile(r"(是)[”」\"']?\s*(?:还是|或者?|/|／|、)\s*[“「\"']?(否|不是)")
_SCALE = re.compile(r"(?<![\d.])(\d{1,4})\s*(?:to|-|–|\.\.|and)\s*(\d{1,4})(?![\d.])")
_JUDGED = re.compile(
    r"\b(?:scor|rat|grad|judg|point|scale|mark|number)\w*\b[^.?!\n]*", re.IGNORECASE
)
_SCALE_IN_CHINESE = re.compile(
    r"(\d{1,4})\s*分?\s*(?:到|至|-|–|~)\s*(\d{1,4})\s*(?=分|[^。\n]{0,4}[打评]分)"
    r"|[打评]分[^。\n]{0,8}?(\d{1,4})\s*分?\s*(?:到|至|-|–|~)\s*(\d{1,4})"
)
_NUMBER_ALONE = re.compile(
    r"\b(?:only|just|nothing but)\b[^.\n]*\b(?:number|score)\b"
    r"|[只仅][^。\n]{0,6}(?:数字|分数)",
    re.IGNORECASE,
)
_TWO_NUMBERS = re.compile(r"\d\D++\d")
_SHOWN = re.compile(r'\{\s*"[^{}]*:[^{}]*\}')
_SHOWN_FIELD = re.compile(r'"([^"{}\n]+)"\s*:\s*(\[[^\]]*\]|"[^"]*"|[^,}]*)')
_LIST = re.compile(r"\bJSON\s+(?:array|list)\b|JSON\s*(?:数组|列表)", re.IGNORECASE)
_COUNT = re.compile(
    r"(?<![\d.])(\d{1,2})(?![\d.])|\b(two|three|four|five|six|seven|eight|nine|ten)\b"
    r"|([两三四五六七八九十])个",
    re.IGNORECASE,
)
_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_CHARACTERS = "两三四五六七八九十"
_MOST_LISTED = 20

Sentence = Callable[[bytes], str]
Scale = tuple[int, int]


def yes_or_no(text: str, drawn: bytes) -> str | None:
    """One of the two words, as the prompt writes them; None: it does not ask for them."""
    if found := _YES_NO.search(text):
        return found[2] if drawn[0] % 3 else found[4]
    if found := _YES_NO_IN_CHINESE.search(text):
        return found[1] if drawn[0] % 3 else found[2]
    return None


def scale_of(text: str) -> Scale | None:
    """The scale of the score that a prompt asks for; None: it asks for none."""
    if not _TWO_NUMBERS.search(text):  # which is fast, unlike all of the below, in a long text
        return None
    for judged in _JUDGED.finditer(text):
        if (found := _SCALE.search(judged[0])) and int(found[1]) < int(found[2]):
            return int(found[1]), int(found[2])
    for found in _SCALE_IN_CHINESE.finditer(text):
        low, high = (int(one) for one in found.groups() if one)
        if low < high:
            return low, high
    return None


def wants_number_alone(text: str) -> bool:
    return _NUMBER_ALONE.search(text) is not None


def score_on(scale: Scale, drawn: bytes) -> int:
    low, high = scale
    return low + int.from_bytes(drawn[:2]) % (high - low + 1)


def shown_object(text: str, drawn: bytes, sentence: Sentence) -> str | None:
    """The JSON of an object with the keys of the one that the prompt shows; None: it shows none."""
    if not (shown := _SHOWN.search(text)):
        return None
    scale = scale_of(text)
    fields = {
        name: _value_like(example, _draw(drawn, name), scale, sentence)
        for name, example in _SHOWN_FIELD.findall(shown[0])
    }
    return dump_json(fields) if fields else None


def asked_list(text: str, drawn: bytes, sentence: Sentence) -> str | None:
    """The JSON of a list of texts, as many as the prompt names; None: it asks for no list."""
    if not (found := _LIST.search(text)):
        return None
    count = _COUNT.search(text, found.end()) or _COUNT.search(text)
    n = min(_number(count[0]), _MOST_LISTED) if count else 3
    is_asking = "question" in text.lower() or "问题" in text
    texts = [sentence(_draw(drawn, str(place))) for place in range(n)]
    return dump_json([_question(one) if is_asking else one for one in texts])


def _value_like(example: str, drawn: bytes, scale: Scale | None, sentence: Sentence) -> Any:
    """Something of the kind of the example: a range of numbers, a number, a list, yes or no, one of
    some words, or a text."""
    plain = example.strip().strip('"').strip()
    if example.startswith("["):
        return [sentence(_draw(drawn, str(place))) for place in range(drawn[0] % 3 + 1)]
    if (word := yes_or_no(plain, drawn)) is not None:
        return word
    if re.search(r"\b(?:true|false|bool(?:ean)?)\b", plain, re.IGNORECASE):
        return drawn[0] % 3 > 0
    if (found := _SCALE.search(plain)) and int(found[1]) < int(found[2]):
        return score_on((int(found[1]), int(found[2])), drawn)
    if re.search(r"^[-+]?\d[\d.]*$|\b(?:number|integer|int|float|score)\b", plain, re.IGNORECASE):
        return score_on(scale or (1, 10), drawn)
    words = [word.strip() for word in plain.split("|")]
    if len(words) > 1 and all(words):
        return words[drawn[0] % len(words)]
    return sentence(drawn)


def _draw(drawn: bytes, name: str) -> bytes:
    return sha256(drawn + name.encode("utf-8", "surrogatepass")).digest()


def _number(word: str) -> int:
    if word.isdecimal():
        return int(word)
    if word[0] in _CHARACTERS:
        return _CHARACTERS.index(word[0]) + 2
    return _WORDS.index(word.lower()) + 2


def _question(text: str) -> str:
    return f"Is it true that {text[0].lower()}{text[1:-1]}?"
