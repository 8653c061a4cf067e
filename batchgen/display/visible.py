"""Texts from outside, as a terminal may have them: answers, pools, servers and file names can steer
a terminal, set its title or its clipboard, or show letters in another order than they stand."""

import re
from collections.abc import Iterator
from functools import cache

# All control characters but the line break and the tab, the marks that turn the direction of
# writing, what else is invisible and does something, and halves of characters. The two joiners
# stay, which emoji and several scripts are written with.
_STEERING = (
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0001]"
)


def visible(text: str) -> str:
    """`text` for a terminal: what would steer it is shown as its code point, `<U+001B>`. Everything
    from outside goes through here before it is printed on one."""
    text = text.replace("\r\n", "\n")
    return text if _is_harmless(text) else _steering().sub(_mark, text)


def visible_line(text: str) -> str:
    """The same on one line."""
    return visible(text).replace("\n", " ").replace("\t", " ")


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """The text piece by piece: as it is, or, with true, the code point of what would steer it."""
    text, end = text.replace("\r\n", "\n"), 0
    for found in () if _is_harmless(text) else _steering().finditer(text):
        if end < found.start():
            yield text[end : found.start()], False
        yield f"U+{ord(found[0]):04X}", True
        end = found.end()
    if end < len(text):
        yield text[end:], False


def visible_json(text: str) -> str:
    """JSON text, or lines of it, for a terminal: the same values, what would steer it escaped."""
    return text if _is_harmless(text) else _steering().sub(_escape, text)


def _is_harmless(text: str) -> bool:
    """Whether it certainly is, as nearly all texts: to compile the pattern takes longer than all
    else that is printed."""
    return text.replace("\n", "").replace("\t", "").isprintable()


@cache
def _steering() -> re.Pattern[str]:
    return re.compile(_STEERING)


def _mark(found: re.Match[str]) -> str:
    return f"<U+{ord(found[0]):04X}>"


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code > 0xFFFF:
        high, low = divmod(code - 0x10000, 0x400)
        return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
    return f"\\u{code:04x}"
