"""A batch as the simulated provider keeps it, and as OpenAI shows one."""

import secrets
import time
from array import array
from asyncio import Event, timeout
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from batchgen.simulate.batch_input import Problem

_TIMES = (
    "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled",
)  # fmt: skip
_ENDED = ("completed", "failed", "expired", "cancelled")


class Batch:
    """`places` are where its lines begin in `input_path`, in the order in which they are answered,
    `done` how many of them are; `succeeded` are in the output file, `failed` in the error file."""

    input_path: Path | None = None
    output_path: Path | None = None
    error_path: Path | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    model: str | None = None
    problems: Sequence[Problem] = ()

    def __init__(
        self, input_file_id: str, endpoint: str, window: str, window_s: int,
        metadata: Mapping[str, str] | None, number: int,
    ) -> None:  # fmt: skip
        self.id = f"batch_{secrets.token_hex(12)}"
        self.number = number
        self.input_file_id = input_file_id
        self.endpoint = endpoint
        self.status = "validating"
        self.places: array[int] = array("Q")
        self.done = self.succeeded = self.failed = 0
        self.tokens_in = self.tokens_out = 0
        self.began_at = self.moved_at = time.monotonic()
        self._window = window
        self._window_s = window_s
        self._metadata = metadata
        self._created_at = int(time.time())
        self._times: dict[str, int] = {}
        self._cancelled = Event()

    @property
    def has_ended(self) -> bool:
        return self.status in _ENDED

    def move(self, status: str) -> None:
        self.status = status
        self.moved_at = time.monotonic()
        self._times[status] = int(time.time())

    def cancel(self) -> None:
        """What is being answered goes on to be; nothing more is begun."""
        self.move("cancelling")
        self._cancelled.set()

    async def pause(self, seconds: float) -> None:
        """Until then, or until it is cancelled if it was not yet."""
        try:
            async with timeout(seconds):
                await (Event() if self._cancelled.is_set() else self._cancelled).wait()
        except TimeoutError:
            pass

    def to_json(self) -> dict[str, Any]:
        """OpenAI's batch object."""
        times = {f"{status}_at": self._times.get(status) for status in _TIMES}
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.model,
            "errors": self._errors(),
            "input_file_id": self.input_file_id,
            "completion_window": self._window,
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": self._created_at,
            "expires_at": self._created_at + self._window_s,
            **times,
            "request_counts": {
                "total": len(self.places), "completed": self.succeeded, "failed": self.failed,
            },
            "usage": {
                "input_tokens": self.tokens_in,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": self.tokens_out,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": self.tokens_in + self.tokens_out,
            },
            "metadata": self._metadata,
        }  # fmt: skip

    def _errors(self) -> dict[str, Any] | None:
        return {"object": "list", "data": [*map(asdict, self.problems)]} if self.problems else None
