"""A batch as the simulated provider keeps it, and as OpenAI shows one."""

import secrets
import time
from array import array
from asyncio import Event, timeout
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from batchgen.simulate.batch_input import Problem

_TIMES = (
    "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled",
)  # fmt: skip
_ENDED = ("completed", "failed", "expired", "cancelled")


class Wanted(Struct, frozen=True):
    """What a batch was made with. `window_s` is the `window` in seconds."""

    input_file_id: str
    endpoint: str
    window: str
    window_s: int
    metadata: Mapping[str, str] | None


class Batch:
    """`places` are where its lines begin in the file at `input_path`, in the order in which they
    are answered, until it ends; `done` of all the `total` are answered, of which `succeeded` are in
    the output file and `failed` in the error file, and `left` are given up. `faults` are by name
    what happens to it."""

    input_path: Path | None = None
    output_path: Path | None = None
    error_path: Path | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    model: str | None = None
    problems: Sequence[Problem] = ()

    def __init__(self, wanted: Wanted, number: int, tokens: int, faults: Mapping[str, Any]) -> None:
        self.id = f"batch_{secrets.token_hex(12)}"
        self.wanted = wanted
        self.number = number
        self.tokens = tokens
        self.faults = faults
        self.status = "validating"
        self.places: array[int] = array("Q")
        self.total = self.done = self.succeeded = self.failed = self.left = 0
        self.tokens_in = self.tokens_out = 0
        self._created_at = int(time.time())
        self._made_at = self._moved_at = time.monotonic()
        self._times: dict[str, int] = {}
        self._cancelled = Event()
        self.is_late = "late_list" in faults

    @property
    def has_ended(self) -> bool:
        return self.status in _ENDED

    @property
    def is_listed(self) -> bool:
        over_s = time.monotonic() - self._made_at
        return not self.is_late or bool(over_s >= self.faults["late_list"])

    @property
    def in_status_s(self) -> float:
        """For how long it has been what it is."""
        return time.monotonic() - self._moved_at

    def move(self, status: str) -> None:
        self.status = status
        self._moved_at = time.monotonic()
        self._times[status] = int(time.time())
        if self.has_ended:
            self.places = array("Q")
            if self.input_path is not None:
                self.input_path.unlink(missing_ok=True)

    def cancel(self) -> None:
        """No line is begun from now on."""
        self.move("cancelling")
        self._cancelled.set()

    async def pause(self, seconds: float) -> None:
        """For so long, or until it is cancelled if it was not yet."""
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
            "endpoint": self.wanted.endpoint,
            "model": self.model,
            "errors": self._errors(),
            "input_file_id": self.wanted.input_file_id,
            "completion_window": self.wanted.window,
            "status": self.status,
            "output_file_id": self._shown(self.output_file_id),
            "error_file_id": self._shown(self.error_file_id),
            "created_at": self._created_at,
            "expires_at": self._created_at + self.wanted.window_s,
            **times,
            "request_counts": {
                "total": self.total, "completed": self.succeeded, "failed": self.failed,
            },
            "usage": {
                "input_tokens": self.tokens_in,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": self.tokens_out,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": self.tokens_in + self.tokens_out,
            },
            "metadata": self.wanted.metadata,
        }  # fmt: skip

    def _errors(self) -> dict[str, Any] | None:
        return {"object": "list", "data": [*map(asdict, self.problems)]} if self.problems else None

    def _shown(self, file_id: str | None) -> str | None:
        is_late = self.in_status_s < self.faults.get("late_output", 0)
        return (None if is_late else file_id) or ("" if "empty_id" in self.faults else None)
