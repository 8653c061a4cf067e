"""The files that were uploaded to the simulated model and those that it made, on disk."""

import secrets
import shutil
import tempfile
import time
import weakref
from pathlib import Path
from typing import Any

from msgspec import Struct

_EXPIRES_AFTER_S = 30 * 86_400  # as OpenAI's files for batches


class StoredFile(Struct, frozen=True):
    """`path` is where its bytes are."""

    id: str
    name: str
    purpose: str
    size: int
    created_at: int
    path: Path

    def to_json(self) -> dict[str, Any]:
        """OpenAI's file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.size,
            "created_at": self.created_at,
            "expires_at": self.created_at + _EXPIRES_AFTER_S,
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


class Files:
    """By their ids, oldest first, in a directory that goes with this object or the process."""

    def __init__(self) -> None:
        self._files: dict[str, StoredFile] = {}
        self._made: Path | None = None

    def new_path(self) -> Path:
        """Where a file can be written that `keep` or `drop` is then told of."""
        if self._made is None:
            self._made = Path(tempfile.mkdtemp(prefix="batchgen-simulate-"))
            weakref.finalize(self, shutil.rmtree, self._made, ignore_errors=True)
        return self._made / secrets.token_hex(8)

    def second_path(self, file: StoredFile) -> Path:
        """Where a file is too, until that is unlinked."""
        path = self.new_path()
        path.hardlink_to(file.path)
        return path

    def keep(self, path: Path, name: str, purpose: str) -> StoredFile:
        """Gives the file at `path`, which is whole, an id."""
        made = StoredFile(
            f"file-{secrets.token_hex(12)}", name, purpose, path.stat().st_size, int(time.time()),
            path,
        )  # fmt: skip
        self._files[made.id] = made
        return made

    def get(self, file_id: str) -> StoredFile | None:
        return self._files.get(file_id)

    def all(self) -> list[StoredFile]:
        """Oldest first."""
        return list(self._files.values())

    def delete(self, file_id: str) -> bool:
        """Whether there was one. Who reads it reads on."""
        gone = self._files.pop(file_id, None)
        if gone is not None:
            gone.path.unlink(missing_ok=True)
        return gone is not None
