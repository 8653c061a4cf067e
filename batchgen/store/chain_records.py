"""What is read of experiments with steps: the chains, and how their rows hang together."""

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from batchgen.store.records import ResultRow

if TYPE_CHECKING:
    from batchgen.steps import Link, Plan


class MadeOf(Struct, frozen=True):
    """The rows that a row was made of, from its chain's first one down to its parent; and of a
    gathering step's row those that it gathers, each with what it was made of."""

    links: "tuple[Link, ...]"
    gathered: "tuple[tuple[Link, ...], ...]" = ()


class ChainStep(Struct, frozen=True):
    """A step of a chain: an experiment, whose new rows have this recipe. `gathered_by` is the
    experiment of the step that gathers its rows; None: none does."""

    experiment_id: int
    name: str
    number: int
    recipe_id: int
    runs_code: bool
    gathered_by: int | None


class Chain(Struct, frozen=True):
    """The steps of an experiment, in their order, and its plan. While it `is_followed` all rows
    that are done have been followed by it."""

    first_id: int
    plan_id: int
    plan: "Plan"
    steps: tuple[ChainStep, ...]
    is_followed: bool = True

    @property
    def lists(self) -> frozenset[int]:
        """The experiments of the steps whose rows are for elements of lists."""
        return frozenset(
            step.experiment_id for step in self.steps if self.plan.steps[step.number].each
        )


class FollowRow(Struct, frozen=True):
    """A row of a step that is done, for `follow`."""

    item_id: int
    experiment_id: int
    number: int
    custom_id: str | None
    input_json: str
    result_seq: int
    parsed_json: str | None
    response: str | None
    made_of: MadeOf = MadeOf(())


class Refollowed(NamedTuple):
    """Rows followed by another plan, but those that were `skipped`, as something else became of
    them, or of the plan, meanwhile. `unasked`: how many others waited to be asked, by their
    experiments, and are stale now."""

    skipped: set[int]
    unasked: Counter[int]


class StaleRow(Struct, frozen=True):
    """A stale row. It `waits` while its parent is not done, and in vain where the steps as they are
    make it, or what it was made of, no more (`unmade`); else it may be asked anew or, if that is
    not what it `asks`, it sees what it saw before."""

    item_id: int
    waits: bool
    asks: bool
    unmade: bool = False


class ChainRow(Struct, frozen=True):
    """A row of a chain, of the item `item_id` (its first sample). `children`: so many rows were to
    be made of it; None: it was not followed. `gathered` are the results (`result_seq`) of the rows
    that it gathers. `result` is there once it is done or failed, not of a stale one."""

    item_id: int
    id: int
    parent_id: int | None
    experiment_id: int
    number: int
    element: int
    sample: int | None
    state: str
    result_seq: int | None
    children: int | None
    gathered: tuple[int, ...]
    result: ResultRow | None


class LiveChains(Struct, frozen=True):
    """The rows with which chains have ended among the results up to `result_seq`, as in
    `LivePage`; `above` are these and all that they were made of, by their numbers.
    `superseded_results` are those of all its steps; a change of its plan counts as one."""

    chain: Chain
    rows: list[int]
    above: dict[int, ChainRow]
    result_seq: int
    is_last: bool
    superseded_results: int
