"""What is said of a file that is not UTF-8: what it seems to be, and what to do.

No file is ever read in the encoding that it seems to have, as its bytes may be valid in several.
"""

import codecs
import re
from collections.abc import Callable

UTF16_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_GUESSED_BYTES = 1000
_SHOWN_CHARS = 30


def utf8_problem(exc: UnicodeDecodeError) -> str:
    """What is wrong with bytes that were decoded as UTF-8."""
    data = exc.object
    for beginning, what, what_to_do in _OTHER_BEGINNINGS:
        if data.startswith(beginning):
            return f"not UTF-8 but {what}; {what_to_do}"
    before = data[data.rfind(b"\n", 0, exc.start) + 1 : exc.start]
    column = len(before.decode(errors="replace")) + 1
    problem = f"not UTF-8: byte 0x{data[exc.start]:02x} at column {column}"
    end = data.find(b"\n", exc.start)
    line = data[exc.start - len(before) : len(data) if end < 0 else end]
    for encoding, is_likely in _GUESSES:
        if text := _read_as(encoding, line, is_likely):
            return f'{problem}; in {encoding} it would be "{text}": {_save_as_utf8(encoding)}'
    return f"{problem}; {_save_as_utf8()}"


def nul_problem(text: str) -> str:
    """What is wrong with a text that has a NUL byte, as no text has."""
    problem = f"NUL byte at column {text.index(chr(0)) + 1}"
    for first, encoding in enumerate(("UTF-16BE", "UTF-16LE")):
        if set(text[first:8:2]) == {"\0"}:  # of a Latin script
            return f"{problem}, as UTF-16 has them; {_save_as_utf8(encoding)}"
    return problem


def _save_as_utf8(encoding: str = "") -> str:
    converting = f", or run iconv -f {encoding} -t UTF-8" if encoding else ""
    return f"save the file as UTF-8 (in Excel: CSV UTF-8){converting}"


def _read_as(encoding: str, line: bytes, is_likely: Callable[[bytes, str], bool]) -> str:
    """The beginning of the line in an encoding, if it is likely to be in that; else empty."""
    begins = line[:_GUESSED_BYTES]
    try:
        errors = "strict" if len(line) < _GUESSED_BYTES else "ignore"  # cut within a character
        text = begins.decode(encoding, errors)
    except UnicodeDecodeError:
        return ""
    if not is_likely(begins, text):
        return ""
    return "".join(char for char in text.strip() if char.isprintable())[:_SHOWN_CHARS]


def _is_chinese(_: bytes, text: str) -> bool:
    foreign = [char for char in text if char > "\x7f"]
    common = [char for char in foreign if char.isalpha() and char.encode("gb2312", "ignore")]
    return 2 * len(common) > len(foreign)


# Three bytes beyond ASCII in a row are hardly two letters with accents, and some pairs are UTF-8.
_NOT_WESTERN = re.compile(rb"[\x80-\xff]{3}|[\xc2-\xdf][\x80-\xbf]")
_WESTERN_MARKS = "‘’“”„–—…€£§°«»¿¡®™²³½"


def _is_western(line: bytes, text: str) -> bool:
    foreign = [char for char in text if char > "\x7f"]
    is_text = all((char.isalpha() and char != "ÿ") or char in _WESTERN_MARKS for char in foreign)
    return is_text and _NOT_WESTERN.search(line) is None


# The encodings of Windows, and so of Excel, in China and in Western Europe.
_GUESSES = (("GBK", _is_chinese), ("WINDOWS-1252", _is_western))
_OTHER_BEGINNINGS = (
    (codecs.BOM_UTF32_LE, "UTF-32", _save_as_utf8("UTF-32")),
    *((bom, "UTF-16", _save_as_utf8("UTF-16")) for bom in UTF16_BOMS),
    (b"\x1f\x8b", "packed by gzip", "let its name end in .gz"),
    (b"PK\x03\x04", "a ZIP or Excel file", "save the sheet as CSV UTF-8"),
)
