"""The file of a batch while it is filled."""

import tempfile
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO, NamedTuple

from batchgen.errors import BatchgenError
from batchgen.llm.prices import WorstCase
from batchgen.store import Claim

_BYTES_PER_TOKEN = 4  # of English; other languages are nearer to 3


class SpoolKey(NamedTuple):
    """What all requests of a batch have in common."""

    server: str
    experiment_id: int
    recipe_id: int
    endpoint: str
    model: str


class Spool:
    """Requests of one batch, in a file without a name: however the process ends, nothing is left
    of it."""

    def __init__(self, key: SpoolKey, directory: Path) -> None:
        self.key = key
        self.token = token_hex(16)
        self.claims: list[Claim] = []
        self.bytes = 0
        self.reserved_tokens = 0
        self.reserved_cost_usd = 0.0
        self._directory = directory
        self._file: BinaryIO | None = None

    @property
    def requests(self) -> int:
        return len(self.claims)

    @property
    def tokens(self) -> int:
        """Of its prompts, as they are estimated."""
        return tokens_of(self.bytes)

    def add(self, line: bytes, claim: Claim, most: WorstCase | None) -> None:
        """Raises BatchgenError when the disk is full."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115
            self._file.write(line)
        except OSError as exc:
            raise _no_room(self._directory, exc) from exc
        self.claims.append(claim)
        self.bytes += len(line)
        if most is not None:
            self.reserved_tokens += most.tokens
            self.reserved_cost_usd += most.cost_usd or 0.0

    def rewound(self) -> BinaryIO:
        """The file, which has some by now, to be read from its beginning."""
        assert self._file is not None
        try:
            self._file.seek(0)  # what is buffered is written before
        except OSError as exc:
            raise _no_room(self._directory, exc) from exc
        return self._file

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def tokens_of(size: int) -> int:
    """Of so many bytes, about."""
    return size // _BYTES_PER_TOKEN


def custom_id_of(token: str, claim: Claim) -> str:
    """By which a line of an answer is known: of this batch, and of this claim of the row."""
    return f"{token[:8]}-{claim[0]}-{claim[1]}"


def claim_in(custom_id: str | None, token: str) -> Claim | None:
    """The claim that a line answers; None: it is not of the batch with this token."""
    before, _, numbers = (custom_id or "").partition("-")
    item_id, _, epoch = numbers.partition("-")
    digits = item_id + epoch
    if before != token[:8] or not (item_id and epoch and digits.isascii() and digits.isdigit()):
        return None
    claim = int(item_id), int(epoch)
    return claim if custom_id == custom_id_of(token, claim) else None


def _no_room(directory: Path, exc: OSError) -> BatchgenError:
    return BatchgenError(
        f"{directory}: the requests of a provider batch cannot be written there: "
        f"{exc.strerror or exc}. Nothing of it was sent, and nothing is lost."
    )
