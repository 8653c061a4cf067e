"""What is read of the store, whatever engine keeps it: how it goes, and what came of it.

Times that end in `_at` are milliseconds since 1970, UTC. Pages are bounded in rows and characters,
and an empty page is the end.
"""

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from batchgen.items import ParserVersion

T = TypeVar("T")


class Experiment(Struct, frozen=True):
    """`endpoint` is what its items are asked at by their recipe, in a list of experiments. A later
    step of a chain is one too: `first_id` is the chain's first. `step` is its name, and `number`
    its place; None: it has no steps."""

    id: int
    name: str
    created_at: int
    endpoint: str = ""
    first_id: int | None = None
    step: str | None = None
    number: int = 0
    runs_code: int = 0

    @property
    def own_name(self) -> str:
        """What it alone is called: of the first step `demo/draft`, as `demo` is all of them."""
        return self.name if self.step is None or self.number else f"{self.name}/{self.step}"


class Variant(Struct, frozen=True):
    """What new items of an experiment are asked with, in the variant of this number."""

    experiment_id: int
    number: int
    recipe_id: int


class StoredRecipe(Struct, frozen=True):
    """`body` is what `Recipe.from_json` reads."""

    id: int
    created_at: int
    body: str


class CallTotals(Struct):
    """What the calls of an experiment used together. This is the one list of it: what is kept, what
    `status` says and what `verify` counts again goes by these names."""

    calls: int = 0
    unknown_calls: int = 0
    latency_ms: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0.0


class CallFailure(Struct, frozen=True, order=True):
    """How a call failed: `http_status` is 0 where there was none."""

    reason: str
    http_status: int

    def __str__(self) -> str:
        return f"{self.http_status} {self.reason}" if self.http_status else self.reason


class Counts(CallTotals):
    """Items by state, the failed ones by reason too, and what all calls used. `retried` are those
    calls after which their item was to be asked again; `failed_calls` most of these, and those with
    which an item failed. Of steps, `ended` are the chains that ended at them, and `passed_over` the
    rows for which they were; without steps, an item that is done has `ended`."""

    pending: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    stale: int = 0
    ended: int = 0
    passed_over: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    retried: int = 0
    failed_calls: Counter[CallFailure] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return self.pending + self.running + self.done + self.failed + self.stale

    @property
    def open(self) -> int:
        """Those that still need work."""
        return self.pending + self.running

    @property
    def finished(self) -> int:
        return self.done + self.failed

    @property
    def ended_calls(self) -> int:
        """Those whose end is known."""
        return self.calls - self.unknown_calls

    @property
    def last_calls(self) -> int:
        """Those after which their item was not asked again."""
        return self.ended_calls - self.retried

    @property
    def cost_of_a_call(self) -> float:
        """What one has cost so far, with those after which it was asked again; 0: not known."""
        return self.cost_usd / self.last_calls if self.last_calls > 0 else 0.0

    @property
    def percent(self) -> int:
        """Of the items that are not open, rounded down: 100 only when nothing is left."""
        return 100 * (self.total - self.open) // self.total if self.total else 100

    def is_enough(self, until: int | None) -> bool:
        """Whether `until` items are done, with all their steps; never, if no number is wanted
        (None)."""
        return until is not None and self.ended >= until

    def wanted(self, until: int | None) -> int:
        """How many of the pending ones may be begun (None: all), so that no more than `until` items
        can be done in the end."""
        if until is None:
            return self.pending
        return max(0, min(self.pending, until - self.ended - self.running))

    def since(self, before: CallTotals) -> "Counts":
        """With what calls used since they were `before`."""
        names = CallTotals.__struct_fields__
        return replace(
            self, **{name: getattr(self, name) - getattr(before, name) for name in names}
        )

    @classmethod
    def sum_of(cls, counts: Iterable["Counts"]) -> "Counts":
        found = cls()
        for one in counts:
            for name in cls.__struct_fields__:
                setattr(found, name, getattr(found, name) + getattr(one, name))
        return found


class Pace(Struct, frozen=True):
    """Items finished lately: `items` in the last `span_s` seconds."""

    items: int
    span_s: float


class FailureGroup(Struct, frozen=True):
    """`n` failed items of one message, and the number of the first of them."""

    reason: str
    error: str
    n: int
    example: int


class FailedCalls(Struct, frozen=True):
    """`n` calls of an experiment that failed in one way, and what the newest of them said."""

    experiment_id: int
    reason: str
    http_status: int
    n: int
    newest_error: str

    @property
    def failure(self) -> CallFailure:
        return CallFailure(self.reason, self.http_status)


