"""The log of a run: JSON lines, one event for each attempt; never a prompt, an answer or the key.

Events: attempt, parsed, acquitted, warning, bug, run_started, run_ended.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from batchgen.errors import BatchgenError
from batchgen.items import (
    Attempt,
    Decision,
    Done,
    Fail,
    Item,
    KeepAnswer,
    ParseLater,
    Release,
    Retry,
    Suspect,
)
from batchgen.store import Acquitted

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
        self._writer: Any = None

    @property
    def _log(self) -> Any:
        """Loaded with the first event: structlog loads rich, and the first call need not wait."""
        if self._writer is None:
            from batchgen.jobs.log_writer import log_writer

            self._writer = log_writer(self._file, self._cannot_write)
        return self._writer

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
        case KeepAnswer() | ParseLater():
            return "parse"
        case Retry():
            return "retry"
        case Fail(reason=reason):
            return f"failed: {reason}"
        case Suspect():
            return "suspect"
        case Release():
            return "release"
