"""The log of a run: JSON lines, one event an attempt. Never a prompt, an answer, or the key.

Events: attempt, warning, bug, run_started, run_ended.
"""

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from batchgen.errors import BatchgenError
from batchgen.items import Attempt, Decision, Done, Fail, Item, KeepAnswer, Release, Retry

# Bounds what a kill can cost the log; the database has it all anyway.
_BUFFER_BYTES = 8192


class RunLog:
    """Writes to `logs/batchgen-<time>-<pid>.jsonl`. Warnings are shown to the user too, and so is
    every failed attempt when there is `show_attempt`."""

    def __init__(
        self,
        directory: Path,
        show: Callable[[str], None],
        show_attempt: Callable[[str], None] | None = None,
    ) -> None:
        self._show = show
        self._show_attempt = show_attempt
        # Local time, as somebody looks for the run of last night.
        started = datetime.now().astimezone()
        self.path = directory / f"batchgen-{started:%Y%m%d-%H%M%S}-{os.getpid()}.jsonl"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8", buffering=_BUFFER_BYTES)
        except OSError as exc:
            raise BatchgenError(f"{self.path}: cannot write the log ({exc.strerror}).") from exc
        self._log: Any = structlog.wrap_logger(
            structlog.WriteLogger(self._file),
            processors=[
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
            wrapper_class=structlog.BoundLogger,
        )

    def attempt(self, item: Item, attempt: Attempt, decision: Decision) -> None:
        """One call and what followed from it."""
        self._log.info(
            "attempt",
            item=item.id,
            try_number=item.attempts + 1,
            outcome=attempt.outcome,
            reason=attempt.reason,
            http_status=attempt.http_status,
            request_id=attempt.request_id,
            latency_ms=attempt.latency_ms,
            prompt_tokens=attempt.usage.prompt_tokens,
            completion_tokens=attempt.usage.completion_tokens,
            decision=_name(decision),
        )
        if self._show_attempt and attempt.reason is not None:
            self._show_attempt(
                f"item {item.id}, try {item.attempts + 1}: {attempt.reason}: {attempt.error} "
                f"-> {_name(decision)}"
            )

    def event(self, name: str, **fields: Any) -> None:
        self._log.info(name, **fields)

    def warn(self, message: str) -> None:
        self._log.info("warning", message=message)
        self._show(message)

    def bug(self, message: str, trace: str) -> None:
        self._log.info("bug", message=message, trace=trace)
        self._show(f"{message} (internal error; the trace is in {self.path})")

    def close(self) -> None:
        self._file.close()


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
        case Release():
            return "release"
