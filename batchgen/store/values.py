"""What goes in and out of the store, whatever engine keeps it: values, no SQL, no file, no clock.

Times that end in `_at` or `_until` are milliseconds since 1970, UTC. Pages are bounded in rows and
in characters, and an empty page is the end.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Literal, NamedTuple

from batchgen.items import Done, Fail, Item, Outcome, Recipe
from batchgen.limits import NO_LIMITS, UNKNOWN_CALL, CallTokens, Limits

# Enqueueing


class OtherRecipe(StrEnum):
    """What to do when an experiment was enqueued with another recipe before."""

    STOP = "stop"
    ADD = "add"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class Intake:
    """One enqueueing of one pool. When `other_recipe` is set nothing was begun: the experiment has
    that recipe, and the caller did not say what to do.

    Items are known by `recipe_id`, and the new ones get `new_recipe_id`: another one only when
    `reparse` has changed the experiment's parser. Each item gets `samples` rows.
    """

    experiment_id: int
    recipe_id: int
    new_recipe_id: int
    number: int
    samples: int = 1
    other_recipe: Recipe | None = None
    dropped: int = 0
    running: int = 0


@dataclass(frozen=True, slots=True)
class Added:
    """The numbers of the items (of their first samples), in their order; `new` rows did not exist
    before.

    With `conflict` set, the item after the last id has an id that an item with other content has
    already: that item's number.
    """

    ids: list[int]
    new: int
    conflict: int | None = None


# Workers


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker is to do. A limit of None is the one that it was started with, 0 is none.
    `stop`: as a first signal (drain), or as a second one (now)."""

    slots: int
    paused: bool = False
    rpm: int | None = None
    tpm: int | None = None
    stop: Literal["drain", "now"] | None = None

    @property
    def claims_nothing(self) -> bool:
        return self.paused or self.stop is not None


@dataclass(frozen=True, slots=True)
class OrderChange:
    """A change of `Orders`; None leaves a thing as it is."""

    slots: int | None = None
    paused: bool | None = None
    rpm: int | None = None
    tpm: int | None = None
    stop: Literal["drain", "now"] | None = None


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """What to claim: up to `slots` items of `experiments` (None: of all), sending no more than
    `limits` allow together with every other worker, and none that could bring their done items,
    whoever does them, above `until`. A call is thought to use `call_tokens`, and for `pause_ms`
    from now on the server wants no more calls."""

    slots: int = 0
    experiments: tuple[int, ...] | None = None
    limits: Limits = NO_LIMITS
    until: int | None = None
    call_tokens: CallTokens = UNKNOWN_CALL
    pause_ms: int = 0


@dataclass(frozen=True, slots=True)
class Exchange:
    """What an exchange did.

    `attempt_seqs` belong to the outcomes, in their order (None: no call was made). `lost` are the
    outcomes that no longer counted. `open` items are pending or running, anybody's; `next_at` is
    when another try is worth it; `enough`: as many as wanted are done; `limited_to_rpm`: the calls
    a minute that a limit held the claims to. All four are told only when fewer items were claimed
    than wanted. `orders` are those of other terminals; None: this worker was taken for dead, and
    claims nothing before it joins again.
    """

    items: list[Item]
    attempt_seqs: list[int | None]
    orders: Orders | None
    lost: list[Outcome] = field(default_factory=list)
    open: int | None = None
    next_at: int | None = None
    enough: bool = False
    limited_to_rpm: float | None = None

    @property
    def expelled(self) -> bool:
        return self.orders is None


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker that joined and did not leave. `report` is JSON text, what it last told of itself;
    `calls` are those that it has under way, or had when it died."""

    id: int
    host: str
    boot_id: str
    pid: int
    slots: int
    started_at: int
    lease_until: int
    paused: bool = False
    report: str | None = None
    calls: int = 0
    alive: bool = True


# Budgets


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that the calls of `experiments` (None: of all) may cost in all, those of earlier
    runs included; None: no limit."""

    experiments: tuple[int, ...] | None = None
    max_cost_usd: float | None = None
    max_tokens: int | None = None

    def is_exceeded_by(self, spent: "Spent") -> bool:
        too_many = self.max_tokens is not None and spent.tokens > self.max_tokens
        return too_many or (self.max_cost_usd is not None and spent.cost_usd > self.max_cost_usd)


@dataclass(frozen=True, slots=True)
class Reservation:
    """The most that one call for this item can use."""

    item: Item
    tokens: int
    cost_usd: float


