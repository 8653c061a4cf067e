"""What the store is asked with, and what it answers, whatever engine keeps it; what is only read of
it is in `records`. Times that end in `_at` or `_until` are milliseconds since 1970, UTC."""

from collections import Counter
from collections.abc import Mapping
from enum import Enum, StrEnum
from math import ceil
from typing import TYPE_CHECKING, Literal, NamedTuple

from msgspec import Struct, field

from batchgen.errors import UsageError
from batchgen.items import Done, Fail, Item, NewItem, Outcome, ParserVersion, Recipe
from batchgen.limits import Allowance, Share
from batchgen.store.seen_keys import SeenKeys
from batchgen.store.server_wants import ServerWant

if TYPE_CHECKING:  # what has no steps need not load them
    from batchgen.steps import Plan

# Enqueueing


class OtherRecipe(StrEnum):
    """What to do when the recipe is none that the experiment has.

    stop      nothing; the caller says what the others would do
    replace   the rows of its newest variant that are not done are asked with it
    again     all of them are
    add       it gets a variant with this recipe: each item is asked once more, beside the others
    """

    STOP = "stop"
    REPLACE = "replace"
    AGAIN = "again"
    ADD = "add"


class RecipeChoice(Struct, frozen=True):
    """What follows when the experiment has `present` and not the recipe given: how many rows it has
    in its newest variant, and how many of them `replace` and `again` would ask."""

    present: Recipe
    rows: int
    replace: int
    again: int


class Intake(Struct, frozen=True):
    """One enqueueing of one pool into a `variant` of an experiment; each item gets `samples` rows
    that are asked with the recipe. When there is a `choice`, or rows are `running` that could not
    be given another recipe (some `at_provider`), nothing was begun; `step` names the later step
    that these are of. Nor was it when there is an `other_plan`, by whose rules the experiment goes.
    `asked` rows, by their experiments, go back to pending. Rows from number `first` on are made by
    this enqueueing; 0: it was not begun. `seen` has keys that the store has not sorted in."""

    experiment_id: int
    variant: int
    recipe_id: int
    first: int
    samples: int = 1
    choice: RecipeChoice | None = None
    running: int = 0
    at_provider: int = 0
    asked: Mapping[int, int] = field(default_factory=dict)
    seen: SeenKeys = field(default_factory=SeenKeys)
    step: str | None = None
    other_plan: "Plan | None" = None

    @property
    def asked_anew(self) -> int:
        return sum(self.asked.values())


class StepIntake(Struct, frozen=True):
    """What a step's rows are asked with, and what reads their answers, or ends them without one."""

    recipe: Recipe
    parser: ParserVersion


class ChainIntake(Struct, frozen=True):
    """The steps of a chain to be enqueued, the first one included, in the order of the plan."""

    plan: "Plan"
    steps: tuple[StepIntake, ...]


class AskedAgain(NamedTuple):
    """`asked` rows went back to pending; `kept` others of their variant are done with an earlier
    recipe, and stay."""

    asked: int
    kept: int


class Added(Struct, frozen=True):
    """The numbers of the items (of their first samples), in their order; `new` rows did not exist
    before. With `conflict` set, the item after the last id has an id that an item with other
    content has already: that item's number."""

    ids: list[int]
    new: int
    conflict: int | None = None


class NewRows(Struct, frozen=True):
    """What `add_items` would add: so many `rows`, of `items` that are not there yet or, those that
    are left, more samples of such as are."""

    rows: int
    items: int

    def __add__(self, other: "NewRows") -> "NewRows":
        return NewRows(self.rows + other.rows, self.items + other.items)


class Twin(Struct, frozen=True):
    """An item of a pool that the experiment has as `item_id`, which is equal but for its id: it has
    this `custom_id`, or none."""

    item: NewItem
    item_id: int
    custom_id: str | None


# Workers


class Orders(Struct, frozen=True):
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


