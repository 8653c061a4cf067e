"""The lines of an answer file: split as they come, and read.

A line ends at the byte \\n and nowhere else: JSON may have U+2028 and U+0085 in its texts, at which
Python's own splitting of text would cut an answer in two.
"""

import ast
import re
import time
import warnings
from collections.abc import Mapping
from typing import Any

from msgspec import MsgspecError, Raw, Struct
from msgspec.json import Decoder

from batchgen.config import Secrets
from batchgen.endpoints import ENDPOINTS
from batchgen.items import Reason, Reply
from batchgen.llm.batches.protocol import BatchLine
from batchgen.text.foreign_json import dump_whole, load_json, shorten, text_or_none

_MOST_LINE_BYTES = 64 * 1024 * 1024  # as of an online answer
_BEGINNING_BYTES = 4096
_SHOWN_CHARS = 1000
_MOST_QUOTED_CHARS = 10_000
_CUSTOM_ID = re.compile(r'"custom_id"\s*:\s*"([A-Za-z0-9_-]{1,64})"')
# How OpenAI's client tells of a refused call, with its body as Python writes it.
_TOLD = re.compile(r"Error code: ([45]\d\d)(?: - (.*))?", re.DOTALL)
_SIGNS = tuple({one.sign for one in ENDPOINTS.values()})


class LineSplitter:
    """Makes lines of pieces. Of a line that is too long there is only the beginning."""

    def __init__(self, most_bytes: int = _MOST_LINE_BYTES) -> None:
        self._most_bytes = most_bytes
        self._begun: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that end in this piece, without their ends; those that are empty too."""
        *lines, rest = piece.split(b"\n")
        if lines:
            self._add(lines[0])
            lines[0] = self._whole()
        self._add(rest)
        return lines

    def _add(self, part: bytes) -> None:
        was_too_long = self._size > self._most_bytes
        self._size += len(part)
        if self._size <= self._most_bytes:
            self._begun.append(part)
        elif not was_too_long:
            self._begun = [(b"".join(self._begun) + part)[:_BEGINNING_BYTES]]

    def _whole(self) -> bytes:
        line = b"".join(self._begun)
        self._begun, self._size = [], 0
        return line


class _Response(Struct, gc=False):
    status_code: int
    body: Raw
    request_id: str | None = None


class _Line(Struct, gc=False):
    response: _Response
    custom_id: str
    error: None = None


class LineReader:
    """Reads lines as OpenAI and most others write them, and hides what in them is secret."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._decode = Decoder(_Line).decode

    def read(self, line: bytes) -> BatchLine:
        """Raises nothing, whatever the line is."""
        try:
            found = self._decode(line)
            response = found.response
            body = bytes(response.body).decode()
        except (MsgspecError, UnicodeError, RecursionError):
            return self._read_odd(line)
        if body[:1] != "{":
            return self._read_odd(line)
        status, request_id = response.status_code, response.request_id
        return BatchLine(found.custom_id, self._reply(status, body, request_id))

    def _read_odd(self, line: bytes) -> BatchLine:
        """A line without a reply, or that only a lenient reader reads."""
        text = line.decode(errors="replace").removeprefix("\ufeff")
        found = load_json(text)
        if not isinstance(found, dict):
            return self._unreadable(text)
        custom_id, error = text_or_none(found.get("custom_id")), found.get("error")
        response = found.get("response")
        response = response if isinstance(response, dict) else {}
        status, body = _status_of(response.get("status_code")), response.get("body")
        if status is None and body is None:
            # ogx tells of the error of a call in words alone.
            if (told := _reply_told(error)) is None:
                return BatchLine(custom_id, None, *self._said(error))
            status, body = told
        if body is None and error:
            body = error if isinstance(error, dict) and "error" in error else {"error": error}
        try:
            # ogx writes the body as a text that is JSON.
            body_text = body if isinstance(body, str) else dump_whole(body)
        except RecursionError:
            return self._unreadable(text)
        request_id = text_or_none(response.get("request_id"))
        return BatchLine(custom_id, self._reply(status or 200, body_text, request_id))

    def _reply(self, status: int, body: str, request_id: str | None) -> Reply:
        if status == 200 and _is_answer(body):
            body = self._secrets.hide_in_answer(body)
        else:
            body = self._secrets.hide(body)
        headers = {"x-request-id": request_id} if request_id else _NO_HEADERS
        return Reply(_now(), 0, status, headers, body)

    def _said(self, error: Any) -> tuple[str, str]:
        """What an error is called, and what it says."""
        error = error if isinstance(error, dict) else {"message": error or ""}
        names = (text_or_none(error.get(name)) for name in ("code", "type"))
        code = next(filter(None, names), "no_reply")
        message = error.get("message")
        said = message if isinstance(message, str) else dump_whole(error)
        return code, shorten(self._secrets.hide(said))

    def _unreadable(self, text: str) -> BatchLine:
        """Whose line it is may be there all the same."""
        beginning = shorten(self._secrets.hide(text[:_SHOWN_CHARS]))
        message = f"a line that is no JSON, or too long: {beginning}"
        named = _CUSTOM_ID.search(text, 0, _BEGINNING_BYTES)
        if named is None:
            return BatchLine(None, None, "unreadable", message)
        fault = Reply(_now(), 0, fault=Reason.BAD_RESPONSE, fault_message=message)
        return BatchLine(named[1], fault)


_NO_HEADERS: Mapping[str, str] = {}


def _is_answer(body: str) -> bool:
    for sign in _SIGNS:  # noqa: SIM110 - `any` would need a generator
        if sign in body:
            return True
    return False


def _now() -> int:
    return time.time_ns() // 1_000_000


def _reply_told(error: Any) -> tuple[int, str] | None:
    """The status and the body of a reply, where an error quotes a client that got it."""
    message = error.get("message") if isinstance(error, dict) else None
    if not isinstance(message, str) or not (told := _TOLD.fullmatch(message)):
        return None
    status, said = int(told[1]), told[2] or ""
    if said[:1] == "{" and len(said) <= _MOST_QUOTED_CHARS:
        try:
            with warnings.catch_warnings(action="ignore"):
                return status, dump_whole(ast.literal_eval(said))
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            pass
    return status, dump_whole({"error": {"message": said}})


def _status_of(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:4])
    return value if isinstance(value, int) and value and not isinstance(value, bool) else None
