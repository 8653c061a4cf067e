"""The lines of a file as text, counted, however long or broken they are."""

import codecs
from collections.abc import Iterator
from typing import BinaryIO

from msgspec import Struct

from batchgen.pool.shapes import BadLine
from batchgen.text.encoding import nul_problem, utf8_problem

MAX_ITEM_BYTES = 64 << 20  # no server takes a larger request, and an item must fit in memory
CHUNK_CHARS = 1 << 20
TEXT_KEPT_CHARS = 1000  # of a line over the limit; enough to recognize it


class Lines(Struct):
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
            return self.bad(utf8_problem(exc), raw.decode(errors="backslashreplace"))
        if "\0" in text:
            return self.bad(nul_problem(text), text)
        return text

    def _skip_rest(self) -> None:
        while (more := self.file.readline(CHUNK_CHARS)) and not more.endswith(b"\n"):
            pass