class StoredAttempt(Struct, frozen=True):
    """One call for an item. `response` is the answer's text, `body` what else came with it or, of a
    call that failed, all that came back; `server` is the name of the one that was asked, where
    there are several, and `batch` the number of the provider batch that it was in."""

    seq: int
    finished_at: int
    latency_ms: int | None
    outcome: str
    reason: str | None
    error: str | None
    http_status: int | None
    request_id: str | None
    model: str | None
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: float | None
    response: str | None
    body: str | None
    server: str | None = None
    batch: int | None = None


class StoredItem(Struct, frozen=True):
    """An item and how it stands; `sample` is None of an ordinary item. `input` and `parsed` are
    JSON text, `parsed` None when it is the response: the answer's text, of the call that the result
    is from. `parser` is what has read it, if anything has; `result_seq` is the number of the
    result."""

    id: int
    experiment: str
    custom_id: str | None
    sample: int | None
    input: str
    recipe_id: int
    state: str
    reason: str | None
    error: str | None
    parsed: str | None
    finished_at: int | None
    response: str | None
    parser: str | None
    result_seq: int | None = None


class UnknownCall(Struct, frozen=True):
    """A call that was sent, and whose answer nobody knows. `booked_usd`: what a budget has counted
    for it, if there was one. `seq` is 0 while its worker is only known to be dead."""

    seq: int
    item_id: int
    experiment: str
    recipe_id: int
    input: str
    booked_usd: float | None


# Workers and parsers


class WorkerKind(StrEnum):
    """What a worker does with its claims. A caller asks for them one by one, a sender puts them
    into files of provider batches; a batch has no process, and is told of as a `ProviderBatch`."""

    CALLER = "caller"
    SENDER = "sender"
    BATCH = "batch"


class WorkerRow(Struct, frozen=True):
    """A worker that joined and did not leave. `stop` is the order to stop (`drain` or `now`), and
    `report` JSON text, what it last told of itself; `calls` are those that it has in flight, or had
    when it died; `servers` are the keys of those that it asks."""

    id: int
    host: str
    boot_id: str
    pid: int
    slots: int
    started_at: int
    lease_until: int
    paused: bool = False
    report: str | None = None
    servers: tuple[str, ...] = ()
    calls: int = 0
    alive: bool = True
    kind: WorkerKind = WorkerKind.CALLER
    stop: str | None = None


class StoredParser(Struct, frozen=True):
    """A parser as it was when it was stored."""

    id: int
    version: ParserVersion


class ParserCount(Struct, frozen=True):
    """`n` items of an experiment have a result by this parser."""

    experiment_id: int
    parser_id: int
    spec: str
    fingerprint: str
    n: int


# Results


class ResultRow(Struct, frozen=True):
    """An item that ended, as exported. `input`, `response`, `parsed` and `metadata` are JSON text;
    `parsed` is None when it is the response; `sample` is None of an ordinary item."""

    id: int
    custom_id: str | None
    input: str
    response: str
    parsed: str | None
    metadata: str | None
    model: str | None
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    cost_usd: float | None
    tries: int
    finished_at: int
    sample: int | None = None
    reason: str | None = None
    error: str | None = None
    experiment_id: int = 0
    state: str = "done"
    result_seq: int = 0
    variant: int = 1


class MadePage(NamedTuple, Generic[T]):
    """A page of so many results, the last of them that of item `last`, as what was `made` of it."""

    rows: int
    last: int
    made: T


class AnswerDetails(Struct, frozen=True):
    """What only some formats of the export need of an item that ended."""

    item_id: int
    recipe_id: int
    http_status: int | None
    request_id: str | None
    body: str | None


class ExportRecord(Struct, frozen=True):
    """A file that an export wrote, as it was then: `result_seq` is the `results_mark` of that
    moment, or -1 when the file cannot be compared with the table."""

    experiment_id: int
    experiment: str
    path: str
    rows: int
    sha256: str
    result_seq: int


# Files


class FileUse(StrEnum):
    """What batchgen did with a file."""

    READ = "read"
    WRITTEN = "written"


class LivePage(Struct, frozen=True):
    """`rows` are what is done of the results up to `result_seq`; `is_last`: there were no more at
    that moment. `superseded_results`: done results of the experiment
    that are their items' no more."""

    rows: list[ResultRow]
    result_seq: int
    is_last: bool
    superseded_results: int


class LiveFileRecord(Struct, frozen=True):
    """A file that has the results up to `result_seq`: its first `size_bytes`, and their hash."""

    path: str
    experiment_id: int
    result_seq: int
    rows: int
    size_bytes: int
    sha256: str
    superseded_results: int
