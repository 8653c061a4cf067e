"""What writes the lines of a run's log: structlog, with no more of it than a line needs."""

import time
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any, BinaryIO

import structlog

from batchgen.text.json_text import logged_json

_FLUSH_EVERY_S = 1.0
_Event = MutableMapping[str, Any]


def log_writer(file: BinaryIO, cannot_write: Callable[[OSError], None]) -> Any:
    """A logger whose `info` writes an event as a line of JSON; `cannot_write` is told once when the
    disk does not take it."""
    return structlog.wrap_logger(
        _Lines(file, cannot_write),
        processors=[_Clock().stamp, _as_line],
        wrapper_class=_Logger,
    ).bind()  # a logger that is not bound makes another one for each line


class _Logger(structlog.BoundLoggerBase):
    """With the one method that is used: structlog's own find theirs by name for each line, and copy
    the fields for what could be bound to the logger."""

    def info(self, event: str, **fields: Any) -> None:
        fields["event"] = event
        line: Any = fields
        for process in self._processors:
            line = process(self._logger, "info", line)
        self._logger.info(line)


class _Clock:
    """Stamps events as structlog's TimeStamper does. It writes the date once a second only."""

    def __init__(self) -> None:
        self._second = -1
        self._written = ""

    def stamp(self, _: Any, __: str, event: _Event) -> _Event:
        second, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
        if second != self._second:
            self._second = second
            self._written = f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"
        event["timestamp"] = f"{self._written}.{microseconds:06d}Z"
        return event


def _as_line(_: Any, __: str, event: _Event) -> bytes:
    return logged_json(event) + b"\n"


class _Lines:
    """What structlog writes to: a buffered file, flushed once a second so that it can be followed.

    structlog's own writer flushes each line, which costs a sixth of a worker's CPU for an item.
    """

    def __init__(self, file: BinaryIO, cannot_write: Callable[[OSError], None]) -> None:
        self._file = file
        self._cannot_write = cannot_write
        self._flush_at = 0.0
        self._broken = False

    def info(self, line: bytes) -> None:
        if self._broken:
            return
        try:
            self._file.write(line)
            if (now_s := time.monotonic()) > self._flush_at:
                self._file.flush()
                self._flush_at = now_s + _FLUSH_EVERY_S
        except OSError as exc:
            self._broken = True
            self._cannot_write(exc)