class Grant(Enum):
    """YES: send it. WAIT: others have reserved what is left, and may not need all of it, or the
    item is another's by now. NEVER: what is spent already leaves too little."""

    YES = "yes"
    WAIT = "wait"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Spent:
    tokens: int = 0
    cost_usd: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.tokens + other.tokens, self.cost_usd + other.cost_usd)


# Repairing


class EndedItem(NamedTuple):
    """An item that is done (`reason` is "") or failed."""

    item_id: int
    experiment_id: int
    reason: str
    error: str | None


class EndedAnswer(NamedTuple):
    """An item that ended, and the answer that it ended with. `reason` is None when it is done;
    `parsed` is JSON text, None when it is the response."""

    item_id: int
    experiment_id: int
    custom_id: str | None
    result_seq: int
    attempt_seq: int
    reason: str | None
    error: str | None
    parsed: str | None
    input: str
    response: str
    finish_reason: str | None


@dataclass(frozen=True, slots=True)
class Reparsed:
    """What another parser makes of an answer; `now` is None when that is what there is already."""

    was: EndedAnswer
    now: Done | Fail | None


# Looking


@dataclass(frozen=True, slots=True)
class Experiment:
    id: int
    name: str
    created_at: int


@dataclass(slots=True)
class Counts:
    """Items by state, the failed ones by reason too, and what all calls used. `retried` are those
    calls after which their item was to be asked again."""

    pending: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    unknown_calls: int = 0
    retried: int = 0
    latency_ms: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0.0

    @property
    def total(self) -> int:
        return self.pending + self.running + self.done + self.failed

    @property
    def open(self) -> int:
        """Those that still need work."""
        return self.pending + self.running

    @property
    def finished(self) -> int:
        return self.done + self.failed

    @property
    def percent(self) -> int:
        """Of the items that are finished, rounded down: 100 only when nothing is left."""
        return 100 * self.finished // self.total if self.total else 100

    @classmethod
    def sum_of(cls, counts: Iterable["Counts"]) -> "Counts":
        found = cls()
        for one in counts:
            for name in cls.__slots__:
                setattr(found, name, getattr(found, name) + getattr(one, name))
        return found


@dataclass(frozen=True, slots=True)
class Pace:
    """Items finished lately: `items` in the last `span_s` seconds."""

    items: int
    span_s: float


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """`n` failed items of one message, and the number of the first of them."""

    reason: str
    error: str
    n: int
    example: int


class StoredAttempt(NamedTuple):
    """One call for an item. `response` is the answer's text, `body` what else came with it or, of a
    call that failed, all that came back."""

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


class StoredItem(NamedTuple):
    """An item and how it stands. `state` is None when it was dropped; `sample` is None of an
    ordinary item. `input` and `parsed` are JSON text, `parsed` None when it is the response."""

    id: int
    experiment: str
    custom_id: str | None
    sample: int | None
    input: str
    recipe_id: int
    state: str | None
    reason: str | None
    error: str | None
    parsed: str | None
    finished_at: int | None


class UnknownCall(NamedTuple):
    """A call that was sent, and whose answer nobody knows. `booked_usd`: what a budget has counted
    for it, if there was one. `seq` is 0 while its worker is only known to be dead."""

    seq: int
    item_id: int
    recipe_id: int
    input: str
    booked_usd: float | None


# Results


class ResultRow(NamedTuple):
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
    attempts: int
    finished_at: int
    sample: int | None = None
    reason: str | None = None
    error: str | None = None
    experiment_id: int = 0
    state: str = "done"
    result_seq: int = 0


class AnswerDetails(NamedTuple):
    """What only some formats of the export need of an item that ended."""

    item_id: int
    recipe_id: int
    http_status: int | None
    request_id: str | None
    body: str | None


@dataclass(frozen=True, slots=True)
class ExportRecord:
    """A file that an export wrote, as it was then: `result_seq` is the newest result that it could
    hold, or -1 when the file cannot be compared with the table."""

    experiment_id: int
    experiment: str
    path: str
    rows: int
    sha256: str
    result_seq: int


# Live files


@dataclass(frozen=True, slots=True)
class LivePage:
    """`rows` are what is done of the results up to `result_seq`; `is_last`: there were no more at
    that moment. `superseded_results`: done results of the experiment
    that are their items' no more."""

    rows: list[ResultRow]
    result_seq: int
    is_last: bool
    superseded_results: int


@dataclass(frozen=True, slots=True)
class LiveFileRecord:
    """A file that has the results up to `result_seq`, and how it can be told to be that file."""

    path: str
    experiment_id: int
    result_seq: int
    rows: int
    size_bytes: int
    tail_sha256: str
    superseded_results: int