class OrderChange(Struct, frozen=True):
    """A change of `Orders`; None leaves a thing as it is."""

    slots: int | None = None
    paused: bool | None = None
    rpm: int | None = None
    tpm: int | None = None
    stop: Literal["drain", "now"] | None = None


class FailureLimit(Struct, frozen=True):
    """How many items may fail: so many or, as `percent`, such a share of all there are."""

    number: float
    percent: bool = False

    @classmethod
    def parse(cls, text: str) -> "FailureLimit":
        """Reads `20` or `5%`. Raises UsageError."""
        digits = text.strip()
        percent = digits.endswith("%")
        try:
            number = float(digits.removesuffix("%"))
        except ValueError:
            number = 0.0
        is_right = 0 < number <= 100 if percent else number >= 1 and number == int(number)
        if not is_right:
            raise UsageError(f"{text!r} is not a number of failures: write one like 20, or 5%")
        return cls(number, percent)

    def is_reached(self, failed: int, total: int) -> bool:
        return failed >= (max(1.0, total * self.number / 100) if self.percent else self.number)

    def __str__(self) -> str:
        return f"{self.number:g}{'%' if self.percent else ''}"


class Failed(Struct, frozen=True):
    """What has failed, of `total` items."""

    items: int
    total: int
    reasons: Counter[str]
    newest_error: str


class Condemned(NamedTuple):
    """`items` different ones failed alike at a server, and none (of `experiment`, if named) was
    answered since. `halt`: why no request would work, if the server said so."""

    items: int
    alike: str
    message: str
    experiment: str | None = None
    halt: str | None = None


class Acquitted(Struct, frozen=True):
    """A suspect whose failure was its own: it failed for `reason`, or (None) is asked again."""

    item_id: int
    reason: str | None
    error: str


class Selection(Struct, frozen=True):
    """Chosen items of an experiment. Their open ones are marked with its `number`. None: nothing
    else is open, so they need no mark as long as the experiment `experiment_id` has these `rows`
    and no more; besides them are `done` and `failed` ones. What was made of them is chosen too:
    `ended` chains had ended when it was made, of the chosen items or, without a number, of the
    others. None: there are no steps."""

    number: int | None
    rows: int
    done: int = 0
    failed: int = 0
    experiment_id: int | None = None
    ended: int | None = None


class ClaimRequest(Struct, frozen=True):
    """What to claim: as many items as the `servers` have room for, but no more than `most`, of
    `experiments` (None: of all), and of a `selection` in them if there is one, and none that could
    bring their done items above `until`. Rows that make no call come on top. Nothing is claimed
    once `max_failures` is reached. `run` is what the processes of a command have in common. With
    `waits_for_batches`, rows in provider batches count as open."""

    servers: tuple[ServerWant, ...] = ()
    experiments: tuple[int, ...] | None = None
    until: int | None = None
    selection: Selection | None = None
    max_failures: FailureLimit | None = None
    most: int | None = None
    run: str = ""
    waits_for_batches: bool = False

    @property
    def slots(self) -> int:
        """How many items to claim at most."""
        return self.calls + sum(want.slots for want in self.servers if want.runs_code)

    @property
    def calls(self) -> int:
        """How many of them may be asked of the servers."""
        room = sum(want.slots for want in self.servers if not want.runs_code)
        return room if self.most is None else min(room, self.most)

    @property
    def mark(self) -> int | None:
        """That of the items to claim."""
        return None if self.selection is None else self.selection.number


