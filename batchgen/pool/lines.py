"""The lines of a file as text, counted, however long or broken they are."""

import codecs
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, cast

from msgspec import Struct

from batchgen.pool.shapes import BadLine
from batchgen.text.encoding import nul_problem, utf8_problem

if TYPE_CHECKING:
    from io import BufferedIOBase

MAX_ITEM_BYTES = 64 << 20  # no server takes a larger request, and an item must fit in memory
CHUNK_CHARS = 1 << 20
_BLOCK_BYTES = 1 << 16
TEXT_KEPT_CHARS = 1000  # of a line over the limit; enough to recognize it


class Lines(Struct):
    """The lines of a binary file as text, without their `\\n`, counted. A line that cannot be text
    is a BadLine.

    Never reads more than `MAX_ITEM_BYTES` at once, however long a line is.
    """

    file: BinaryIO
    name: str
    number: int = 0

    def __iter__(self) -> Iterator[str | BadLine]:
        file = cast("BufferedIOBase", self.file)
        begun = b""
        while block := begun + file.read1(_BLOCK_BYTES):  # what is there: a pipe may be slow
            lines, newline, begun = block.rpartition(b"\n")
            if not newline:
                yield self._line(block + file.readline(MAX_ITEM_BYTES + 1 - len(block)))
                begun = b""
            elif (text := self._whole_text(lines)) is None:
                yield from map(self._line, lines.split(b"\n"))
            else:
                for line in text.split("\n"):
                    self.number += 1
                    yield line

    def bad(self, problem: str, text: str = "", fatal: bool = False) -> BadLine:
        return BadLine(f"{self.name}:{self.number}", problem, text, fatal)

    def _whole_text(self, raw: bytes) -> str | None:
        """Many lines at once, as to decode each on its own takes longer; None: one is no text."""
        if self.number == 0:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return None
        return None if "\0" in text else text

    def _line(self, raw: bytes) -> str | BadLine:
        self.number += 1
        if self.number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        if len(raw) > MAX_ITEM_BYTES and not raw.endswith(b"\n"):
            self._skip_rest()
            start = raw[:TEXT_KEPT_CHARS].decode(errors="backslashreplace")
            return self.bad(f"the line is longer than {MAX_ITEM_BYTES >> 20} MB", start)
        raw = raw.removesuffix(b"\n")
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
