"""What a provider of batches can be asked, and what it says: values, and the protocol of them.

A provider batch is a file of requests, uploaded before, of which the provider makes files of
answers. Every provider does it in its own words; what differs ends here, so that a line of an
answer file is a `Reply` as an online call would have had it.
"""

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any, BinaryIO, NamedTuple, Protocol

from msgspec import Struct

from batchgen.endpoints import Endpoint
from batchgen.items import Failure, Reply


class Standing(StrEnum):
    """How a batch stands at its provider."""

    RUNNING = "running"  # or about to begin, or to end: this is not its last word
    COMPLETED = "completed"  # each line has an answer or an error
    FAILED = "failed"  # the file was refused: nothing ran, and nothing is billed
    EXPIRED = "expired"  # its time was over: what was answered by then is in the files
    CANCELLED = "cancelled"  # the same, by whoever cancelled it

    @property
    def is_over(self) -> bool:
        return self is not Standing.RUNNING


class LineProblem(NamedTuple):
    """Why a batch failed; `line` is the one of the input file that is to blame, from 1."""

    code: str
    message: str
    line: int | None


class Seen(Struct, frozen=True):
    """A batch as its provider shows it. Times are in ms since 1970, by the provider's clock.

    `status` is the provider's own word. `token` is what `create` was given; None: nobody's of ours,
    or the provider keeps none. `total` is how many lines there are, if it says so. A batch that is
    over has an `output_file` and an `error_file`, or one of them, or neither; they may be named a
    while later than it is over.
    """

    batch_id: str
    standing: Standing
    status: str
    input_file: str | None = None
    token: str | None = None
    total: int | None = None
    answered: int = 0
    failed: int = 0
    output_file: str | None = None
    error_file: str | None = None
    created_at: int | None = None
    expires_at: int | None = None
    problems: tuple[LineProblem, ...] = ()


class Refused(Struct, frozen=True):
    """The batch was certainly not made: the provider refused, or could not be reached (then
    `failure.trouble` is UNREACHABLE, and the same may be asked again)."""

    failure: Failure


class Unclear(Struct, frozen=True):
    """The batch may have been made, or may be made yet: no reply, or none that tells."""

    message: str


class BatchLine(NamedTuple):
    """One line of an output or error file.

    `reply` is that of the call, whatever its status; its `started_at` is when the line was read,
    and its `latency_ms` is 0, as nobody says how long the call took. None: there is no reply, and
    the error says why (`batch_expired`, `batch_cancelled`, ...). `custom_id` is None where the
    line has none or cannot be read; then `error_message` has its beginning.
    """

    custom_id: str | None
    reply: Reply | None
    error_code: str | None = None
    error_message: str = ""


class BatchServerError(Exception):
    """The provider did not do what it was asked. Nothing is known to have changed, and the same may
    be asked again. `failure` says why, without secrets: `retry_after_s` and `halt` as of a call."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class BatchServer(Protocol):
    """A provider of batches, of one account. Nothing here retries or waits, and nothing that is
    raised or returned has a secret in it. A cancelled call may have reached the provider."""

    most_requests: int
    """In one input file."""
    most_bytes: int
    """Of one input file."""

    def line(self, custom_id: str, body: Mapping[str, Any], endpoint: Endpoint) -> bytes:
        """One request as a line of an input file, with its line break. All lines of a file are of
        one model and one endpoint."""

    async def upload(self, file: BinaryIO, size: int, name: str) -> str:
        """The id of the file there. `size` is its length in bytes; it is read from where it stands,
        piece by piece. It costs nothing, and may be repeated. Raises BatchServerError."""

    async def create(
        self, input_file: str, *, endpoint: Endpoint, model: str, window: str, token: str
    ) -> Seen | Refused | Unclear:
        """Make a batch of an uploaded file: money is spent from here on. `window` is how long it
        may take, as `24h` or `7d`. `token` is to be found in `Seen.token` for ever after."""

    async def recent(self, since_ms: int) -> list[Seen] | None:
        """The batches that were created at or after that time, newest first; a batch that was
        created a moment ago may be missing. None: this provider has no such list. Raises
        BatchServerError."""

    async def get(self, batch_id: str) -> Seen | None:
        """None: the provider knows of no such batch under this key. Raises BatchServerError."""

    def lines(self, seen: Seen) -> AsyncGenerator[BatchLine, None]:
        """Those of its output file, then those of its error file, in the provider's order. It ends
        only when both were read to their ends; else it raises BatchServerError, however much came
        before. To be closed (`aclose`) by who does not read it to its end."""

    async def custom_ids(self, input_file: str, lines: Collection[int]) -> dict[int, str]:
        """Those of these lines of an uploaded file, from 1, as far as it has them: a provider names
        what is wrong with a file by them. Raises BatchServerError."""

    async def cancel(self, batch_id: str) -> None:
        """Ask for it; it may take a while, and what is answered by then is kept and billed. A batch
        that is over is no error. Raises BatchServerError."""

    async def forget(self, file_ids: Sequence[str]) -> bool:
        """Delete files, as far as it can be done. Whether all are gone. Raises nothing."""
