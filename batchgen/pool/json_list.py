"""A JSON list of items, whatever its size, read in constant memory."""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from json import JSONDecodeError
from typing import Any, BinaryIO

from batchgen.pool.lines import CHUNK_CHARS, MAX_ITEM_BYTES, TEXT_KEPT_CHARS
from batchgen.pool.shapes import BadLine, Entry, entry_of
from batchgen.pool.strict_json import (
    checked,
    lenient_decoder,
    problem_of,
)
from batchgen.text.encoding import utf8_problem
from batchgen.text.json_text import NotStorableError, strict_decoder

# The longest token that can look whole, or wrong, because a chunk ends within it: \uXXXX\uXXXX.
CUT_TOKEN_CHARS = 16
_SPACE = re.compile(r"[ \t\n\r]*")  # the white space of JSON


class JsonList:
    """The elements of a JSON list; never more than one of them and a chunk is in memory.

    `read(n)` returns up to n more characters, "" at the end. `line` is the line of `buffer[pos]`.
    """

    def __init__(self, read: Callable[[int], str], name: str, chunk: int = CHUNK_CHARS) -> None:
        self.read, self.name, self.chunk = read, name, chunk
        self.buffer, self.pos, self.line = "", 0, 1

    def __iter__(self) -> Iterator[Entry]:
        try:
            yield from self._elements()
        except _SyntaxError as exc:
            yield BadLine(f"{self.name}:{exc.line}", exc.problem, exc.text, fatal=True)

    def _elements(self) -> Iterator[Entry]:
        if self._next() != "[":
            raise self._error("not a JSON list; one object per line is .jsonl")
        self._move(self.pos + 1)
        more = self._next() != "]"
        while more:
            yield self._element()
            separator = self._next()
            if separator not in (",", "]"):
                missing = "a comma or the list's end" if separator else "the list's end, ],"
                raise self._error(f"not JSON: {missing} is missing")
            more = separator == ","
            self._move(self.pos + more)
        self._move(self.pos + 1)
        if self._next():
            raise self._error("there is more after the list's end")

    def _element(self) -> Entry:
        self._next()
        where = f"{self.name}:{self.line}"
        try:
            obj, end = self._decode(strict_decoder)
        except ValueError as exc:
            _, end = self._decode(lenient_decoder)
            return BadLine(where, problem_of(exc), self._take(end))
        text = self._take(end)
        try:
            return entry_of(checked(obj, text), where, text, is_json=True)
        except NotStorableError as exc:
            return BadLine(where, problem_of(exc), text)

    def _decode(self, decoder: json.JSONDecoder) -> tuple[Any, int]:
        """The value at `pos` and where it ends, reading on until it is whole.

        The buffer doubles with each try, so a value costs at most twice its own length.
        """
        while True:
            try:
                value, end = decoder.raw_decode(self.buffer, self.pos)
            except JSONDecodeError as exc:
                if not self._may_be_cut(exc) or not self._fill():
                    raise self._error(f"not JSON: {self._problem(exc)}", exc.pos) from None
            except RecursionError as exc:
                raise self._error(problem_of(exc)) from None
            else:
                bracketed = self.buffer[self.pos] in '{["'  # a number may go on in the next chunk
                if bracketed or end + CUT_TOKEN_CHARS < len(self.buffer) or not self._fill():
                    return value, end

    def _may_be_cut(self, exc: JSONDecodeError) -> bool:
        if exc.msg.startswith("Unterminated string"):
            return True
        return len(self.buffer[exc.pos :].strip()) < CUT_TOKEN_CHARS

    def _problem(self, exc: JSONDecodeError) -> str:
        unclosed = exc.msg.startswith("Unterminated string")
        return (
            "the file ends within an item" if unclosed or exc.pos >= len(self.buffer) else exc.msg
        )

    def _next(self) -> str:
        """Move to the next character that is not white space, and return it; "" at the end."""
        while True:
            match = _SPACE.match(self.buffer, self.pos)
            assert match is not None
            self._move(match.end())
            if self.pos < len(self.buffer):
                return self.buffer[self.pos]
            if not self._fill():
                return ""

    def _fill(self) -> bool:
        """Read on, at least as much as the buffer holds already. False at the end of the file, with
        the buffer unchanged."""
        rest = self.buffer[self.pos :]
        if len(rest) > MAX_ITEM_BYTES:
            raise self._error(f"an item is longer than {MAX_ITEM_BYTES >> 20} MB")
        try:
            more = self.read(max(self.chunk, len(rest)))
        except UnicodeDecodeError as exc:
            line = self.line + rest.count("\n") + exc.object[: exc.start].count(b"\n")
            raise _SyntaxError(line, utf8_problem(exc), "") from None
        if more:
            self.buffer, self.pos = rest + more, 0
        return bool(more)

    def _take(self, end: int) -> str:
        text = self.buffer[self.pos : end]
        self._move(end)
        return text

    def _move(self, pos: int) -> None:
        self.line += self.buffer.count("\n", self.pos, pos)
        self.pos = pos

    def _error(self, problem: str, pos: int | None = None) -> "_SyntaxError":
        pos = self.pos if pos is None else pos
        line = self.line + self.buffer.count("\n", self.pos, pos)
        return _SyntaxError(line, problem, self.buffer[self.pos :][:TEXT_KEPT_CHARS])


class _SyntaxError(Exception):
    """The list cannot be read on from here."""

    def __init__(self, line: int, problem: str, text: str) -> None:
        super().__init__(problem)
        self.line, self.problem, self.text = line, problem, text


def _utf8_reader(file: BinaryIO) -> Callable[[int], str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()

    def read(count: int) -> str:
        while True:
            data = file.read(count)
            text = decoder.decode(data, final=not data)
            if text or not data:
                return text

    return read


def read_json_list(file: BinaryIO, name: str) -> Iterator[Entry]:
    return iter(JsonList(_utf8_reader(file), name))
