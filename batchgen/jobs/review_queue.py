"""Rows one after another, to be reviewed: drawn at random, or those for which a condition holds."""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from batchgen.errors import UsageError
from batchgen.items import State
from batchgen.jobs.browse import Wanted, first_rows, neighbour, place_of
from batchgen.jobs.lookup import chosen_experiments
from batchgen.jobs.review import Share, filter_of
from batchgen.store import Order, RandomRows, ReadStore, ReviewCounts, Verdict

MOST_ROWS = 2000
MOST_COUNTED = 5000  # reviews: a reader waits for them
MOST_LISTED = 500
COUNTING_S = 0.1
_BEFORE_ALL, _MOST_DIGITS = "0", 17


class Queue(Struct, frozen=True):
    """Which rows of an experiment, or of a step (`demo/judge`), and in which order: `rows` of them
    drawn by a `seed` among the results `upto` one (None: the newest); or, as in the pool, those for
    which a condition holds (`where`), or whose reviews stand in a `state`."""

    experiment: str
    rows: int | None = None
    seed: int = 0
    upto: int | None = None
    where: str | None = None
    state: str | None = None


class Target(Struct, frozen=True):
    """Whose rows are reviewed: those of one step where there are several, whose names are
    `steps`."""

    experiment: str
    experiment_id: int
    step: str | None = None
    steps: tuple[str, ...] = ()


class Found(Struct, frozen=True):
    """A row to look at. None: there is none any more or, with a `place`, it is to be looked for
    from there on."""

    item: int | None
    place: str | None = None


class PlaceIn(Struct, frozen=True):
    """Of so many rows of a queue, or more where these are not all, a row is the `at`th, from 1 on;
    None: it is none of them, or nobody knows."""

    rows: int
    at: int | None
    is_all: bool


class Sample(Struct, frozen=True):
    """How far a random queue is: which place the row has, from 1 on (None: it is not in it), and
    what was said of its rows."""

    rows: int
    at: int | None
    accepted: int
    rejected: int
    is_all: bool

    @property
    def decided(self) -> int:
        return self.accepted + self.rejected

    @property
    def share_rejected(self) -> Share:
        return Share(self.rejected, self.decided)


async def target_of(store: ReadStore, name: str) -> Target:
    """Of a whole chain the rows are those of the step whose value its lines have. Raises UsageError
    for a name that is none."""
    found = await chosen_experiments(store, name)
    first = found[0]
    chain = await store.chain_if_step(first)
    if chain is None:
        return Target(first.name, first.id)
    by_number = {one.number: one for one in chain.steps}
    whole = first.name if first.first_id is None else first.name.removesuffix(f"/{first.step}")
    names = tuple(one.name for one in chain.steps)
    number = chain.plan.number_of(chain.plan.result[0]) if len(found) > 1 else first.number
    step = by_number[number]
    return Target(whole, step.experiment_id, step.name, names)


async def drawn(store: ReadStore, target: Target, queue: Queue) -> RandomRows:
    """The rows of a random queue."""
    wanted = queue.rows or 0
    return await store.pages.random_done(target.experiment_id, wanted, queue.seed, queue.upto)


async def first_of(store: ReadStore, queue: Queue) -> tuple[Queue, Found]:
    """The first row, of a random queue the first without a verdict; and the queue as it is found
    again."""
    if queue.rows is None:
        return queue, await after(store, queue, _BEFORE_ALL)
    rows = await drawn(store, await target_of(store, queue.experiment), queue)
    said = await store.reviews.of_items(rows.item_ids)
    decided = {id_ for id_, one in said.items() if one.is_current and one.verdict is not None}
    open_ = (id_ for id_ in rows.item_ids if id_ not in decided)
    first = next(open_, rows.item_ids[0] if rows.item_ids else None)
    return replace(queue, upto=rows.upto), Found(first)


async def after(store: ReadStore, queue: Queue, place: str, *, back: bool = False) -> Found:
    """The row after one, or before it; of a random queue that was drawn. Of rows for which a
    condition holds it may also be a place that was found before. Raises UsageError for a condition
    that cannot be read, and a place that is none."""
    is_row = place.isascii() and place.isdecimal() and len(place) <= _MOST_DIGITS
    if not is_row and (queue.where is None or "." not in place):
        raise UsageError(f"{place[:60]!r} is no row.")
    if queue.rows is not None:
        rows = await drawn(store, await target_of(store, queue.experiment), queue)
        return Found(_beside(rows.item_ids, int(place), back=back))
    target = await target_of(store, queue.experiment)
    if queue.where is None:
        which, id_ = filter_of(queue.state), target.experiment_id
        return Found(await store.reviews.beside(id_, which, int(place), back=back))
    wanted = _wanted(queue, target)
    at = await place_of(store, wanted, int(place)) if is_row else place
    found = await neighbour(store, wanted, at, back=back)
    return Found(found.row, None if found.row is not None else found.place)


async def place_in(store: ReadStore, queue: Queue, item: int | None) -> PlaceIn | None:
    """None of a random queue, whose `Sample` says it."""
    if queue.rows is not None:
        return None
    target = await target_of(store, queue.experiment)
    if queue.where is not None:
        rows, is_all = await first_rows(store, _wanted(queue, target), COUNTING_S)
    else:
        found = await store.reviews.page(
            [target.experiment_id], filter_of(queue.state), limit=MOST_LISTED + 1
        )
        rows, is_all = [one.item_id for one in found][:MOST_LISTED], len(found) <= MOST_LISTED
    at = rows.index(item) + 1 if is_all and item in rows else None
    return PlaceIn(len(rows), at, is_all)


def _wanted(queue: Queue, target: Target) -> Wanted:
    return Wanted(
        target.experiment, target.step, State.DONE, where=queue.where, order=Order.POOL
    )  # fmt: skip


async def sample_of(store: ReadStore, queue: Queue, item: int | None) -> Sample | None:
    """None: it is no random queue."""
    if queue.rows is None:
        return None
    rows = await drawn(store, await target_of(store, queue.experiment), queue)
    said = await store.reviews.of_items(rows.item_ids)
    verdicts = [one.verdict for one in said.values() if one.is_current]
    at = rows.item_ids.index(item) + 1 if item in rows.item_ids else None
    accepted, rejected = map(verdicts.count, (Verdict.ACCEPTED, Verdict.REJECTED))
    return Sample(len(rows.item_ids), at, accepted, rejected, rows.is_all)


async def counts_of(store: ReadStore, target: Target) -> ReviewCounts:
    """Of all rows whose turn it may be, as far as reviews can be counted at once."""
    return await store.reviews.counts([target.experiment_id], MOST_COUNTED)


def _beside(item_ids: Sequence[int], item: int, *, back: bool) -> int | None:
    """One that is not there, as it was asked again since, stands before all."""
    at = item_ids.index(item) if item in item_ids else -1
    at += -1 if back else 1
    return item_ids[at] if 0 <= at < len(item_ids) else None
