"""What the store is asked with, and what it answers, whatever engine keeps it; what is only read of
it is in `records`. Times that end in `_at` or `_until` are milliseconds since 1970, UTC."""

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
    """What to claim: up to `slots` items of `experiments` (None: of all), and of a `selection` in
    them if there is one, sending no more than `limits` allow together with every other worker, and
    none that could bring their done items, whoever does them, above `until`. A call is thought to
    use `call_tokens`, and for `pause_ms` from now on the server wants no more calls."""

    slots: int = 0
    experiments: tuple[int, ...] | None = None
    limits: Limits = NO_LIMITS
    until: int | None = None
    call_tokens: CallTokens = UNKNOWN_CALL
    pause_ms: int = 0
    selection: int | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """What an exchange did.

    `attempt_seqs` belong to the outcomes, in their order (None: no call was made). `lost` are the
    outcomes that no longer counted. `open` items are pending or running, anybody's; `next_at` is
    when it is time to look again; `enough`: as many as wanted are done; `limited_to_rpm`: the calls
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
    `calls` are those that it has in flight, or had when it died."""

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
    """An item that is done (`reason` is None) or failed."""

    item_id: int
    experiment_id: int
    reason: str | None
    error: str | None

    def has_message(self, message: str | None) -> bool:
        """Whether its error contains `message`, in whatever case. None is in every one."""
        return (message or "").casefold() in (self.error or "").casefold()


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
