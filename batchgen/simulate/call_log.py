"""The simulated model's log of calls: a JSON line for each, written as it arrives."""

import json
import time
from pathlib import Path
from typing import IO

from batchgen.errors import BatchgenError
from batchgen.simulate.answers import Chat


class CallLog:
    """Appends to the file at `path`; None: to none. Unbuffered, so that each line is one write and
    survives a kill. Raises BatchgenError if it cannot be written."""

    def __init__(self, path: Path | str | None) -> None:
        self._file: IO[bytes] | None = None
        if path is not None:
            try:
                self._file = Path(path).open("ab", buffering=0)  # noqa: SIM115  (until `close`)
            except OSError as exc:
                raise BatchgenError(f"cannot write the ledger {path}: {exc.strerror}") from exc

    def write(self, chat: Chat | None, tries: int, outcome: str) -> None:
        if self._file is None:
            return
        line = {
            "time": time.time(),
            "key": chat.key if chat else None,
            "prompt": chat.text[:80] if chat else None,
            "try": tries,
            "outcome": outcome,
        }
        self._file.write(json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
