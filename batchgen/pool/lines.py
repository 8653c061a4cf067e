"""The lines of a file as text, counted, however long or broken they are."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from batchgen.pool.shapes import BadLine

MAX_ITEM_BYTES = 64 << 20  # no server takes a larger request, and an item must fit in memory
CHUNK_CHARS = 1 << 20
_GUESSED_BYTES = 1000
_SHOWN_CHARS = 30
TEXT_KEPT_CHARS = 1000  # of a line over the limit; enough to recognize it


@dataclass(slots=True)
class Lines:
    """The lines of a binary file as text, counted. A line that cannot be text is a BadLine.

    Never reads more than `MAX_ITEM_BYTES` at once, however long a line is.
    """

    file: BinaryIO
    name: str
    number: int = 0

    def __iter__(self) -> Iterator[str | BadLine]:
        while raw := self.file.readline(MAX_ITEM_BYTES + 1):
            self.number += 1
            if self.number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            yield self._text(raw)

    def bad(self, problem: str, text: str = "", fatal: bool = False) -> BadLine:
        return BadLine(f"{self.name}:{self.number}", problem, text, fatal)

    def _text(self, raw: bytes) -> str | BadLine:
        if len(raw) > MAX_ITEM_BYTES and not raw.endswith(b"\n"):
            self._skip_rest()
            start = raw[:TEXT_KEPT_CHARS].decode(errors="backslashreplace")
            return self.bad(f"the line is longer than {MAX_ITEM_BYTES >> 20} MB", start)
        try:
            text = raw.decode()
        except UnicodeDecodeError as exc:
            return self.bad(not_utf8(exc), raw.decode(errors="backslashreplace"))
        if "\0" in text:
            return self.bad(f"NUL byte at column {text.index(chr(0)) + 1}", text)
        return text

    def _skip_rest(self) -> None:
        while (more := self.file.readline(CHUNK_CHARS)) and not more.endswith(b"\n"):
            pass


def not_utf8(exc: UnicodeDecodeError) -> str:
    """What is wrong with bytes that are no UTF-8, what they seem to be, and what to do."""
    data = exc.object
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return f"not UTF-8 but UTF-16; {_save_as_utf8('UTF-16')}"
    before = data[data.rfind(b"\n", 0, exc.start) + 1 : exc.start]
    column = len(before.decode(errors="replace")) + 1
    problem = f"not UTF-8: byte 0x{data[exc.start]:02x} at column {column}"
    end = data.find(b"\n", exc.start)
    line = data[exc.start - len(before) : len(data) if end < 0 else end]
    return f"{problem}{_as_gbk(line)}"


def _as_gbk(line: bytes) -> str:
    """A word about the line if it is Chinese in the encoding of Chinese Windows, and of its Excel.
    It is not read so: other encodings' bytes may be valid in it too."""
    try:
        errors = "strict" if len(line) < _GUESSED_BYTES else "ignore"  # cut within a character
        text = line[:_GUESSED_BYTES].decode("gbk", errors)
    except UnicodeDecodeError:
        return ""
    foreign = [char for char in text if char > "\x7f"]
    common = [char for char in foreign if char.isalpha() and char.encode("gb2312", "ignore")]
    if 2 * len(common) <= len(foreign):
        return ""
    shown = "".join(char for char in text.strip() if char.isprintable())[:_SHOWN_CHARS]
    return f'; in GBK it would be "{shown}": {_save_as_utf8("GBK")}'


def _save_as_utf8(encoding: str) -> str:
    return f"save the file as UTF-8 (in Excel: CSV UTF-8), or run iconv -f {encoding} -t UTF-8"
