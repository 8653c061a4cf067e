"""What is different between two calls for items, two results, or the answers of two samples."""

import json
import time
from contextlib import suppress
from typing import Any

from msgspec import Struct

from batchgen.errors import UsageError
from batchgen.store import ReadStore, StoredItem
from batchgen.text.differences import (
    MOST_CHARS,
    TextDifference,
    ValueDifference,
    text_difference,
    value_difference,
)

_DEADLINE_S = 2.0


class Side(Struct, frozen=True):
    """One of two that are compared: `attempt`, `result`, the row (`sample`) of this number, or its
    `edit`; which is, or was, one of item `item_id`. `value` is the text as JSON, where it is an
    object or a list; `cut`: so many characters at the end of the text are left out. `parser` is the
    spec of what has read a result."""

    kind: str
    number: int
    item_id: int
    text: str
    value: Any = None
    cut: int = 0
    parser: str | None = None

    @property
    def name(self) -> str:
        """As `side_of` takes it."""
        return f"{self.kind[0]}{self.number}"


class Compared(Struct, frozen=True):
    """`values` are there where both sides are JSON."""

    old: Side
    new: Side
    text: TextDifference
    values: ValueDifference | None = None


async def side_of(store: ReadStore, name: str) -> Side:
    """By its name: `a12` is attempt 12, `r7` result 7, `s5` what row 5 has now, and `e5` what a
    review has made of that. Raises UsageError where there is none."""
    kind, digits = name[:1], name[1:]
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 18):
        raise UsageError(f"{name[:60]!r} is nothing to compare: write a12, r7, s5 or e5.")
    number, parser = int(digits), None
    found: tuple[int, str | None] | None = None
    match kind:
        case "a":
            if (attempt := await store.pages.attempt(number)) is not None:
                text = attempt.body if attempt.response is None else attempt.response
                found = attempt.item_id, text
        case "r":
            if (result := await store.pages.result(number)) is not None:
                found = result.item_id, _shown(result.parsed, result.response)
                parser = result.parser
        case "e":
            review = (await store.reviews.of_items([number])).get(number)
            if review is not None and review.edited is not None:
                found = number, _shown(review.edited, None)
        case "s":
            if (item := await store.item(number)) is not None:
                found = item.id, _answer(item)
    names = {"a": "attempt", "e": "edit", "r": "result", "s": "sample"}
    if found is None:
        raise UsageError(f"there is no {names.get(kind, 'such thing')} {number}.")
    item_id, whole = found
    text = (whole or "")[:MOST_CHARS]
    cut = len(whole or "") - len(text)
    return Side(names[kind], number, item_id, text, _value(whole), cut, parser)


def compared(old: Side, new: Side) -> Compared:
    """Takes a second or two at most, of the CPU."""
    until_s = time.monotonic() + _DEADLINE_S
    values = None
    if old.value is not None and new.value is not None:
        with suppress(RecursionError):  # then the texts are compared
            values = value_difference(old.value, new.value)
    return Compared(old, new, text_difference(old.text, new.text, until_s), values)


def _answer(item: StoredItem) -> str | None:
    return _shown(item.parsed, item.response)


def _shown(parsed: str | None, response: str | None) -> str | None:
    """A value that is a text as that text, another one as JSON on several lines."""
    if parsed is None:
        return response
    try:
        value = json.loads(parsed)
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    except RecursionError:  # it is nested too deep
        return parsed


def _value(text: str | None) -> Any:
    if text is None or len(text) > MOST_CHARS or text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