class Exchange(Struct, frozen=True):
    """What an exchange did.

    `attempt_seqs` belong to the outcomes, in their order (None: no call was made). `lost` are the
    outcomes that no longer counted. `open` items are pending or running, anybody's; `next_at` is
    when it is time to look again; `enough`: as many as wanted are done, or others than those
    of the selection have come; `limited`: by server, what its limits allowed, where these held
    claims back. All are told only when fewer items were claimed than wanted. `orders` are those of
    other terminals; None: this worker was taken for dead, and claims nothing before it joins again.
    By server: `proven` are recipes that it has answered, and were not known to be; `condemned` says
    why none will be. `on_trial` are the servers by which others are not answered yet, and of whose
    `suspects` it is not known whose fault it was. `acquitted` were such until now. `failed`: as
    many as may. `shares` are, by server, those of the calls that it takes at once.
    """

    items: list[Item]
    attempt_seqs: list[int | None]
    orders: Orders | None
    lost: list[Outcome] = field(default_factory=list)
    open: int | None = None
    next_at: int | None = None
    enough: bool = False
    limited: Mapping[str, Allowance] = field(default_factory=dict)
    proven: Mapping[str, frozenset[int]] = field(default_factory=dict)
    on_trial: frozenset[str] = frozenset()
    suspects: frozenset[str] = frozenset()
    condemned: Mapping[str, Condemned] = field(default_factory=dict)
    acquitted: tuple[Acquitted, ...] = ()
    failed: Failed | None = None
    shares: Mapping[str, Share] = field(default_factory=dict)

    @property
    def expelled(self) -> bool:
        return self.orders is None


# Budgets


class Budget(Struct, frozen=True):
    """The most that the calls of `experiments` (None: of all) may cost in all, those of earlier
    runs included; None: no limit."""

    experiments: tuple[int, ...] | None = None
    max_cost_usd: float | None = None
    max_tokens: int | None = None

    def is_exceeded_by(self, spent: "Spent") -> bool:
        too_many = self.max_tokens is not None and spent.tokens > self.max_tokens
        return too_many or (self.max_cost_usd is not None and spent.cost_usd > self.max_cost_usd)


class Reservation(Struct, frozen=True):
    """The most that one call for this item can use."""

    item: Item
    tokens: int
    cost_usd: float

    def most(self, overuse: float) -> "Spent":
        """What is held back for it, when calls have used `overuse` times what was asked for."""
        return Spent(ceil(self.tokens * overuse), self.cost_usd * overuse)


class Grant(Enum):
    """YES: send it. WAIT: others have reserved what is left, and may not need all of it, or the
    item is another's by now. NEVER: what is spent already leaves too little."""

    YES = "yes"
    WAIT = "wait"
    NEVER = "never"


class Spent(Struct, frozen=True):
    tokens: int = 0
    cost_usd: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.tokens + other.tokens, self.cost_usd + other.cost_usd)


class RowGroup(NamedTuple):
    """`n` rows that stand alike; `reason` is "" unless they failed. Of those that are done and were
    followed, so many `children` were made, and so many steps were passed over."""

    state: str
    reason: str
    parser_id: int | None
    n: int
    children: int | None = None
    passed_over: int | None = None


# Repairing


class EndedItem(NamedTuple):
    """An item that is done (`reason` is None) or failed."""

    item_id: int
    experiment_id: int
    reason: str | None
    error: str | None
    parser_id: int | None = None

    def has_message(self, message: str | None) -> bool:
        """Whether its error contains `message`, in whatever case. None is in every one."""
        return (message or "").casefold() in (self.error or "").casefold()


class AnswerChoice(NamedTuple):
    """Which stored answers: those that failed at their parser; with `done_too` those of done items
    too, with `cut_off_too` those that it refused as they were cut off."""

    done_too: bool = False
    cut_off_too: bool = False


class EndedAnswer(NamedTuple):
    """An item that ended, and the answer that it ended with. `reason` is None when it is done;
    `parsed` is JSON text, None when it is the answer itself. `is_vector`: that is an embedding, in
    which there is nothing to parse."""

    item_id: int
    experiment_id: int
    custom_id: str | None
    result_seq: int
    attempt_seq: int
    reason: str | None
    error: str | None
    parsed: str | None
    parser_id: int | None
    input: str
    response: str
    finish_reason: str | None
    is_vector: int = 0


class Reparsed(Struct, frozen=True):
    """What another parser makes of an answer; `now` is None when that is what there is already."""

    was: EndedAnswer
    now: Done | Fail | None
