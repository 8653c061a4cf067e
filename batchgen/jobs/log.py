"""The log of a run: JSON lines, one event for each attempt; never a prompt, an answer or the key.

Events: attempt, parsed, acquitted, warning, bug, run_started, run_ended.
"""

import os
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import structlog

from batchgen.errors import BatchgenError
from batchgen.items import (
    Acquitted,
    Attempt,
    Decision,
    Done,
    Fail,
    Item,
    KeepAnswer,
    Release,
    Retry,
    Suspect,
)
from batchgen.text.json_text import logged_json

_FLUSH_EVERY_S = 1.0
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class LogFile:
    """Writes a file of its own, `logs/batchgen-<time>-<pid>.jsonl`. Warnings are also shown to the
    user (`show`), and so is every failed attempt if `show_attempt` is given. Whatever is in a
    message, and whatever becomes of the disk and the terminal, it does not end the run."""

    def __init__(
        self,
        directory: Path,
        show: Callable[[str], None],
        show_attempt: Callable[[str], None] | None = None,
    ) -> None:
        self._show = show
        self._show_attempt = show_attempt
        self._file, self.path = _new_file(directory)
        self._log: Any = structlog.wrap_logger(
            _Lines(self._file, self._cannot_write),
            processors=[_Clock().stamp, _as_line],
            wrapper_class=_Logger,
        ).bind()  # a logger that is not bound makes another one for each line

    def attempt(self, item: Item, attempt: Attempt, decision: Decision) -> None:
        """One call and what followed from it."""
        self._log.info(
            "attempt",
            item=item.id,
            try_number=item.tries + 1,
            outcome=attempt.outcome,
            reason=attempt.reason,
            http_status=attempt.http_status,
            request_id=attempt.request_id,
            latency_ms=attempt.latency_ms,
            prompt_tokens=attempt.usage.prompt_tokens,
            completion_tokens=attempt.usage.completion_tokens,
            decision=_name(decision),
        )
        reason, error = attempt.reason, attempt.error
        if reason is None and isinstance(decision, Fail):  # an answer, but its parser failed
            reason, error = decision.reason, decision.error
        if self._show_attempt and reason is not None:
            self._tell(
                self._show_attempt,
                f"item {item.id}, try {item.tries + 1}: {reason}: {error} -> {_name(decision)}",
            )

    def parsed(self, item: Item, decision: Decision) -> None:
        """What the parser made of an answer that was stored before."""
        self._log.info("parsed", item=item.id, decision=_name(decision))
        if self._show_attempt and isinstance(decision, Fail):
            self._tell(self._show_attempt, f"item {item.id}: {decision.reason}: {decision.error}")

    def acquitted(self, one: Acquitted) -> None:
        """What became of a suspect, as others were answered or nobody was left to tell."""
        decision = "retry" if one.reason is None else f"failed: {one.reason}"
        self._log.info("acquitted", item=one.item_id, decision=decision)
        if self._show_attempt:
            self._tell(self._show_attempt, f"item {one.item_id}: {decision}: {one.error}")

    def event(self, name: str, **fields: Any) -> None:
        self._log.info(name, **fields)

    def warn(self, message: str) -> None:
        self._log.info("warning", message=message)
        self._tell(self._show, message)

    def bug(self, message: str, trace: str) -> None:
        self._log.info("bug", message=message, trace=trace)
        self._tell(self._show, f"{message} (internal error; the trace is in {self.path})")

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as exc:
            self._cannot_write(exc)

    def _cannot_write(self, exc: OSError) -> None:
        """A full disk ends the log, not the run, as the database has everything anyway."""
        said = f"{self.path}: cannot write the log ({exc.strerror}); going on without it"
        self._tell(self._show, said)

    @staticmethod
    def _tell(show: Callable[[str], None], message: str) -> None:
        """Of what no encoding has (half a surrogate pair) the code point is shown. A terminal that
        is gone ends no run."""
        with suppress(OSError):
            show(message.encode(errors="backslashreplace").decode())


_Event = MutableMapping[str, Any]


class _Logger(structlog.BoundLoggerBase):
    """With the one method that is used: structlog's own find theirs by name for each line."""

    def info(self, event: str, **fields: Any) -> None:
        self._proxy_to_logger("info", event, **fields)


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


def _new_file(directory: Path) -> tuple[BinaryIO, Path]:
    # Local time, by which people look for the run of last night.
    started = datetime.now().astimezone()
    stem = f"batchgen-{started:%Y%m%d-%H%M%S}-{os.getpid()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for number in count(1):  # two runs of one process may start in the same second
            path = directory / (f"{stem}.jsonl" if number == 1 else f"{stem}-{number}.jsonl")
            try:
                file = os.open(path, _NEW_FILE, 0o600)  # it tells of the user's work
                return os.fdopen(file, "wb"), path
            except FileExistsError:
                pass
    except OSError as exc:
        raise BatchgenError(
            f"{directory}: cannot write the log there ({exc.strerror}). "
            "Choose another directory: log_dir in the config."
        ) from exc
    raise AssertionError("count() never ends")


def _name(decision: Decision) -> str:
    match decision:
        case Done():
            return "done"
        case KeepAnswer():
            return "parse"
        case Retry():
            return "retry"
        case Fail(reason=reason):
            return f"failed: {reason}"
        case Suspect():
            return "suspect"
        case Release():
            return "release"
