"""The simulated model's log of calls: a JSON line for each, written as it arrives, and for each
line of a batch, written as it is answered."""

import json
import time
from pathlib import Path
from typing import IO

from batchgen.errors import BatchgenError
from batchgen.simulate.answers import Chat


class CallLog:
    """Appends to the file at `path`; None: to none. Unbuffered, so that each line is one write and
    survives a kill."""

    def __init__(self, path: Path | str | None) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def open(self) -> None:
        """Raises BatchgenError if it cannot be written."""
        if self._path is not None:
            try:
                self._file = Path(self._path).open("ab", buffering=0)  # noqa: SIM115  (to `close`)
            except OSError as exc:
                raise BatchgenError(
                    f"cannot write the ledger {self._path}: {exc.strerror}"
                ) from exc

    def write(self, chat: Chat | None, tries: int, outcome: str, **more: str) -> None:
        """`more` names the batch and the custom_id of a line."""
        if self._file is None:
            return
        line = {
            "time": time.time(),
            "key": chat.key if chat else None,
            "prompt": chat.text[:80] if chat else None,
            "try": tries,
            "outcome": outcome,
            **more,
        }
        self._file.write(json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
