"""What the table knows of provider batches. Times that end in `_at` are milliseconds since 1970,
UTC; tokens and dollars that are reserved are the most that the requests can use."""

from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:  # who only looks has no need of limits
    from batchgen.store.server_wants import AskedServer


class BatchState(StrEnum):
    """How far a batch is, for us.

    creating  sealed: it holds its rows, and the provider may have it already; nobody knows as what
    open      the provider has it, by its `batch_id`, and has not said its last word
    ended     it has; the lines of its files are being collected
    closed    it holds no row any more
    """

    CREATING = "creating"
    OPEN = "open"
    ENDED = "ended"
    CLOSED = "closed"


class NewBatch(Struct, frozen=True):
    """A file of requests that the provider has, as `input_file`, and of which a batch is to be made
    now: of rows of one experiment (of a chain: of one step), with one recipe. `token`: 32 hex
    characters that no other batch has. `base_url` is as it may be shown, without secrets. `tokens`
    are those of its prompts, as they are estimated."""

    experiment_id: int
    recipe_id: int
    server: "AskedServer"
    base_url: str
    endpoint: str
    model: str
    token: str
    input_file: str
    bytes: int
    tokens: int
    reserved_tokens: int = 0
    reserved_cost_usd: float = 0.0


class ProviderBatch(Struct, frozen=True):
    """A batch, of the experiment of that name. Its `number` is ours, its `batch_id` the provider's;
    `worker_id` is what its rows are claimed by. Of its `requests` so many are `settled`: their rows
    are not its own any more. `status`, `answered` and `failed` are what the provider has last said;
    `error` is why it was closed, or has ended, if not in order. `created_at` and `expires_at` are
    the provider's. `absent`: it is certain that the provider has not made it yet."""

    number: int
    worker_id: int
    experiment_id: int
    recipe_id: int
    server: str
    base_url: str
    endpoint: str
    model: str
    token: str
    state: BatchState
    requests: int
    settled: int
    bytes: int
    tokens: int
    reserved_tokens: int
    reserved_cost_usd: float
    input_file: str
    sealed_at: int
    batch_id: str | None = None
    output_file: str | None = None
    error_file: str | None = None
    status: str | None = None
    answered: int = 0
    failed: int = 0
    error: str | None = None
    created_at: int | None = None
    expires_at: int | None = None
    ended_at: int | None = None
    closed_at: int | None = None
    files_gone: bool = False
    absent: bool = False
    experiment: str = ""

    @property
    def unsettled(self) -> int:
        """How many rows it holds."""
        return self.requests - self.settled
