"""Server-sent events out of bytes, as the HTML standard has them. Pure.

Beyond the standard it takes an event that only the end of the stream ends, and llama.cpp's field
`error`.
"""

import codecs
import re
from typing import NamedTuple

_NEW_DECODER = codecs.getincrementaldecoder("utf-8-sig")
_FIELD = re.compile(rb"(?:data|event|id|retry|error|):|data[\r\n]")
_LONGEST_FIELD = len(b"event:")


class Event(NamedTuple):
    """`name` is "" where the server gives none."""

    name: str
    data: str


def begins_as_stream(start: bytes) -> bool | None:
    """Whether a body that begins so is a stream of events; None: too little of it is there."""
    start = start.removeprefix(codecs.BOM_UTF8).lstrip()
    if _FIELD.match(start):
        return True
    return None if len(start) < _LONGEST_FIELD else False


class EventReader:
    """The events of one stream. The bytes may be cut anywhere."""

    __slots__ = ("_after_cr", "_data", "_decode", "_line", "_name", "pending_chars")

    def __init__(self) -> None:
        self._decode = _NEW_DECODER(errors="replace").decode
        self._after_cr = False
        self._line: list[str] = []  # the pieces of one that has no end yet
        self._name = ""
        self._data: list[str] = []
        self.pending_chars = 0
        """How much is kept of an event that has no end yet."""

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that are whole with these bytes. Comments are none."""
        return self._read(self._decode(chunk))

    def end(self) -> list[Event]:
        """The stream is over: what an empty line should have ended is an event, too."""
        return self._read(self._decode(b"", True) + "\n\n")

    def _read(self, text: str) -> list[Event]:
        if self._after_cr and text:
            self._after_cr = False
            text = text.removeprefix("\n")
        if "\r" in text:
            self._after_cr = text.endswith("\r")
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        first, *lines = text.split("\n")
        self._line.append(first)
        self.pending_chars += len(first)
        if not lines:
            return []
        rest = lines.pop()
        lines.insert(0, "".join(self._line))
        events: list[Event] = []
        for line in lines:
            if line.startswith("data:"):
                self._data.append(line[5:].removeprefix(" "))
            elif line:
                self._read_field(line)
            else:
                self._dispatch(events)
        self._line = [rest]
        self.pending_chars = len(rest) + sum(map(len, self._data))
        return events

    def _read_field(self, line: str) -> None:
        field, _, value = line.partition(":")
        if field in ("data", "error"):
            self._data.append(value.removeprefix(" "))
        if field in ("event", "error"):
            self._name = value.removeprefix(" ") if field == "event" else field

    def _dispatch(self, events: list[Event]) -> None:
        if self._data:
            events.append(Event(self._name, "\n".join(self._data)))
            self._data = []
        self._name = ""
